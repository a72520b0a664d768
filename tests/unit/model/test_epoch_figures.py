"""Figures of an epoch, from sums counted by hand."""

import math

from brats.labels import REGIONS
from brats.model.epoch_figures import added, figures, from_values, to_values
from brats.model.sums import StepSums

FIRST = StepSums(loss_sum=1.5, n_slices=3, n_voxels=12, n_correct=10, overlap=(6, 3, 0), total=(12, 8, 0), n_bad=1)
SECOND = StepSums(loss_sum=0.5, n_slices=1, n_voxels=4, n_correct=2, overlap=(0, 1, 0), total=(4, 8, 0), n_bad=0)


def test_sums_travel_as_numbers_and_back() -> None:
    assert len(set(to_values(FIRST))) == 8
    assert from_values(to_values(FIRST)) == FIRST


def test_parts_of_an_epoch_are_added_and_divided_once() -> None:
    whole = added([FIRST, SECOND])
    assert (whole.n_slices, whole.n_bad, whole.overlap) == (4, 1, (6, 4, 0))
    assert figures(whole, REGIONS) == {
        "train_loss": 0.5,
        "train_dice": (0.75 + 0.5 + 1) / 3,
        "train_dice_wt": 0.75,
        "train_dice_tc": 0.5,
        "train_dice_et": 1.0,  # no voxel in either
        "train_accuracy": 0.75,
    }


def test_the_dice_of_a_region_that_is_not_predicted_is_null_and_not_in_the_mean() -> None:
    found = figures(added([FIRST, SECOND]), ["WT"])
    assert [found[f"train_dice{end}"] for end in ("", "_wt", "_tc", "_et")] == [0.75, 0.75, None, None]


def test_a_loss_that_is_no_number_stays_one() -> None:
    assert math.isnan(added([FIRST, from_values([math.nan, *to_values(SECOND)[1:]])]).loss_sum)
