"""Distances between outermost voxels: by hand, and as distance transforms give them."""

import numpy as np
import pytest
from scipy import ndimage

from brats.score.surface import Mask, Spacing
from brats.score.voxel_surface import compare_voxel_surfaces, outer_voxels
from tests.support.lesions import UNIT, cube, mask_of


def test_the_outermost_voxels_of_a_cube_are_all_but_its_centre() -> None:
    outer = outer_voxels(cube((5, 5, 5), 3))
    assert (outer.sum(), outer[6, 6, 6]) == (26, False)


def test_distances_of_single_voxels_are_those_of_their_centres() -> None:
    assert compare_voxel_surfaces(mask_of((2, 2, 2)), mask_of((5, 2, 2)), (2.0, 1.0, 1.0)) == (6, 0)


def test_hd95_lies_between_the_pooled_distances_by_a_straight_line() -> None:
    found = compare_voxel_surfaces(mask_of((2, 2, 2)), mask_of((2, 2, 2), (2, 2, 7)), UNIT)
    assert found.hd95_mm == pytest.approx(0.9 * 5)  # of 0, 0 and 5 mm at 1.9 of 2
    assert found.surface_dice == pytest.approx((1 + 0.5) / 2)


@pytest.mark.parametrize(("shift", "surface_dice"), [((1, 0, 0), 1), ((0, 0, 1), 0), ((1, 1, 0), 0)])
def test_the_surface_dice_takes_voxels_within_the_smallest_spacing(
    shift: tuple[int, int, int], surface_dice: float
) -> None:
    x, y, z = shift
    found = compare_voxel_surfaces(mask_of((5, 5, 5)), mask_of((5 + x, 5 + y, 5 + z)), (1.0, 1.0, 3.0))
    assert found.surface_dice == surface_dice


def by_distance_transforms(reference: Mask, predicted: Mask, spacing_mm: Spacing) -> tuple[float, float]:
    """The same from distance transforms of the whole volume."""
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (reference, predicted)]
    distances = [
        np.asarray(ndimage.distance_transform_edt(~other, sampling=spacing_mm))[surface]
        for surface, other in (surfaces, surfaces[::-1])
    ]
    shares = [float((each <= min(spacing_mm) + 1e-9).mean()) for each in distances]
    return float(np.percentile(np.concatenate(distances), 95)), sum(shares) / 2


@pytest.mark.parametrize("spacing_mm", [UNIT, (0.75, 1.25, 2.5), (3.0, 0.9, 0.9)])
@pytest.mark.parametrize("shift", [0, 2, 8])
def test_distances_near_and_far_are_those_of_distance_transforms(shift: int, spacing_mm: Spacing) -> None:
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(30, 24, 20)), 2)
    reference = smooth > 0.05
    predicted = np.roll(smooth, shift, axis=0) > 0.06
    found = compare_voxel_surfaces(reference, predicted, spacing_mm)
    assert found == pytest.approx(by_distance_transforms(reference, predicted, spacing_mm), abs=1e-9)


def test_a_far_part_that_the_percentile_does_not_need_changes_nothing() -> None:
    reference = cube((0, 0, 0), 8)
    predicted = reference | mask_of((29, 23, 19))
    assert compare_voxel_surfaces(reference, predicted, UNIT).hd95_mm == 0
