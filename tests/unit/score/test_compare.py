"""The table of a comparison: statistics of each preset and seed, tests against the reference, and costs."""

import dataclasses
from typing import Any

import pyarrow as pa
import pytest

from brats.labels import REGIONS
from brats.score.compare import COMPARISON, TESTED, background_scores, compare_runs, paired, shared_cases, unscored
from brats.score.metrics import METRICS
from tests.support.comparison import COST, dice_of, scored_run

OURS, BETTER, BINARY = (
    scored_run("brats", dice_of(0.5, 0.01)),
    scored_run("better", dice_of(0.6, 0.02), hd95_mm=3.0),
    scored_run("binary", dice_of(0.4, 0.01), regions=("WT",)),
)


def found(
    table: pa.Table, preset: str, region: str, metric: str = "dice", seed: int | None = None
) -> dict[str, Any]:
    (row,) = (
        row
        for row in table.to_pylist()
        if (row["preset"], row["region"], row["metric"], row["seed"]) == (preset, region, metric, seed)
    )
    return dict(row)


def test_every_preset_and_seed_has_a_row_for_each_region_and_metric() -> None:
    table = compare_runs([OURS, dataclasses.replace(OURS, seed=1), BETTER], "brats")
    n_scores = len(REGIONS) * len(METRICS) + 2  # two notebook metrics
    assert table.num_rows == n_scores * 5  # two seeds of one and one of the other, and the mean of each
    assert table.schema.names == COMPARISON.schema.names


def test_means_and_paired_differences_are_those_computed_by_hand() -> None:
    row = found(compare_runs([OURS, BETTER], "brats"), "better", "TC")
    assert row["mean"] == pytest.approx(0.67)
    assert row["difference"] == pytest.approx(0.67 - 0.535)
    assert (row["n"], row["n_pairs"], row["wins"], row["losses"]) == (8, 8, 8, 0)
    assert row["reference"] == "brats"
    assert row["p_wilcoxon"] == pytest.approx(2 / 2**8)


def test_p_is_corrected_for_the_presets_that_are_tested() -> None:
    table = compare_runs([OURS, BETTER, BINARY], "brats")
    assert found(table, "better", "WT")["p_holm"] == pytest.approx(2 * 2 / 2**8)
    assert found(table, "better", "TC")["p_holm"] == pytest.approx(2 / 2**8)  # the binary one has no TC


def test_the_reference_is_tested_against_nothing() -> None:
    row = found(compare_runs([OURS, BETTER], "brats"), "brats", "WT")
    assert (row["reference"], row["n_pairs"], row["p_wilcoxon"], row["why_no_p"]) == (None, None, None, None)


def test_a_region_that_a_preset_cannot_tell_is_null_and_says_why() -> None:
    row = found(compare_runs([OURS, BINARY], "brats"), "binary", "ET")
    assert (row["n"], row["mean"], row["difference"], row["p_holm"]) == (0, None, None, None)
    assert (row["n_pairs"], row["why_no_p"]) == (0, "no patient has both")


def test_a_smaller_hd95_is_a_win() -> None:
    row = found(compare_runs([OURS, BETTER], "brats"), "better", "WT", "hd95_mm")
    assert (row["difference"], row["wins"], row["losses"]) == (-1.0, 8, 0)


def test_only_dice_and_hd95_are_tested() -> None:
    rows = compare_runs([OURS, BETTER], "brats").to_pylist()
    assert {row["metric"] for row in rows if row["reference"]} == set(TESTED)


def test_seeds_are_averaged_case_by_case_before_they_are_tested() -> None:
    second = scored_run("better", dice_of(0.4, 0.02), seed=1)
    table = compare_runs([OURS, BETTER, second], "brats")
    assert found(table, "better", "WT", seed=1)["mean"] == pytest.approx(0.47)
    both = found(table, "better", "WT")
    assert both["mean"] == pytest.approx(0.57)
    assert (both["n"], both["n_pairs"]) == (8, 8)  # not 16: a second seed is no second patient
    assert both["difference"] == pytest.approx(0.57 - 0.535)
    assert found(table, "better", "WT", seed=1)["reference"] is None


