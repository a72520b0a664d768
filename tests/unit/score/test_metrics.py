"""Scores: hand-computed values, the four empty-mask cases, the notebooks' formulas, and parity with MONAI."""

from glob import glob
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from brats.data.codings import BRATS_2018
from brats.labels import ED, ET, NCR, REGIONS, Labels, region_mask
from brats.score.metrics import (
    METRICS,
    case_metrics,
    count_overlap,
    notebook_metrics,
    slice_metrics,
)

UNIT = (1.0, 1.0, 1.0)

# Two slices of three by two voxels. WT: 4 in both, 1 missed, 1 too many; TC: 2, 1, 1; ET: 1, 0, 1.
REFERENCE = np.array([[[NCR, ET], [ED, ED], [0, 0]], [[NCR, 0], [0, 0], [0, 0]]], np.uint8)
PREDICTED = np.array([[[ET, ET], [ED, ED], [NCR, 0]], [[0, 0], [0, 0], [0, 0]]], np.uint8)


def random_labels(seed: int, shape: tuple[int, int, int] = (6, 7, 8)) -> Labels:
    return np.random.default_rng(seed).integers(0, 4, shape, np.uint8)


def scores(reference_et: bool, predicted_et: bool) -> dict[str, Any]:
    """ET of a case with 4 x 5 x 5 voxels, 2 of them ET in a mask that is not empty, the same two in both."""
    reference, predicted = np.zeros((4, 5, 5), np.uint8), np.zeros((4, 5, 5), np.uint8)
    reference[1, 1:3, 1] = ET if reference_et else ED
    predicted[1, 1:3, 1] = ET if predicted_et else ED
    return case_metrics(count_overlap(reference, predicted, UNIT))["ET"]


def test_scores_of_a_case_are_those_computed_by_hand() -> None:
    metrics = case_metrics(count_overlap(REFERENCE, PREDICTED, (2.0, 3.0, 5.0)))
    assert list(metrics) == list(REGIONS)
    wt, tc, et = metrics["WT"], metrics["TC"], metrics["ET"]
    assert wt["dice"] == pytest.approx(8 / 10)
    assert wt["iou"] == pytest.approx(4 / 6)
    assert wt["sensitivity"] == pytest.approx(4 / 5)
    assert wt["precision"] == pytest.approx(4 / 5)
    assert wt["specificity"] == pytest.approx(6 / 7)
    assert wt["accuracy"] == pytest.approx(10 / 12)
    assert (wt["n_reference_voxels"], wt["n_predicted_voxels"]) == (5, 5)
    assert (wt["reference_ml"], wt["predicted_ml"]) == pytest.approx((0.15, 0.15))
    assert tc["dice"] == pytest.approx(4 / 6)
    assert tc["specificity"] == pytest.approx(8 / 9)
    assert et["dice"] == pytest.approx(2 / 3)
    assert et["sensitivity"] == 1
    assert (wt["relative_volume_difference"], tc["relative_volume_difference"]) == (0, 0)
    assert et["relative_volume_difference"] == 1  # 2 voxels for 1
    assert et["precision"] == pytest.approx(1 / 2)


def test_every_metric_of_the_list_is_scored_in_its_order() -> None:
    for found in case_metrics(count_overlap(REFERENCE, PREDICTED, UNIT)).values():
        assert list(found)[: len(METRICS)] == [metric.name for metric in METRICS]


def test_both_masks_empty_is_a_perfect_score_and_no_ratio() -> None:
    assert scores(reference_et=False, predicted_et=False) == {
        "dice": 1,
        "hd95_mm": 0,
        "iou": 1,
        "sensitivity": None,
        "specificity": 1,
        "precision": None,
        "accuracy": 1,
        "nsd_at_half_mm": 1,
        "nsd_at_1_mm": 1,
        "assd_mm": 0,
        "relative_volume_difference": None,
        "reference_ml": 0,
        "predicted_ml": 0,
        "n_reference_voxels": 0,
        "n_predicted_voxels": 0,
    }


def test_a_region_missed_altogether_scores_nothing() -> None:
    assert scores(reference_et=True, predicted_et=False) == {
        "dice": 0,
        "hd95_mm": 373.13,
        "iou": 0,
        "sensitivity": 0,
        "specificity": 1,
        "precision": None,
        "accuracy": 0.98,
        "nsd_at_half_mm": 0,
        "nsd_at_1_mm": 0,
        "assd_mm": 373.13,
        "relative_volume_difference": -1,
        "reference_ml": 0.002,
        "predicted_ml": 0,
        "n_reference_voxels": 2,
        "n_predicted_voxels": 0,
    }


def test_a_region_made_up_scores_nothing() -> None:
    assert scores(reference_et=False, predicted_et=True) == {
        "dice": 0,
        "hd95_mm": 373.13,
        "iou": 0,
        "sensitivity": None,
        "specificity": 0.98,
        "precision": 0,
        "accuracy": 0.98,
        "nsd_at_half_mm": 0,
        "nsd_at_1_mm": 0,
        "assd_mm": 373.13,
        "relative_volume_difference": None,
        "reference_ml": 0,
        "predicted_ml": 0.002,
        "n_reference_voxels": 0,
        "n_predicted_voxels": 2,
    }


