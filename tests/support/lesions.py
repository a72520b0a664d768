"""Masks of a few voxels, and what the conventions of lesions make of them."""

import numpy as np

from brats.score.components import RegionPair
from brats.score.surface import Mask, Spacing

UNIT: Spacing = (1.0, 1.0, 1.0)
SHAPE = (30, 24, 20)


def mask_of(*voxels: tuple[int, int, int]) -> Mask:
    """A mask of SHAPE with these voxels."""
    mask = np.zeros(SHAPE, bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


def cube(corner: tuple[int, int, int], size: int) -> Mask:
    """A mask of SHAPE with a cube of so many voxels along each side."""
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(start, start + size) for start in corner)] = True
    return mask


def pair_of(reference: Mask, predicted: Mask, spacing_mm: Spacing = UNIT) -> RegionPair:
    return RegionPair.of(reference, predicted, (0, 0, 0), spacing_mm)