def test_visits_of_a_patient_count_as_one_pair() -> None:
    cases = OURS.cases.assign(patient_id="patient a")
    other = dataclasses.replace(OURS, cases=cases, preset="other")
    assert paired([other], [dataclasses.replace(OURS, cases=cases)], "WT", "dice").n_pairs == 1


def test_cases_that_one_preset_lacks_count_for_none() -> None:
    fewer = scored_run("fewer", dice_of(0.6, 0.0, n=3))
    table = compare_runs([OURS, BETTER, fewer], "brats")
    assert (found(table, "fewer", "WT")["n_pairs"], found(table, "better", "WT")["n_pairs"]) == (3, 3)
    row = found(table, "brats", "WT")
    assert (row["n"], row["mean"]) == (3, pytest.approx(0.51))
    assert (row["ci95_low"], row["ci95_high"]) == (pytest.approx(0.50), pytest.approx(0.52))
    assert found(table, "brats", "all labels", "accuracy")["n"] == 3


def test_cases_without_scores_are_named_by_run() -> None:
    fewer = scored_run("fewer", dice_of(0.6, 0.0, n=6), seed=1)
    assert shared_cases([OURS, fewer]) == {*"abcdef"}
    assert unscored([OURS, fewer], [*"abcdefgh"]) == {"fewer, seed 1": ["g", "h"]}


def test_nothing_is_tested_without_the_reference() -> None:
    rows = compare_runs([BETTER, BINARY], "brats").to_pylist()
    assert {row["preset"] for row in rows} == {"better", "binary"}
    assert {(row["reference"], row["n_pairs"], row["p_holm"]) for row in rows} == {(None, None, None)}


def test_notebook_metrics_stand_beside() -> None:
    row = found(compare_runs([OURS, BETTER], "brats"), "brats", "all labels", "accuracy")
    assert (row["convention"], row["mean"], row["n"]) == ("notebook", pytest.approx(0.98), 8)


def test_costs_are_of_each_run_and_over_seeds_their_mean_or_highest() -> None:
    cost = dataclasses.replace(COST, training_minutes=2.5, peak_memory_mb=4096.0)
    table = compare_runs([OURS, dataclasses.replace(OURS, seed=1, cost=cost), BETTER], "brats")
    assert found(table, "brats", "WT", seed=1)["training_minutes"] == 2.5
    both = found(table, "brats", "WT")
    assert (both["training_minutes"], both["peak_memory_mb"]) == (2.0, 4096.0)
    assert (both["n_parameters"], both["seconds_per_case"]) == (5_600_000, 0.25)


def test_a_mask_of_background_scores_what_is_computed_by_hand() -> None:
    case = {"shape": (10, 10, 10), "n_voxels_ncr": 10, "n_voxels_ed": 30, "n_voxels_et": 0}
    scores = background_scores([case])
    assert scores["accuracy"] == scores["precision"] == scores["sensitivity"] == pytest.approx(0.96)
    assert scores["specificity"] == pytest.approx(1 - 0.04 / 3)
    background, ncr, ed, et = (2 * 960 + 1) / (1000 + 960 + 1), 1 / 11, 1 / 31, 1
    assert scores["dice"] == pytest.approx((background + ncr + ed + et) / 4)


def test_a_mask_of_background_is_scored_over_two_labels_beside_a_model_of_the_whole_tumour() -> None:
    case = {"shape": (10, 10, 10), "n_voxels_ncr": 10, "n_voxels_ed": 30, "n_voxels_et": 0}
    scores = background_scores([case], regions=("WT",))
    assert scores["dice"] == pytest.approx(((2 * 960 + 1) / (1000 + 960 + 1) + 1 / 41) / 2)
    assert scores["specificity"] == pytest.approx(0.96)


def test_scores_of_background_are_means_over_cases() -> None:
    tissues = {"n_voxels_ncr": 0, "n_voxels_et": 0}
    cases = [{"shape": (10, 10, 1), "n_voxels_ed": n_voxels, **tissues} for n_voxels in (0, 50)]
    assert background_scores(cases)["accuracy"] == pytest.approx(0.75)
