"""Test results: tables by convention, volumes, rejects."""

import math

import pandas as pd
import pytest

from brats.report.findings import Scores
from brats.report.html import DASH
from brats.report.results import (
    digits_of,
    is_overlap,
    mean_and_interval,
    rejects_section,
    results_section,
    side_by_side,
    volumes_section,
)
from brats.score.summary import STATISTICS, SUMMARY

NAN = math.nan


def summary_row(
    region: str, metric: str, convention: str, mean: float, subset: str = "all", n: int = 4
) -> dict[str, object]:
    values = {**dict.fromkeys(STATISTICS, 0.5), "mean": mean, "ci95_low": mean - 0.1, "ci95_high": mean + 0.1}
    return {"region": region, "metric": metric, "convention": convention, "subset": subset, "n": n, **values}


def scores_of(rows: list[dict[str, object]], **conventions: dict[str, str]) -> Scores:
    return Scores(tables={"summary": pd.DataFrame(rows, columns=SUMMARY.schema.names)}, conventions=conventions)


def test_each_convention_has_a_table_with_a_column_for_each_region() -> None:
    rows = [
        summary_row("WT", "dice", "brats", 0.9),
        summary_row("ET", "dice", "brats", 0.7),
        summary_row("WT", "hd95_mm", "brats", 5.04),
        summary_row("all labels", "accuracy", "notebook", 0.99),
    ]
    html = results_section(scores_of(rows, cases={"dice": "2 TP / <all>"}), "PICTURE")
    assert "<th>brats</th><th>WT</th><th>ET</th><th>n</th>" in html
    assert "<td>dice</td><td>0.900 [0.800, 1.000]</td><td>0.700 [0.600, 0.800]</td><td>4</td>" in html
    assert f"<td>hd95_mm</td><td>5.0 [4.9, 5.1]</td><td>{DASH}</td><td>4</td>" in html
    assert "<th>notebook</th><th>all labels</th>" in html
    assert "<li>dice: 2 TP / &lt;all&gt;</li>" in html
    assert "PICTURE" in html


def test_a_metric_and_a_convention_that_come_later_appear_by_themselves() -> None:
    rows = [summary_row("WT", "lesion_dice", "brats2099", 0.4)]
    html = results_section(scores_of(rows, cases={"lesion_dice": "of each lesion"}), "")
    assert "<th>brats2099</th>" in html
    assert "<li>lesion_dice: of each lesion</li>" in html
    assert "<td>brats2099, lesion_dice, all</td>" in html


def test_overlaps_of_all_conventions_stand_in_one_table_with_what_they_count() -> None:
    rows = [
        summary_row("WT", "dice", "brats", 0.9),
        summary_row("WT", "dice", "brats", 0.8, subset="present", n=3),
        summary_row("WT", "hd95_mm", "brats", 3),
        summary_row("all labels", "dice", "notebook", 0.6),
        summary_row("ET", "dice", "brats", NAN, subset="tiny", n=0),
    ]
    html = side_by_side(pd.DataFrame(rows))
    assert html.count("<tr>") == 1 + 3
    assert "<li>notebook: all voxels in one pool" in html
    assert "<li>present: cases whose reference has the region" in html
    assert "<li>tiny" not in html
    assert "hd95_mm" not in html


def test_overlaps_are_told_by_their_names() -> None:
    assert [name for name in ("dice", "accuracy", "lesion_dice", "hd95_mm", "pq", "ece") if is_overlap(name)] == [
        "dice",
        "accuracy",
        "lesion_dice",
        "pq",
    ]


@pytest.mark.parametrize(
    ("metric", "digits"),
    [
        *(("hd95_mm", 1), ("assd_mm", 1), ("lesion_hd95_mm_2023", 1), ("reference_ml", 1), ("n_false_2023", 1)),
        *(("dice", 3), ("nsd_at_1_mm", 3), ("nsd_at_half_mm", 3), ("lesion_dice_2023", 3)),
    ],
)
def test_millimetres_and_numbers_of_lesions_have_one_decimal_and_shares_three(metric: str, digits: int) -> None:
    assert digits_of(metric) == digits


def test_a_mean_without_interval_stands_alone_and_none_is_a_dash() -> None:
    row = {"metric": "dice", "mean": 0.5, "ci95_low": NAN, "ci95_high": NAN}
    assert mean_and_interval(row) == "0.500"
    assert mean_and_interval({**row, "mean": NAN}) == DASH


def test_without_scores_the_section_says_so() -> None:
    assert "No case with a reference was scored." in results_section(None, "")
    assert "No case with a reference was scored." in results_section(scores_of([]), "")


def test_volumes_have_a_point_for_each_scored_case_and_region() -> None:
    row = {"reference_ml": 10.0, "predicted_ml": 12.0, "dice": 0.9}
    cases = pd.DataFrame(
        [
            {"case_id": "a<", "region": "WT", **row},
            {"case_id": "a<", "region": "ET", **row, "dice": NAN},
            {"case_id": "b", "region": "WT", **row, "reference_ml": 0.0},
        ]
    )
    html = volumes_section(cases)
    assert html.count("<title>a&lt; WT:") == 2  # of either chart
    assert "a&lt; ET" not in html
    assert volumes_section(cases[:0]) == ""


def test_rejects_warnings_and_what_is_missing_are_listed() -> None:
    html = rejects_section({"preparing": ["a: <bad>"]}, ["b: odd"], ["c: gone"])
    assert "Rejected when preparing (1)" in html
    assert "<li>a: &lt;bad&gt;</li>" in html
    assert "<li>b: odd</li>" in html
    assert "<li>c: gone</li>" in html
    assert "No case was rejected" in rejects_section({}, [], [])
