"""HD95 and surface Dice between the outermost voxels of two masks, every voxel counted alike.

Axes: `X Y Z` the voxel axes of the masks, in any order; the spacing is in the same order.

The definition is that of panoptica 2.1: the surface of a mask is its voxels with a neighbour outside among the six
that share a face. google-deepmind/surface-distance (`brats.score.surface`) takes elements at voxel corners instead,
and weighs them by their area, so that neither figure compares with the other's.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from brats.score.surface import PERCENTILE, REACH, Floats, Mask, Spacing, distances_mm, nearest_steps


class VoxelSurfaces(NamedTuple):
    """What the distances between two surfaces come to.

    hd95_mm:      95th percentile of the distances of both directions, pooled; between two of them by the straight
                  line, as `numpy.percentile` takes it
    surface_dice: mean over the directions of the share of voxels at most the smallest spacing away
    """

    hd95_mm: float
    surface_dice: float


def compare_voxel_surfaces(reference: Mask, predicted: Mask, spacing_mm: Spacing) -> VoxelSurfaces:
    """The surfaces of two masks (X, Y, Z), neither of which is empty; they may be crops, outside is background."""
    one, other = (outer_voxels(np.pad(mask, REACH)) for mask in (reference, predicted))
    directions = [(one, other, _near_mm(one, other, spacing_mm)), (other, one, _near_mm(other, one, spacing_mm))]
    pooled = np.concatenate([near for *_, near in directions])
    n_needed = min(int(PERCENTILE / 100 * (pooled.size - 1)) + 2, pooled.size)
    if np.isfinite(pooled).sum() < n_needed:  # some that the percentile needs lie beyond REACH
        pooled = np.concatenate([_all_mm(*direction, spacing_mm) for direction in directions])
    limit_mm = min(spacing_mm)
    shares = [float((near <= limit_mm).mean()) for *_, near in directions]
    return VoxelSurfaces(float(np.percentile(pooled, PERCENTILE)), sum(shares) / 2)


def outer_voxels(mask: Mask) -> Mask:
    """The voxels of a mask (X, Y, Z) that have one of their six neighbours outside it.

    The mask must have background on every side.
    """
    core = np.s_[1:-1]
    inner = mask[core, core, core].copy()
    for shift in (slice(2, None), slice(None, -2)):
        inner &= mask[shift, core, core]
        inner &= mask[core, shift, core]
        inner &= mask[core, core, shift]
    outer = mask.copy()
    outer[core, core, core] &= ~inner
    return outer


def _near_mm(surface: Mask, other: Mask, spacing_mm: Spacing) -> Floats:
    """The distance from each voxel of a surface to the nearest of the other, infinite beyond REACH."""
    voxels, flat = np.flatnonzero(surface), other.ravel()
    found_mm = np.full(voxels.size, np.inf)
    waiting: npt.NDArray[np.intp] = np.arange(voxels.size)
    for step, distance_mm in nearest_steps(surface.shape, spacing_mm):
        meets = flat[voxels[waiting] + step]
        found_mm[waiting[meets]] = distance_mm
        waiting = waiting[~meets]
        if not waiting.size:
            break
    return found_mm


def _all_mm(surface: Mask, other: Mask, near_mm: Floats, spacing_mm: Spacing) -> Floats:
    """The distances, with those filled in that are infinite."""
    far = np.isinf(near_mm)
    found_mm = near_mm.copy()
    found_mm[far] = distances_mm(np.flatnonzero(surface)[far], other, spacing_mm)
    return found_mm
