"""Connected components of a region in reference and prediction, their dilation and their overlaps.

Axes: `X Y Z` the voxel axes of the masks, in any order. Components are of 26 neighbours: voxels that share a face,
an edge or a corner.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brats.labels import bounding_box
from brats.score.surface import Mask, Spacing

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]
Box = tuple[slice, ...]

MARGIN = 3  # voxels around the masks: as far as any rules dilate
_NEIGHBOURS_26 = np.ones((3, 3, 3), bool)


@dataclass(frozen=True)
class Components:
    """The parts of a mask, numbered from 1.

    numbers:  (X, Y, Z), 0 outside
    n_voxels: (N + 1,), by number; that of 0 is 0
    boxes:    of the number n, at n - 1
    """

    numbers: Numbers
    n_voxels: Ints
    boxes: list[Box]

    @classmethod
    def of(cls, numbers: Numbers) -> Self:
        """The parts that these numbers make, each of which occurs, up to the largest."""
        n_voxels = np.bincount(numbers.ravel())
        n_voxels[0] = 0
        return cls(numbers, n_voxels, ndimage.find_objects(numbers))

    @property
    def n(self) -> int:
        return len(self.boxes)

    def centroids(self) -> npt.NDArray[np.float64]:
        """Mean voxel index of each, (N + 1, 3); zeros for number 0."""
        inside = np.flatnonzero(self.numbers)
        numbers = self.numbers.ravel()[inside]
        axes = np.unravel_index(inside, self.numbers.shape)
        sums = [np.bincount(numbers, weights=axis, minlength=self.n + 1) for axis in axes]
        return np.stack(sums, axis=1) / np.maximum(self.n_voxels, 1)[:, None]


class Place(NamedTuple):
    """The volume of a component, and its centroid as a voxel index in the whole volume, along X Y Z."""

    volume_mm3: float
    centroid: tuple[float, float, float]


@dataclass(frozen=True)
class RegionPair:
    """A region in reference and prediction, cut to the box of both with MARGIN voxels around it.

    start:      index of the first voxel of the box, along X Y Z
    spacing_mm: along X Y Z
    """

    reference: Mask
    predicted: Components
    start: tuple[int, int, int]
    spacing_mm: Spacing

    @classmethod
    def of(cls, reference: Mask, predicted: Mask, start: tuple[int, int, int], spacing_mm: Spacing) -> Self:
        """The pair of two masks (X, Y, Z), the index of whose first voxel is `start`; outside is background."""
        box = bounding_box(reference | predicted)
        x, y, z = (first + side.start - MARGIN for first, side in zip(start, box, strict=True))
        return cls(
            reference=np.pad(reference[box], MARGIN),
            predicted=find_components(np.pad(predicted[box], MARGIN)),
            start=(x, y, z),
            spacing_mm=spacing_mm,
        )

    def places(self, components: Components) -> list[Place]:
        """Volume and centroid of each component of this box, that of the number n at n - 1."""
        volumes_mm3 = components.n_voxels[1:] * float(np.prod(self.spacing_mm))
        centroids = components.centroids()[1:] + self.start
        return [
            Place(volume_mm3, (x, y, z))
            for volume_mm3, (x, y, z) in zip(volumes_mm3.tolist(), centroids.tolist(), strict=True)
        ]


def find_components(mask: Mask) -> Components:
    """The 26-connected components of a mask (X, Y, Z)."""
    numbers, _ = ndimage.label(mask, _NEIGHBOURS_26)
    return Components.of(np.asarray(numbers, np.int32))


def dilate(mask: Mask, n_times: int) -> Mask:
    """The mask (X, Y, Z) and, so many times over, the 18 neighbours of its voxels that share a face or an edge.

    These are the three planes of 3 x 3 voxels around a voxel, each of which is a line widened to a plane.
    """
    for _ in range(n_times):
        along_x, along_y = _widen(mask, 0), _widen(mask, 1)
        mask = _widen(along_x, 1) | _widen(along_x, 2) | _widen(along_y, 2)
    return mask


def _widen(mask: Mask, axis: int) -> Mask:
    wide = mask.copy()
    before, after = np.moveaxis(mask, axis, 0), np.moveaxis(wide, axis, 0)
    after[1:] |= before[:-1]
    after[:-1] |= before[1:]
    return wide


def count_pairs(one: Numbers, other: Numbers) -> tuple[Ints, Ints]:
    """Which numbers, 0 left out, lie in the same voxels of two arrays (X, Y, Z), and in how many.

    Returns pairs (P, 2), in ascending order, and their voxels (P,).
    """
    both = np.flatnonzero((one != 0) & (other != 0))
    width = int(other.max(initial=0)) + 1
    keys = one.ravel()[both].astype(np.int64) * width + other.ravel()[both]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))  # of runs of equal pairs, far fewer than voxels
    found, run = np.unique(keys[starts], return_inverse=True)
    counts = np.bincount(run, weights=np.diff(starts, append=len(keys)), minlength=len(found))
    return np.stack([found // width, found % width], axis=1), counts.astype(np.int64)


def union_box(boxes: Iterable[Box]) -> Box:
    """The smallest box around boxes."""
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*boxes, strict=True)
    )