def test_a_region_found_exactly_is_a_perfect_score() -> None:
    assert scores(reference_et=True, predicted_et=True) == {
        "dice": 1,
        "hd95_mm": 0,
        "iou": 1,
        "sensitivity": 1,
        "specificity": 1,
        "precision": 1,
        "accuracy": 1,
        "nsd_at_half_mm": 1,
        "nsd_at_1_mm": 1,
        "assd_mm": 0,
        "relative_volume_difference": 0,
        "reference_ml": 0.002,
        "predicted_ml": 0.002,
        "n_reference_voxels": 2,
        "n_predicted_voxels": 2,
    }


def test_specificity_is_undefined_where_the_reference_fills_the_volume() -> None:
    full = np.full((3, 3, 3), ET, np.uint8)
    assert case_metrics(count_overlap(full, full, UNIT))["ET"]["specificity"] is None


def test_label_maps_without_any_tumour_score_perfectly() -> None:
    nothing = np.zeros((3, 4, 5), np.uint8)
    for metrics in case_metrics(count_overlap(nothing, nothing, UNIT)).values():
        assert (metrics["dice"], metrics["hd95_mm"], metrics["accuracy"]) == (1, 0, 1)


def test_a_crop_scores_as_the_full_volume_it_was_cut_from() -> None:
    reference, predicted = random_labels(0), random_labels(1)
    full_reference, full_predicted = np.pad(reference, 3), np.pad(predicted, 3)
    n_outside = full_reference.size - reference.size
    whole = count_overlap(full_reference, full_predicted, (1.0, 1.5, 3.0))
    crop = count_overlap(reference, predicted, (1.0, 1.5, 3.0), n_outside)
    assert case_metrics(crop) == case_metrics(whole)
    assert notebook_metrics(crop) == notebook_metrics(whole)


def test_the_order_of_the_axes_does_not_change_a_case() -> None:
    reference, predicted = random_labels(0), random_labels(1)
    turned = case_metrics(
        count_overlap(reference.transpose(2, 0, 1), predicted.transpose(2, 0, 1), (3.0, 1.0, 1.5))
    )
    expected = case_metrics(count_overlap(reference, predicted, (1.0, 1.5, 3.0)))
    for region in REGIONS:
        assert turned[region] == pytest.approx(expected[region])


def test_regions_that_are_not_predicted_have_the_sizes_of_the_reference_and_nothing_else() -> None:
    overlap = count_overlap(REFERENCE, PREDICTED, (2.0, 3.0, 5.0))
    whole, alone = case_metrics(overlap), case_metrics(overlap, ["WT"])
    assert alone["WT"] == whole["WT"]
    for region in ("TC", "ET"):
        known = {name: alone[region].pop(name) for name in ("reference_ml", "n_reference_voxels")}
        assert known == {name: whole[region].pop(name) for name in known}
        assert alone[region] == dict.fromkeys(whole[region])


def test_slices_of_regions_that_are_not_predicted_have_the_voxels_of_the_reference_and_nothing_else() -> None:
    overlap = count_overlap(REFERENCE, PREDICTED, UNIT)
    for whole, alone in zip(slice_metrics(overlap), slice_metrics(overlap, ["WT"]), strict=True):
        lacks = {} if whole["region"] == "WT" else {"dice": None, "n_predicted_voxels": None}
        assert alone == {**whole, **lacks}


def test_notebook_metrics_of_the_whole_tumour_alone_have_two_labels() -> None:
    reference, predicted = np.array([[[0, NCR, ED, 0, 0]]], np.uint8), np.array([[[0, ED, 0, ED, 0]]], np.uint8)
    rows = notebook_metrics(count_overlap(reference, predicted, UNIT), ["WT"])
    found = {row["metric"]: row["value"] for row in rows}
    assert {row["averaging"] for row in rows} == {"micro over 2 labels", "macro over 2 labels"}
    assert found["accuracy"] == found["precision"] == found["sensitivity"] == found["specificity"] == 3 / 5
    assert found["dice"] == pytest.approx(((2 * 2 + 1) / (3 + 3 + 1) + (2 * 1 + 1) / (2 + 2 + 1)) / 2)


def test_label_maps_of_different_shapes_are_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 4\), prediction \(2, 3, 1\)"):
        count_overlap(np.zeros((2, 3, 4), np.uint8), np.zeros((2, 3, 1), np.uint8), UNIT)


