"""An image cut down to its brain as it is read: where its brain lies, and what must be kept until all are read.

Axes: `X Y Z` voxel axes of a RAS+ volume; `Z H W` slices of a crop with H = X and W = Y.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from brats.data.background import Background, find_background
from brats.data.case import Array, Box, crop
from brats.data.grid import Grid, from_ras
from brats.data.volume import Volume


@dataclass(frozen=True, kw_only=True)
class Trimmed:
    """An image as it is kept until the box of its case is known.

    volume: of its voxels those in `kept` alone, where all others are the one background value; else all
    kept:   where these voxels lie in the volume
    used:   the box around what is not background; None where all is
    """

    volume: Volume
    kept: Box
    used: Box | None
    background: Background

    def crop(self, box: Box) -> Array:
        """The voxels in a box that holds the brain, as contiguous slices (Z, H, W)."""
        inner = self.kept.overlap(box)
        x, y, z = inner.slices(self.kept.start)
        inside = np.ascontiguousarray(np.moveaxis(self.volume.voxels[x, y, z], 2, 0))
        if inner == box:
            return inside
        width, height, depth = box.shape
        image = np.full((depth, width, height), self.background.level, inside.dtype)
        x, y, z = inner.slices(box.start)
        image[z, x, y] = inside
        return image

    def turned_like(self, grid: Grid) -> "Trimmed":
        """This image turned as `Volume.turned_like` turns it."""
        own, volume = self.volume.grid, self.volume.turned_like(grid)
        kept = self.kept.in_source_axes(own).in_ras_axes(volume.grid)
        used = self.used and self.used.in_source_axes(own).in_ras_axes(volume.grid)
        return replace(self, volume=volume, kept=kept, used=used)


def trim(volume: Volume) -> Trimmed:
    """Find the background of an image and leave out what surrounds the brain, where that is one whole number.

    A case then takes the memory of one volume and of its crops, not of all volumes.
    """
    background = find_background(volume)
    used = used_box(volume.voxels, volume.grid, background)
    low, high = background.limits(volume.voxels.dtype)
    if used is None or low != high or volume.voxels.dtype.kind == "f":  # floats have two zeros
        return Trimmed(volume=volume, kept=whole_box(volume.grid), used=used, background=background)
    part = np.moveaxis(crop(volume.voxels, used), 0, 2)
    return Trimmed(volume=replace(volume, voxels=part), kept=used, used=used, background=background)


def whole_box(grid: Grid) -> Box:
    """The box of all voxels of a grid."""
    return Box(start=(0, 0, 0), stop=grid.ras_shape)


def brain_box(boxes: Sequence[Box | None]) -> Box | None:
    """The smallest box around others, those of the images and of the labels of a case; None without any.

    In real cases some labelled voxels lie outside the brain of some modality, which may be the only one used.
    """
    found = [box for box in boxes if box is not None]
    if not found:
        return None
    x0, y0, z0 = np.min([box.start for box in found], axis=0).tolist()
    x1, y1, z1 = np.max([box.stop for box in found], axis=0).tolist()
    return Box(start=(x0, y0, z0), stop=(x1, y1, z1))


def used_box(voxels: Array, grid: Grid, background: Background) -> Box | None:
    """The smallest box around every voxel of a RAS+ volume that is not the background, None without any.

    Searched in the order of the file, in which NumPy's fast loops run; the box is reoriented instead of the voxels.
    The slices without brain are left out from either end, so that what lies between is read just once.
    """
    slices = from_ras(voxels, grid).T  # the last axis of a file is its slowest
    first, stop = 0, len(slices)
    while first < stop and not _used(slices[first], background).any():
        first += 1
    if first == stop:
        return None
    while not _used(slices[stop - 1], background).any():
        stop -= 1
    projection = np.bitwise_or.reduce(_used(slices[first:stop], background), axis=0)
    (x0, x1), (y0, y1) = (_range(projection.any(axis=axis)) for axis in (0, 1))
    return Box(start=(x0, y0, first), stop=(x1, y1, stop)).in_ras_axes(grid)


def _used(image: Array, background: Background) -> Array:
    """Not 0 where a voxel is not the background. Whole numbers over a background of 0 say so as they are."""
    return image if background == Background(0) and image.dtype.kind != "f" else background.is_brain(image)


def _range(used: npt.NDArray[np.bool_]) -> tuple[int, int]:
    indices = np.flatnonzero(used)
    return int(indices[0]), int(indices[-1]) + 1
