"""The figures of QU-BraTS 2020 and the calibration error: by hand, and as plain voxel arrays give them."""

import numpy as np
import numpy.typing as npt
import pytest

from brats.data.segmented_case import N_LABELS, N_LEVELS, Counts, LevelCounts, SegmentedCase
from brats.labels import ED, ET, NCR, REGIONS, Labels, region_mask
from brats.score.uncertainty import (
    ENTROPY_BITS,
    TAU,
    Uncertainty,
    area,
    calibration_error,
    curve_rows,
    curves,
    merge_labels,
    region_uncertainties,
    uncertainty_row,
)
from tests.support.uncertainty import constant_uncertainty

Floats = npt.NDArray[np.float64]


def levels_of(*voxels: tuple[bool, bool, bool, int, int]) -> Counts:
    """Counts from (brain, in the reference, predicted, level, number)."""
    levels = np.zeros((2, 2, 2, N_LEVELS), np.int64)
    for brain, reference, predicted, level, n in voxels:
        levels[int(brain), int(reference), int(predicted), level] += n
    return levels


def test_entropy_is_nothing_where_sure_and_a_bit_where_it_may_be_either() -> None:
    assert (ENTROPY_BITS[0], ENTROPY_BITS[255]) == (0, 0)
    assert ENTROPY_BITS[127] == pytest.approx(1, abs=1e-4)
    assert ENTROPY_BITS[51] == pytest.approx(0.721928, abs=1e-6)  # of .2
    np.testing.assert_allclose(ENTROPY_BITS, ENTROPY_BITS[::-1], atol=1e-12)


def test_there_are_forty_steps_from_0_to_100() -> None:
    assert (len(TAU), TAU[0], TAU[1], TAU[-1]) == (41, 0, 2.5, 100)


def test_curves_are_those_computed_by_hand() -> None:
    # Six sure true positives, two sure true negatives, and at .2 (uncertainty 72.2) two true positives, one false
    # positive, and six true negatives.
    levels = levels_of(
        (True, True, True, 255, 6),
        (True, False, False, 0, 2),
        (True, True, True, 51, 2),
        (True, False, True, 51, 1),
        (True, False, False, 51, 6),
    )
    found = curves(levels)
    aside = TAU < 72.19
    np.testing.assert_allclose(found.dice, np.where(aside, 1, 16 / 17))
    np.testing.assert_allclose(found.ftp, np.where(aside, 2 / 8, 0))
    np.testing.assert_allclose(found.ftn, np.where(aside, 6 / 8, 0))


def test_an_area_is_a_share_of_the_width() -> None:
    assert area(np.ones(41)) == pytest.approx(1)
    assert area(TAU / 100) == pytest.approx(0.5)
    step = np.where(TAU <= 50, 1.0, 0.0)
    assert area(step) == pytest.approx(0.5 + 0.0125)  # the trapezoid from 50 to 52.5 is half full


def test_a_sure_and_right_prediction_scores_1() -> None:
    levels = levels_of((True, True, True, 255, 6), (True, False, False, 0, 9))
    row = uncertainty_row(Uncertainty(levels=levels, by_slice=levels.sum(axis=(0, 1)), is_scored=True))
    assert (row["dice_auc"], row["ftp_auc"], row["ftn_auc"], row["score"], row["ece"]) == (1, 0, 0, 1, 0)
    assert (row["n_predicted_voxels"], row["entropy_bits"], row["entropy_per_voxel"]) == (6, 0, 0)


def test_where_reference_and_prediction_are_empty_dice_is_1_and_no_true_positives_are_set_aside() -> None:
    levels = levels_of((True, False, False, 3, 50))
    found = curves(levels)
    assert (found.dice == 1).all()
    assert (found.ftp == 0).all()
    row = uncertainty_row(Uncertainty(levels=levels, by_slice=levels.sum(axis=(0, 1)), is_scored=True))
    assert row["entropy_per_voxel"] is None
    assert row["entropy_bits"] == pytest.approx(50 * ENTROPY_BITS[3])


def test_voxels_outside_the_brain_count_for_the_dice_alone() -> None:
    inside = [(True, True, True, 255, 6), (True, False, False, 51, 4)]
    outside = [(False, True, True, 51, 3), (False, False, False, 51, 100), (False, False, True, 51, 3)]
    found = curves(levels_of(*inside, *outside))
    expected = curves(levels_of(*inside))
    np.testing.assert_array_equal(found.ftp, expected.ftp)
    np.testing.assert_array_equal(found.ftn, expected.ftn)
    assert found.dice[-1] == 18 / 21
    assert calibration_error(levels_of(*inside, *outside)) == calibration_error(levels_of(*inside))


def test_calibration_error_is_that_computed_by_hand() -> None:
    # Ten voxels of 51/255 = .2, of which 5 are in the reference: off by .3; ten of 1, all in it: not off.
    levels = levels_of((True, True, False, 51, 5), (True, False, False, 51, 5), (True, True, True, 255, 10))
    assert calibration_error(levels) == pytest.approx(0.15)
    assert calibration_error(np.zeros((2, 2, 2, N_LEVELS), np.int64)) is None


