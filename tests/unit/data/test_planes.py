"""Planes: each voxel of a crop in its slice, and what is counted there, by hand."""

import numpy as np
import pytest

from brats.config import Plane
from brats.data.planes import AXES, COUNT_COLUMNS, counts_column, in_plane, shape_in_plane, slice_counts
from brats.labels import ED, ET, NCR

CROP = np.arange(2 * 3 * 4).reshape(2, 3, 4)  # Z X Y


def test_slices_of_each_plane_hold_the_voxels_of_the_crop_in_its_order() -> None:
    axial, coronal, sagittal = (in_plane(CROP, plane) for plane in ("axial", "coronal", "sagittal"))
    for z, x, y in np.ndindex(CROP.shape):
        assert axial[z, x, y] == coronal[y, z, x] == sagittal[x, z, y] == CROP[z, x, y]


@pytest.mark.parametrize(
    ("plane", "shape"), [("axial", (2, 3, 4)), ("coronal", (4, 2, 3)), ("sagittal", (3, 2, 4))]
)
def test_the_shape_of_a_crop_in_a_plane_is_that_of_its_slices(plane: Plane, shape: tuple[int, int, int]) -> None:
    assert shape_in_plane((2, 3, 4), plane) == in_plane(CROP, plane).shape == shape


def test_voxels_are_counted_slice_by_slice_in_every_plane() -> None:
    labels = np.zeros((2, 3, 4), np.uint8)
    labels[0, 1, 2] = NCR
    labels[0, 1, 3] = ED
    labels[1, 1, 3] = labels[1, 2, 3] = ET
    assert slice_counts(labels) == {
        "tumour_per_slice": [2, 2],
        "tumour_per_coronal_slice": [0, 0, 1, 3],
        "tumour_per_sagittal_slice": [0, 3, 1],
        "et_per_slice": [0, 2],
        "et_per_coronal_slice": [0, 0, 0, 2],
        "et_per_sagittal_slice": [0, 1, 1],
    }


def test_a_label_map_without_tumour_counts_0_in_every_slice() -> None:
    counts = slice_counts(np.zeros((2, 3, 4), np.uint8))
    for plane in AXES:
        assert counts[counts_column("tumour", plane)] == [0] * in_plane(CROP, plane).shape[0]
    assert tuple(counts) == COUNT_COLUMNS
