"""Two predictions against each other: hand-computed differences, what is left out, and whether the order holds."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from brats.labels import REGIONS
from brats.score.against import AGAINST, Scored, compare_against, compared_metrics, format_against, order_line
from brats.score.metrics import METRICS

MICRO, OF_TWO = "micro over 4 labels", "micro over 2 labels"


def scored(
    name: str,
    dice: Mapping[str, float | None],
    *,
    regions: Sequence[str] = tuple(REGIONS),
    patients: Mapping[str, str] | None = None,
    averaging: str = MICRO,
    n_voxels: int = 9,
    **others: float | None,
) -> Scored:
    """A prediction with this Dice in every region, by case, and other metrics alike in all cases, else absent."""
    rows = [
        {
            "case_id": case_id,
            "patient_id": (patients or {}).get(case_id, case_id),
            "region": region,
            "n_reference_voxels": n_voxels,
            "dice": value if region in regions else None,
            **others,
        }
        for case_id, value in dice.items()
        for region in REGIONS
    ]
    columns = dict.fromkeys(("dice", *others), float)
    notebook = [
        {"case_id": case_id, "metric": "dice", "averaging": averaging, "value": value}
        for case_id, value in dice.items()
    ]
    return Scored(name=name, cases=pd.DataFrame(rows).astype(columns), notebook=pd.DataFrame(notebook))


def row_of(table: pa.Table, region: str, metric: str, convention: str = "brats") -> dict[str, Any]:
    (row,) = (
        row
        for row in table.to_pylist()
        if (row["region"], row["metric"], row["convention"]) == (region, metric, convention)
    )
    return dict(row)


OURS = scored("ours", {"a": 0.9, "b": 0.5, "c": 0.7, "d": 0.6}, hd95_mm=4.0, relative_volume_difference=-0.5)
THEIRS = scored("theirs", {"a": 0.8, "b": 0.7, "c": 0.7, "d": 0.2}, hd95_mm=3.0, relative_volume_difference=0.25)


def test_differences_wins_losses_and_ties_are_those_counted_by_hand() -> None:
    found = compare_against(OURS, THEIRS)
    row = row_of(found.table, "TC", "dice")
    assert (row["n_cases"], row["n_pairs"], row["wins"], row["losses"], row["ties"]) == (4, 4, 2, 1, 1)
    assert (row["mean"], row["mean_against"]) == pytest.approx((0.675, 0.6))
    assert row["difference"] == pytest.approx((0.1 - 0.2 + 0 + 0.4) / 4)
    assert row["difference_ci95_low"] < row["difference"] < row["difference_ci95_high"]
    assert (row["p_wilcoxon"], row["why_no_p"]) == (None, "fewer than 6 differences")
    assert found.table.schema.names == AGAINST.schema.names
    assert found.notes == []


def test_p_leaves_out_patients_without_a_difference() -> None:
    ours = scored("ours", {f"{n}": 0.5 + n / 100 for n in range(8)})
    theirs = scored("theirs", {f"{n}": 0.5 for n in range(8)})
    row = row_of(compare_against(ours, theirs).table, "WT", "dice")
    assert (row["wins"], row["ties"]) == (7, 1)
    assert row["p_wilcoxon"] == pytest.approx(2 / 2**7)


def test_smaller_distances_and_smaller_volume_errors_of_either_sign_are_better() -> None:
    table = compare_against(OURS, THEIRS).table
    distance, volume = row_of(table, "ET", "hd95_mm"), row_of(table, "ET", "relative_volume_difference")
    assert (distance["difference"], distance["losses"], distance["better"]) == (1.0, 4, "against")
    assert (volume["mean"], volume["mean_against"], volume["losses"]) == (0.5, 0.25, 4)


def test_visits_of_a_patient_count_as_one_pair_and_the_patients_are_those_of_ours() -> None:
    ours = scored("ours", {"a1": 0.4, "a2": 0.8, "b": 0.5}, patients={"a1": "a", "a2": "a"})
    theirs = scored("theirs", {"a1": 0.4, "a2": 0.4, "b": 0.5})
    row = row_of(compare_against(ours, theirs).table, "WT", "dice")
    assert (row["n_cases"], row["n_pairs"], row["wins"], row["ties"]) == (3, 2, 1, 1)
    assert row["difference"] == pytest.approx(0.1)


def test_cases_in_one_of_them_are_named_and_left_out() -> None:
    ours, theirs = scored("ours", {"a": 0.9, "b": 0.1}), scored("theirs", {"a": 0.8, "c": 0.9, "d": 0.9})
    found = compare_against(ours, theirs)
    assert found.notes == ["left out, scored in ours only: b", "left out, scored in theirs only: c, d"]
    assert row_of(found.table, "WT", "dice")["difference"] == pytest.approx(0.1)


def test_references_of_different_sizes_are_a_warning() -> None:
    found = compare_against(scored("ours", {"a": 0.9}), scored("theirs", {"a": 0.8}, n_voxels=8))
    assert found.notes == ["WARNING: scored against references of different sizes: a; the two do not compare there"]


def test_metrics_that_one_of_them_lacks_are_named_with_the_command_that_adds_them() -> None:
    found = compare_against(scored("ours", {"a": 0.9}, iou=0.5), scored("old", {"a": 0.8}))
    assert found.notes == [
        "not compared, since old lacks them: iou; evaluate.py --predictions old adds what its masks give"
    ]
    assert {row["metric"] for row in found.table.to_pylist()} == {"dice"}


def test_region_that_one_of_them_cannot_tell_has_no_pairs_and_says_why() -> None:
    row = row_of(compare_against(OURS, scored("binary", {"a": 0.9}, regions=("WT",))).table, "ET", "dice")
    assert (row["n_pairs"], row["difference"], row["better"], row["why_no_p"]) == (
        0,
        None,
        None,
        "no patient has both",
    )


def test_notebook_metrics_are_compared_where_both_average_alike() -> None:
    row = row_of(compare_against(OURS, THEIRS).table, "all labels", "dice", "notebook")
    assert row["difference"] == pytest.approx(0.075)
    table = compare_against(OURS, scored("binary", {"a": 0.9}, averaging=OF_TWO)).table
    assert {row["convention"] for row in table.to_pylist()} == {"brats"}


def test_all_metrics_of_the_cases_are_compared_and_sizes_are_not() -> None:
    assert {metric.name for metric in METRICS} <= {*compared_metrics()}
    assert not {"reference_ml", "predicted_ml", "entropy_bits"} & {*compared_metrics()}


def test_order_that_every_convention_gives_is_said() -> None:
    ours = scored("ours", {"a": 0.9, "b": 0.8}, hd95_mm=1.0)
    theirs = scored("theirs", {"a": 0.8, "b": 0.7}, hd95_mm=3.0)
    same = "order    the same by every convention: "
    assert order_line(compare_against(ours, theirs).table) == same + "--predictions is better"
    assert order_line(compare_against(theirs, ours).table) == same + "--against is better"
    assert order_line(compare_against(ours, ours).table) == same + "the two are equal"


def test_order_that_changes_with_the_convention_is_said_with_the_metrics_that_differ() -> None:
    assert order_line(compare_against(OURS, THEIRS).table) == (
        "order    changes with the convention: WT better by 1, worse by hd95_mm; TC better by 1, worse by hd95_mm; "
        "ET better by 1, worse by hd95_mm; all labels better by all 1"
    )


def test_errors_of_one_kind_alone_do_not_change_the_order() -> None:
    ours = scored("ours", {"a": 0.9}, sensitivity=0.1, precision=0.9)
    theirs = scored("theirs", {"a": 0.8}, sensitivity=0.9, precision=0.1)
    assert "the same by every convention" in order_line(compare_against(ours, theirs).table)


def test_console_shows_the_most_used_metrics_in_short_lines() -> None:
    lines = format_against(compare_against(OURS, THEIRS).table).splitlines()
    assert " ".join(lines[1].split()) == "WT dice 4 0.675 0.600 0.075 [-0.125, 0.300] 2 1 1 -"
    assert [line.split()[:2] for line in lines[1:-1]] == [
        [region, m] for region in REGIONS for m in ("dice", "hd95_mm")
    ]
    assert max(map(len, lines)) <= 116