def test_calibration_bins_hold_17_levels_each() -> None:
    # Levels 0 and 16 share a bin, where their errors of opposite sign cancel out; 17 is in the next.
    together = levels_of((True, False, False, 16, 17), (True, True, False, 0, 1), (True, False, False, 0, 254))
    assert calibration_error(together) == pytest.approx(abs(17 * 16 / 255 - 1) / 272)
    apart = levels_of((True, False, False, 17, 15), (True, True, False, 0, 1), (True, False, False, 0, 254))
    assert calibration_error(apart) == pytest.approx((15 * 17 / 255 + 1) / 270)


def test_a_case_without_reference_has_its_entropy_alone() -> None:
    levels = levels_of((True, False, True, 51, 10))
    found = Uncertainty(levels=levels, by_slice=levels.sum(axis=(0, 1)), is_scored=False)
    row = uncertainty_row(found)
    assert row["entropy_per_voxel"] == pytest.approx(0.721928, abs=1e-6)
    assert [row[name] for name in ("dice_auc", "ftp_auc", "ftn_auc", "score", "ece")] == [None] * 5
    assert curve_rows(found) == []


def test_entropy_of_slices_adds_up_to_that_of_the_case() -> None:
    found = constant_uncertainty(n_slices=3, level=51)
    np.testing.assert_allclose(found.slice_entropy_bits, [7.21928] * 3, atol=1e-5)
    assert uncertainty_row(found)["entropy_bits"] == pytest.approx(21.65784, abs=1e-5)


# As the program of QU-BraTS works: on voxels, with masks, threshold by threshold.


def plain_curves(
    reference: Floats, predicted: Floats, uncertainty: Floats, brain: Floats
) -> tuple[list[float], list[float], list[float]]:
    dice, ftp, ftn = [], [], []
    for tau in np.arange(0, 100.1, 2.5):
        keep = (uncertainty <= tau).astype(float)
        both = (reference * predicted * keep).sum()
        total = ((reference + predicted) * keep).sum()
        dice.append(2 * both / total if total else 1.0)
        tp, tn = reference * predicted * brain, (1 - reference) * (1 - predicted) * brain
        ftp.append((tp.sum() - (tp * keep).sum()) / (tp.sum() + 1e-9))
        ftn.append((tn.sum() - (tn * keep).sum()) / (tn.sum() + 1e-9))
    return dice, ftp, ftn


def random_case(seed: int) -> tuple[Labels, Labels, npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Reference, prediction, levels of each region and brain of 4 x 9 x 8 voxels."""
    random = np.random.default_rng(seed)
    reference, predicted = random.choice([0, NCR, ED, ET], (2, 4, 9, 8), p=[0.6, 0.1, 0.2, 0.1]).astype(np.uint8)
    levels = random.integers(0, N_LEVELS, (4, 3, 9, 8)).astype(np.uint8)
    return reference, predicted, levels, random.random((4, 9, 8)) < 0.7


def counted(seed: int) -> SegmentedCase:
    reference, predicted, levels, brain = random_case(seed)
    by_labels = np.zeros((3, 2, N_LABELS, N_LABELS, N_LEVELS), np.int64)
    by_slice = np.zeros((3, 4, N_LEVELS), np.int64)
    for region in range(3):
        place = (brain.astype(int), reference, predicted, levels[:, region])
        np.add.at(by_labels[region], place, 1)
        for number in range(4):
            by_slice[region, number] = np.bincount(levels[number, region].ravel(), minlength=N_LEVELS)
    counts = LevelCounts(by_labels=by_labels, by_slice=by_slice)
    return SegmentedCase(labels=predicted, regions=tuple(REGIONS), counts=counts)


@pytest.mark.parametrize("seed", [0, 1])
def test_curves_are_those_of_plain_voxel_arrays(seed: int) -> None:
    reference, predicted, levels, brain = random_case(seed)
    for number, (region, found) in enumerate(region_uncertainties(counted(seed), is_scored=True).items()):
        probability = levels[:, number] / 255
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -probability * np.log2(probability) - (1 - probability) * np.log2(1 - probability)
        dice, ftp, ftn = plain_curves(
            region_mask(reference, region).astype(float),
            region_mask(predicted, region).astype(float),
            100 * np.nan_to_num(entropy),
            brain.astype(float),
        )
        rows = curve_rows(found)
        assert [row["threshold"] for row in rows] == pytest.approx(np.arange(0, 100.1, 2.5).tolist())
        for name, expected in (("dice", dice), ("ftp", ftp), ("ftn", ftn)):
            assert [row[name] for row in rows] == pytest.approx(expected, abs=1e-8), (region, name)
        assert uncertainty_row(found)["score"] == pytest.approx(
            (np.trapezoid(dice) + (40 - np.trapezoid(ftp)) + (40 - np.trapezoid(ftn))) / 120, abs=1e-9
        )


def test_labels_are_merged_into_the_membership_of_a_region() -> None:
    by_labels = np.zeros((2, N_LABELS, N_LABELS, N_LEVELS), np.int64)
    by_labels[1, ED, ET, 7], by_labels[1, NCR, NCR, 7], by_labels[0, 0, ED, 7] = 5, 3, 2
    assert merge_labels(by_labels, "WT")[..., 7].tolist() == [[[0, 2], [0, 0]], [[0, 0], [0, 8]]]
    assert merge_labels(by_labels, "TC")[..., 7].tolist() == [[[2, 0], [0, 0]], [[0, 5], [0, 3]]]
    assert merge_labels(by_labels, "ET")[..., 7].tolist() == [[[2, 0], [0, 0]], [[3, 5], [0, 0]]]
