"""Connected components of a region in reference and prediction, their dilation and their overlaps.

Axes: `X Y Z` the voxel axes of the masks, in any order, such as S H W of a label map. Components are of 26
neighbours: voxels that share a face, an edge or a corner.
"""

import math
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
    inside:   (M,), the voxels of the mask, as flat indices
    n_voxels: (N + 1,), by number; that of 0 is 0
    boxes:    of the number n, at n - 1
    """

    numbers: Numbers
    inside: npt.NDArray[np.intp]
    n_voxels: Ints
    boxes: list[Box]

    @classmethod
    def of(cls, mask: Mask, numbers: Numbers) -> Self:
        """The parts of a mask (X, Y, Z) that these numbers make, each of which occurs, up to the largest."""
        inside = np.flatnonzero(mask)
        n_voxels = np.bincount(numbers.ravel()[inside], minlength=1)
        return cls(numbers, inside, n_voxels, ndimage.find_objects(numbers))

    @property
    def n(self) -> int:
        return len(self.boxes)

    def centroid(self, number: int) -> tuple[float, float, float]:
        """Mean voxel index of a component."""
        box = self.boxes[number - 1]
        mask = self.numbers[box] == number
        columns = np.count_nonzero(mask, axis=2)
        along = (columns.sum(axis=1), columns.sum(axis=0), np.count_nonzero(mask, axis=(0, 1)))
        x, y, z = (
            side.start + float(n @ np.arange(n.size)) / int(self.n_voxels[number])
            for side, n in zip(box, along, strict=True)
        )
        return x, y, z


class Place(NamedTuple):
    """The volume of a component, and its centroid as a voxel index in the whole volume, along the masks' axes."""

    volume_mm3: float
    centroid: tuple[float, float, float]


@dataclass(frozen=True)
class RegionPair:
    """A region in reference and prediction, cut to the box of both with MARGIN voxels around it.

    start:      index of the first voxel of the box, in the order of the masks' axes
    spacing_mm: voxel size, in the same order
    hd95_mm:    of the whole region, where it is known: that of a lesion alone
    """

    reference: Mask
    predicted: Components
    start: tuple[int, int, int]
    spacing_mm: Spacing
    hd95_mm: float | None = None

    @classmethod
    def of(
        cls,
        reference: Mask,
        predicted: Mask,
        start: tuple[int, int, int],
        spacing_mm: Spacing,
        hd95_mm: float | None = None,
    ) -> Self:
        """The pair of two masks (X, Y, Z), the index of whose first voxel is `start`; outside is background."""
        box = bounding_box(reference | predicted)
        x, y, z = (first + side.start - MARGIN for first, side in zip(start, box, strict=True))
        return cls(
            reference=np.pad(reference[box], MARGIN),
            predicted=find_components(np.pad(predicted[box], MARGIN)),
            start=(x, y, z),
            spacing_mm=spacing_mm,
            hd95_mm=hd95_mm,
        )

    def place(self, components: Components, number: int) -> Place:
        """Volume and centroid of a component of this box."""
        x, y, z = (first + inner for first, inner in zip(self.start, components.centroid(number), strict=True))
        return Place(float(components.n_voxels[number]) * math.prod(self.spacing_mm), (x, y, z))


def find_components(mask: Mask) -> Components:
    """The 26-connected components of a mask (X, Y, Z)."""
    return Components.of(mask, number_components(mask))


def number_components(mask: Mask) -> Numbers:
    """The number of the 26-connected component that each voxel of a mask (X, Y, Z) is of, from 1; 0 outside."""
    numbers, _ = ndimage.label(mask, _NEIGHBOURS_26)
    return np.asarray(numbers, np.int32)


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


def count_pairs(numbers: Numbers, components: Components) -> tuple[Ints, Ints]:
    """Which numbers (X, Y, Z) but 0 lie in which components of the same box, and in how many of their voxels.

    Returns pairs (P, 2), in ascending order, and their voxels (P,).
    """
    width = components.n + 1
    keys = numbers.ravel()[components.inside].astype(np.int64)
    keys = keys * width + components.numbers.ravel()[components.inside]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))  # of runs of equal pairs, far fewer than voxels
    found, run = np.unique(keys[starts], return_inverse=True)
    counts = np.bincount(run, weights=np.diff(starts, append=keys.size), minlength=found.size).astype(np.int64)
    pairs = np.stack([found // width, found % width], axis=1)
    return pairs[pairs[:, 0] > 0], counts[pairs[:, 0] > 0]


def union_box(boxes: Iterable[Box]) -> Box:
    """The smallest box around boxes."""
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*boxes, strict=True)
    )