def test_label_pairs_are_counted_slice_by_slice() -> None:
    counts = count_overlap(REFERENCE, PREDICTED, UNIT).slice_counts
    assert counts[0].tolist() == [[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 2, 0], [0, 0, 0, 1]]
    assert counts[1].tolist() == [[5, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_slices_are_scored_one_by_one_and_empty_ones_perfectly() -> None:
    rows = slice_metrics(count_overlap(REFERENCE, PREDICTED, UNIT))
    assert [(row["slice_index"], row["region"]) for row in rows] == [
        (0, "WT"),
        (0, "TC"),
        (0, "ET"),
        (1, "WT"),
        (1, "TC"),
        (1, "ET"),
    ]
    assert [row["dice"] for row in rows] == pytest.approx([8 / 9, 4 / 5, 2 / 3, 0, 0, 1])
    assert [row["n_reference_voxels"] for row in rows] == [4, 2, 1, 1, 1, 0]
    assert [row["n_predicted_voxels"] for row in rows] == [5, 3, 2, 0, 0, 0]


def notebook_values(reference: Labels, predicted: Labels) -> dict[str, float]:
    return {row["metric"]: row["value"] for row in notebook_metrics(count_overlap(reference, predicted, UNIT))}


def keras_notebook_scores(reference: Labels, predicted: Labels) -> dict[str, float]:
    """The definitions of the Keras notebook, on one-hot channels in its last axis."""
    true, found = np.eye(4)[reference], np.eye(4)[predicted]

    def dice(channel: int) -> float:
        shared: float = (true[..., channel] * found[..., channel]).sum()
        return float((2 * shared + 1) / (true[..., channel].sum() + found[..., channel].sum() + 1))

    return {
        "accuracy": float(np.mean(true.argmax(-1) == found.argmax(-1))),
        "dice": sum(dice(channel) for channel in range(4)) / 4,
        "precision": float((true * found).sum() / found.sum()),
        "sensitivity": float((true * found).sum() / true.sum()),
        "specificity": float(((1 - true) * (1 - found)).sum() / (1 - true).sum()),
    }


def test_notebook_scores_are_those_of_the_keras_definitions() -> None:
    reference, predicted = random_labels(2), np.where(random_labels(3) == 0, random_labels(2), random_labels(4))
    assert notebook_values(reference, predicted) == pytest.approx(keras_notebook_scores(reference, predicted))


def test_notebook_scores_of_a_mask_that_is_all_background_look_good() -> None:
    reference = np.zeros((10, 10, 10), np.uint8)
    reference[0, :3, :4] = [[NCR, ED, ED, ET]] * 3
    values = notebook_values(reference, np.zeros_like(reference))
    assert values["accuracy"] == values["precision"] == values["sensitivity"] == pytest.approx(0.988)
    assert values["specificity"] == pytest.approx(0.996)
    assert values["dice"] == pytest.approx((1977 / 1989 + 1 / 4 + 1 / 7 + 1 / 4) / 4)


def monai_scores(metric: str, reference: Labels, predicted: Labels) -> list[float]:
    import torch
    from monai.metrics.meandice import DiceMetric
    from monai.metrics.meaniou import MeanIoU

    score = {"dice": DiceMetric, "iou": MeanIoU}[metric](include_background=True, ignore_empty=False)
    masks = [
        torch.from_numpy(np.stack([region_mask(labels, region) for region in REGIONS]))[None].float()
        for labels in (predicted, reference)
    ]
    return [float(value) for value in score(*masks)[0]]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch deprecates what MONAI imports
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_dice_and_iou_equal_monais_which_agrees_on_empty_masks(metric: str) -> None:
    without_et = np.where(random_labels(5) == ET, np.uint8(ED), random_labels(5))
    pairs = [
        (random_labels(6), random_labels(7)),
        (without_et, random_labels(7)),
        (random_labels(6), without_et),
        (without_et, without_et),
    ]
    for reference, predicted in pairs:
        ours = [found[metric] for found in case_metrics(count_overlap(reference, predicted, UNIT)).values()]
        assert ours == pytest.approx(monai_scores(metric, reference, predicted), rel=1e-6)


def real_labels(real_data_dir: str) -> dict[str, Labels]:
    paths = sorted(glob(f"{real_data_dir}/**/*_seg.nii*", recursive=True))
    return {path: BRATS_2018.decode(np.asarray(nib.Nifti1Image.from_filename(path).dataobj)) for path in paths}


@pytest.mark.real
def test_a_real_reference_scored_against_itself_is_perfect_its_empty_regions_included(real_data_dir: str) -> None:
    cases = real_labels(real_data_dir)
    assert any(not (labels == ET).any() for labels in cases.values())
    for path, labels in cases.items():
        for region, metrics in case_metrics(count_overlap(labels, labels.copy(), UNIT)).items():
            found = metrics["n_reference_voxels"] > 0
            ratio = 1 if found else None
            assert (metrics["dice"], metrics["iou"], metrics["hd95_mm"]) == (1, 1, 0), (path, region)
            assert (metrics["sensitivity"], metrics["precision"]) == (ratio, ratio), (path, region)
            assert (metrics["specificity"], metrics["accuracy"]) == (1, 1), (path, region)


@pytest.mark.real
def test_notebook_scores_of_predicting_nothing_on_real_cases_are_near_one(real_data_dir: str) -> None:
    values = [notebook_values(labels, np.zeros_like(labels)) for labels in real_labels(real_data_dir).values()]
    for metric in ("accuracy", "precision", "sensitivity"):
        assert np.mean([value[metric] for value in values]) > 0.97
    assert np.mean([value["specificity"] for value in values]) > 0.99
