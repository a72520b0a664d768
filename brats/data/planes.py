"""Planes: along which axis of a crop the network's slices follow each other, and what is counted on each slice.

Axes: `Z H W` slices of a crop, with H = X and W = Y of the RAS+ volume, see `brats.data.case`.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from brats.config import Plane
from brats.labels import ET, Labels

AXES: Mapping[Plane, int] = {"axial": 0, "coronal": 2, "sagittal": 1}
"""Of a crop: the axis along which the slices of a plane follow each other; the other two keep their order, so
that coronal slices are Z X and sagittal ones Z Y."""

Counted = Literal["tumour", "et"]
COUNTED: tuple[Counted, ...] = ("tumour", "et")


def in_plane(crop: npt.NDArray[Any], plane: Plane) -> npt.NDArray[Any]:
    """A view of a crop (Z, H, W) as slices of a plane."""
    return np.moveaxis(crop, AXES[plane], 0)


def shape_in_plane(shape: tuple[int, int, int], plane: Plane) -> tuple[int, int, int]:
    """The shape of a crop of this shape (Z, H, W) as slices of a plane."""
    first, *others = (AXES[plane], *(axis for axis in range(3) if axis != AXES[plane]))
    return shape[first], shape[others[0]], shape[others[1]]


def counts_column(counted: Counted, plane: Plane) -> str:
    """The column of prepared cases that counts the voxels of the tumour, or of ET, in each slice of a plane."""
    return f"{counted}_per_slice" if plane == "axial" else f"{counted}_per_{plane}_slice"


COUNT_COLUMNS = tuple(counts_column(counted, plane) for counted in COUNTED for plane in AXES)
"""In datasets of before there were planes all but the first, of the tumour in axial slices, are null."""


def slice_counts(labels: Labels) -> dict[str, list[int]]:
    """The `COUNT_COLUMNS` of a label map (Z, H, W)."""
    voxels = np.nonzero(labels)  # one search of the volume; tumour is a hundredth of it
    is_et = labels[voxels] == ET
    counts = {}
    for plane, axis in AXES.items():
        places = voxels[axis]
        for counted, chosen in zip(COUNTED, (places, places[is_et]), strict=True):
            column = counts_column(counted, plane)
            counts[column] = np.bincount(chosen, minlength=labels.shape[axis]).tolist()
    return {column: counts[column] for column in COUNT_COLUMNS}
