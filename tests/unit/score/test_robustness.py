"""Dice lost by degradation: paired by case, hand-computed, and the table for the console."""

import pandas as pd
import pytest

from brats.score.robustness import INTACT, ROBUSTNESS, compare_robustness, format_robustness


def scores(region: str = "WT", **dice: float | None) -> pd.DataFrame:
    """Rows of one region, by case; `b2` is a second case of the patient B."""
    patients = {"a": "A", "b": "B", "b2": "B", "c": "C"}
    rows = [{"case_id": name, "patient_id": patients[name], "region": region, "dice": dice[name]} for name in dice]
    return pd.DataFrame(rows).astype({"dice": float})


def rows_of(degraded: pd.DataFrame, intact: pd.DataFrame) -> list[dict[str, object]]:
    """The rows of WT: those of the intact cases, then those of the degraded."""
    table = compare_robustness({"noise-mild": degraded, INTACT: intact})
    assert table.schema.equals(ROBUSTNESS.schema)
    return [row for row in table.to_pylist() if row["region"] == "WT"]


def test_what_is_lost_is_the_mean_over_cases_and_the_worst_is_named() -> None:
    intact, noisy = rows_of(scores(a=0.5, b=0.7, b2=0.4), scores(a=0.8, b=0.9, b2=0.8))
    assert (intact["degradation"], intact["n"], intact["dice"]) == (INTACT, 3, pytest.approx(2.5 / 3))
    assert (intact["dice_lost"], intact["ci95_low"], intact["worst_case_id"]) == (None, None, None)
    assert (noisy["degradation"], noisy["n"]) == ("noise-mild", 3)
    assert (noisy["dice"], noisy["dice_intact"]) == (pytest.approx(1.6 / 3), pytest.approx(2.5 / 3))
    assert noisy["dice_lost"] == pytest.approx((0.3 + 0.2 + 0.4) / 3)
    assert (noisy["worst_patient_id"], noisy["worst_case_id"]) == ("B", "b2")
    assert noisy["worst_dice_lost"] == pytest.approx(0.4)


def test_the_interval_resamples_patients() -> None:
    """A lost .3, and the two cases of B .3 in the mean: so every resample of patients did, of cases not."""
    _, noisy = rows_of(scores(a=0.5, b=0.7, b2=0.3), scores(a=0.8, b=0.9, b2=0.7))
    assert (noisy["ci95_low"], noisy["ci95_high"]) == (pytest.approx(0.3), pytest.approx(0.3))
    _, alone = rows_of(scores(b=0.7, b2=0.3), scores(b=0.9, b2=0.7))
    assert (alone["dice_lost"], alone["ci95_low"], alone["ci95_high"]) == (pytest.approx(0.3), None, None)


def test_only_cases_with_both_scores_count() -> None:
    intact, noisy = rows_of(scores(a=0.5, b=None, c=0.1), scores(a=0.8, b=0.9, b2=0.7))
    assert (intact["n"], intact["dice"]) == (3, pytest.approx(0.8))
    assert (noisy["n"], noisy["dice"], noisy["dice_intact"]) == (1, 0.5, 0.8)


def test_a_region_without_scores_is_null() -> None:
    table = compare_robustness({INTACT: scores(a=0.8), "blur-mild": scores(a=0.5)})
    ((n, dice, lost),) = {
        (row["n"], row["dice"], row["dice_lost"]) for row in table.to_pylist() if row["region"] != "WT"
    }
    assert (n, dice, lost) == (0, None, None)


def test_the_console_shows_a_line_for_each_degradation_and_region_with_scores() -> None:
    table = compare_robustness(
        {INTACT: scores(a=0.8, b=0.9), "missing-t1ce": scores(a=0.5, b=0.95), "blur-mild": scores(a=0.5)}
    )
    assert format_robustness(table).splitlines() == [
        "degradation           region     n    Dice   lost [95 % interval]         worst: case, lost",
        "intact                WT         2   0.850",
        "missing-t1ce          WT         2   0.725   0.125 [-0.050, 0.300]      a 0.300",
        "blur-mild             WT         1   0.500   0.300 [-, -]               a 0.300",
        "means over cases; lost: Dice intact minus Dice degraded, below 0 where it gained; intervals by patient",
    ]
