"""Statistics over cases: hand-computed summaries, the bootstrap by patient, and the table for the console."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from brats.labels import REGIONS
from brats.score.lesion_tables import CONVENTIONS
from brats.score.metrics import METRICS
from brats.score.summary import (
    STATISTICS,
    TINY_WT_ML,
    bootstrap_mean_ci95,
    describe,
    format_summary,
    summarise,
)
from brats.score.tables import CASE_METRICS, NOTEBOOK
from brats.score.uncertainty_tables import UNCERTAINTY

NAMES = [metric.name for metric in METRICS]


def case_rows(
    case_id: str, *, dice: float, patient_id: str = "", wt_ml: float = 50, **et: Any
) -> list[dict[str, Any]]:
    """Rows of a case with the same scores for every region, but what `et` changes in the row of ET."""
    usual: dict[str, Any] = dict.fromkeys(NAMES, 0.5) | {"dice": dice, "hd95_mm": 2.0}
    counts = {"reference_ml": wt_ml, "predicted_ml": wt_ml, "n_reference_voxels": 9, "n_predicted_voxels": 9}
    names = {"case_id": case_id, "patient_id": patient_id or case_id, "split": "test"}
    rows = [{**names, "region": region, **usual, **counts} for region in REGIONS]
    rows[-1].update(et)
    return rows


def summary_of(*cases: list[dict[str, Any]]) -> pa.Table:
    rows = [row for case in cases for row in case]
    return summarise(CASE_METRICS.table(rows), NOTEBOOK.table([]), UNCERTAINTY.table([]))


def found(summary: pa.Table, region: str, subset: str, metric: str = "dice") -> dict[str, Any]:
    (row,) = (
        row
        for row in summary.to_pylist()
        if (row["region"], row["subset"], row["metric"]) == (region, subset, metric)
    )
    return dict(row)


def test_statistics_are_those_computed_by_hand() -> None:
    row = describe(np.array([0.2, 0.4, 0.9]), np.array(["a", "b", "c"]))
    assert (row["n"], row["mean"], row["median"]) == pytest.approx((3, 0.5, 0.4))
    assert row["std"] == pytest.approx(np.sqrt((0.09 + 0.01 + 0.16) / 2))
    assert (row["q25"], row["q75"]) == pytest.approx((0.3, 0.65))


def test_nulls_are_left_out_and_n_says_so() -> None:
    row = describe(np.array([np.nan, 0.25, 0.75]), np.array(["a", "b", "c"]))
    assert (row["n"], row["mean"]) == (2, 0.5)


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_statistics_of_nothing_are_null(values: list[float]) -> None:
    assert describe(np.array(values), np.array(["a"] * len(values))) == {"n": 0, **dict.fromkeys(STATISTICS)}


def test_one_value_has_no_spread_and_no_interval() -> None:
    row = describe(np.array([0.5]), np.array(["a"]))
    assert (row["mean"], row["std"], row["ci95_low"], row["ci95_high"]) == (0.5, None, None, None)


def test_visits_of_a_patient_are_resampled_together() -> None:
    values = np.repeat([0.0, 1.0], 10)
    # Two patients: a resample has twice the one, twice the other or both; its mean is 0, 1 or a half.
    assert bootstrap_mean_ci95(values, np.repeat(["a", "b"], 10)) == (0, 1)
    # Twenty patients: the mean of a resample is binomial, of standard deviation 0.11.
    low, high = bootstrap_mean_ci95(values, np.arange(20))
    assert low == pytest.approx(0.3, abs=0.051)
    assert high == pytest.approx(0.7, abs=0.051)


def test_one_patient_with_many_visits_has_no_interval() -> None:
    assert bootstrap_mean_ci95(np.array([0.1, 0.5, 0.9]), np.array(["a", "a", "a"])) == (None, None)


def test_a_resample_averages_cases_and_not_patients() -> None:
    # 100 patients with three visits that score 1, 100 with one that scores 0: a mean of patients were 1/2.
    values = np.array([1.0] * 300 + [0.0] * 100)
    patients = np.array([*np.repeat(np.arange(100), 3), *range(100, 200)])
    low, high = bootstrap_mean_ci95(values, patients)
    assert low is not None
    assert high is not None
    assert 0.65 < low < 0.75 < high < 0.85


def test_the_interval_of_many_patients_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(1).normal(0.8, 0.1, 400)
    low, high = bootstrap_mean_ci95(values, np.arange(400))
    half_width = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half_width, abs=0.1 * half_width)
    assert high == pytest.approx(values.mean() + half_width, abs=0.1 * half_width)


def test_the_interval_does_not_depend_on_the_order_of_the_rows() -> None:
    values, patients = np.array([0.1, 0.4, 0.6, 0.9, 0.7]), np.array(["a", "b", "b", "c", "d"])
    turned = bootstrap_mean_ci95(values[::-1], patients[::-1])
    assert turned == pytest.approx(bootstrap_mean_ci95(values, patients))


def test_a_region_is_summarised_over_all_cases_and_over_those_that_have_it() -> None:
    without_et = case_rows("b", dice=0.6, n_reference_voxels=0, sensitivity=None)
    without_et[-1]["dice"] = 0.0
    summary = summary_of(case_rows("a", dice=0.8), without_et)
    assert found(summary, "WT", "all")["mean"] == pytest.approx(0.7)
    assert (found(summary, "ET", "all")["n"], found(summary, "ET", "all")["mean"]) == (2, 0.4)
    assert (found(summary, "ET", "present")["n"], found(summary, "ET", "present")["mean"]) == (1, 0.8)
    assert found(summary, "ET", "all", "sensitivity")["n"] == 1


def test_tiny_tumours_are_summarised_apart_by_the_reference_volume_of_wt() -> None:
    summary = summary_of(
        case_rows("tiny", dice=0.3, wt_ml=0.9 * TINY_WT_ML),
        case_rows("at the limit", dice=0.7, wt_ml=TINY_WT_ML),
        case_rows("large", dice=0.9, reference_ml=0.1),
        case_rows("no tumour", dice=1.0, wt_ml=0),
    )
    for region in REGIONS:
        assert (found(summary, region, "tiny")["n"], found(summary, region, "tiny")["mean"]) == (1, 0.3)
        assert (found(summary, region, "not_tiny")["n"], found(summary, region, "not_tiny")["mean"]) == (2, 0.8)
        assert found(summary, region, "all")["n"] == 4


def test_every_metric_is_summarised_for_every_region_and_subset() -> None:
    rows = summary_of(case_rows("a", dice=0.8)).to_pylist()
    subsets = ("all", "present", "tiny", "not_tiny")
    metrics = {"brats": NAMES} | {each.name: [metric.name for metric in each.metrics] for each in CONVENTIONS}
    assert [(row["convention"], row["region"], row["subset"], row["metric"]) for row in rows] == [
        (convention, region, subset, name)
        for convention, names in metrics.items()
        for region in REGIONS
        for subset in subsets
        for name in names
    ]


def test_a_summary_resamples_patients() -> None:
    visits = [case_rows(f"a_{i}", dice=0.0, patient_id="a") for i in range(9)]
    visits += [case_rows(f"b_{i}", dice=1.0, patient_id="b") for i in range(9)]
    row = found(summary_of(*visits), "WT", "all")
    assert (row["n"], row["mean"], row["ci95_low"], row["ci95_high"]) == (18, 0.5, 0, 1)


def test_notebook_scores_are_summarised_under_their_own_convention() -> None:
    names = {"case_id": "a", "metric": "accuracy", "averaging": "micro over 4 labels"}
    notebook = NOTEBOOK.table([{**names, "value": 0.99}])
    summary = summarise(CASE_METRICS.table(case_rows("a", dice=0.8)), notebook, UNCERTAINTY.table([]))
    row = found(summary, "all labels", "all", "accuracy")
    assert (row["convention"], row["n"], row["mean"]) == ("notebook", 1, 0.99)
    others = {row["convention"] for row in summary.to_pylist() if row["region"] != "all labels"}
    assert others == {"brats", *(convention.name for convention in CONVENTIONS)}


def test_figures_of_uncertainty_are_summarised_by_region_under_their_own_convention() -> None:
    rows = [
        {"case_id": case_id, "patient_id": case_id, "region": "WT", "score": score, "ece": None}
        for case_id, score in (("a", 0.5), ("b", 0.75))
    ]
    cases = CASE_METRICS.table(case_rows("a", dice=0.8) + case_rows("b", dice=0.9))
    summary = summarise(cases, NOTEBOOK.table([]), UNCERTAINTY.table(rows))
    row = found(summary, "WT", "all", "score")
    assert (row["convention"], row["n"], row["mean"], row["ci95_low"]) == ("qu-brats", 2, 0.625, 0.5)
    assert found(summary, "WT", "all", "ece")["n"] == 0


def test_the_console_shows_regions_tiny_tumours_and_cases_with_et_in_aligned_lines() -> None:
    summary = summary_of(
        case_rows("a", dice=0.8),
        case_rows("b", dice=0.6, n_reference_voxels=0),
        case_rows("c", dice=0.1, wt_ml=0.5),
    )
    assert format_summary(summary).splitlines()[:-2] == [
        "cases        n   Dice mean [95 % interval]   median   HD95 mm   sensitivity   precision",
        "WT           3   0.500 [0.100, 0.800]         0.600       2.0         0.500       0.500",
        "TC           3   0.500 [0.100, 0.800]         0.600       2.0         0.500       0.500",
        "ET           3   0.500 [0.100, 0.800]         0.600       2.0         0.500       0.500",
        "ET present   2   0.450 [0.100, 0.800]         0.450       2.0         0.500       0.500",
        "WT tiny      1   0.100 [-, -]                 0.100       2.0         0.500       0.500",
    ]


BY_LESION = {"lesion_dice_2023": 0.5, "lesion_hd95_mm_2023": 374.0, "f1_2026": 2 / 3, "lesion_dice_2026": 0.99}


def test_the_console_states_its_convention_and_has_a_line_for_each_of_the_others() -> None:
    case = [{**row, **BY_LESION} for row in case_rows("a", dice=0.8)]
    lines = format_summary(summary_of(case, case_rows("scored before", dice=0.8))).splitlines()
    assert lines[-3:] == [
        "of the whole patient, as in BraTS 2018 to 2022; by other conventions:",
        "lesion-wise 2023  Dice WT 0.500 TC 0.500 ET 0.500   HD95 mm WT 374.0 TC 374.0 ET 374.0",
        "panoptic 2026     F1 WT 0.667 TC 0.667 ET 0.667   Dice of those found WT 0.990 TC 0.990 ET 0.990",
    ]
    assert max(map(len, lines)) <= 100


def test_the_console_has_no_line_for_a_convention_by_which_no_case_was_scored() -> None:
    lines = format_summary(summary_of(case_rows("a", dice=0.8))).splitlines()
    assert lines[-1] == "of the whole patient, as in BraTS 2018 to 2022"


def test_counts_of_lesions_are_summarised() -> None:
    cases = [[{**row, "n_false_2023": n} for row in case_rows(str(n), dice=0.8)] for n in (1, 4)]
    assert found(summary_of(*cases), "WT", "all", "n_false_2023")["mean"] == 2.5


def test_the_console_table_leaves_out_subsets_without_cases_and_fits_100_columns() -> None:
    text = format_summary(summary_of(case_rows("a", dice=0.8), case_rows("b", dice=1.0, hd95_mm=373.13)))
    assert "WT tiny" not in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_regions_that_a_model_does_not_predict_have_no_scores_and_the_console_says_so() -> None:
    nothing = {**dict.fromkeys(NAMES), "predicted_ml": None, "n_predicted_voxels": None}
    cases = [case_rows(name, dice=dice) for name, dice in (("a", 0.4), ("b", 0.8))]
    for _, tc, et in cases:
        tc.update(nothing)
        et.update(nothing)
    summary = summary_of(*cases)
    for region in ("TC", "ET"):
        for subset in ("all", "present"):
            row = found(summary, region, subset)
            assert (row["n"], row["mean"]) == (0, None)
    assert (found(summary, "WT", "all")["n"], found(summary, "WT", "all")["mean"]) == (2, pytest.approx(0.6))
    lines = format_summary(summary).splitlines()
    assert [line.split()[0] for line in lines] == ["cases", "WT", "TC", "means", "of"]
    assert lines[2] == "TC and ET: no scores, since this model does not predict them"
