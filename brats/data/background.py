"""Background level of an image, and the tolerance around it.

Axes: `X Y Z` voxel axes of a RAS+ volume.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from brats.data.grid import from_ras
from brats.data.volume import Volume

Array = npt.NDArray[Any]

# As a share of the reach of the image, which is how far its values go from the background. Resamplers leave 1e-6 of
# it as noise, and ringing of up to 1e-3. In real images at most one brain voxel in a thousand is as dark.
TOLERANCE = 1e-3
# Where the corners of the volume vary, twice as much is background: they are thousands of voxels, and of normal
# noise the extremes among the millions around the brain lie 1.5 times as far out.
NOISE_MARGIN = 2
# The most that such noise makes background, as a share of the reach. In 47 of 48 real images at
# most 2.4 % of the brain is as dark.
MAX_TOLERANCE = 0.025
CORNER_VOXELS = 8  # edge of the block that is looked at in every corner; an eighth of the axis at most
SPIKE_SHARE = 1e-3  # of the voxels of a brain: the farthest are left out, because some may be spikes


class Background(NamedTuple):
    """Raw values that are no brain: those at most `tolerance` away from `level`. Both are raw values."""

    level: float
    tolerance: float = 0.0

    def is_brain(self, image: Array) -> npt.NDArray[np.bool_]:
        """Where the raw values of an image are not background."""
        low, high = self.limits(image.dtype)
        brain: npt.NDArray[np.bool_] = image != low if low == high else (image < low) | (image > high)
        return brain

    def limits(self, dtype: np.dtype[Any]) -> tuple[float, float]:
        """The lowest and the highest raw value that is background, as integers for an image of integers.

        A float would make NumPy turn such an image into floats to compare it.
        """
        low, high = self.level - self.tolerance, self.level + self.tolerance
        return (low, high) if dtype.kind == "f" else (math.ceil(low), math.floor(high))


def find_background(volume: Volume) -> Background:
    """The background of an image, found in the eight corners of its volume.

    Its level is what most corners have in common: 0 in BraTS, something else in images that were z-scored with
    their background. Where they have nothing in common, it is the raw value nearest to the value 0.

    Whole numbers are compared exactly, whatever the number type of the file. In any other image the tolerance is
    `TOLERANCE` of its reach. In both it is more where the corners show noise, up to `MAX_TOLERANCE`.
    """
    level, noise = _corners(volume, CORNER_VOXELS)
    whole = has_whole_values(volume)
    if whole and noise == 0:
        return Background(level)
    reach = find_reach(volume, level, noise * NOISE_MARGIN)
    if noise * NOISE_MARGIN > MAX_TOLERANCE * reach:  # the blocks hold more than background
        level, noise = _corners(volume, 1)
        level, noise = (level, 0.0) if noise == 0 else (_nearest_to_zero(volume), 0.0)
    elif abs(_nearest_to_zero(volume) - level) <= noise:
        level = _nearest_to_zero(volume)
    return Background(level, max(noise * NOISE_MARGIN, 0.0 if whole else TOLERANCE * reach))


def _corners(volume: Volume, edge: int) -> tuple[float, float]:
    """The median of the eight corner voxels, and how far from it the blocks of most corners go.

    edge: of the blocks; an eighth of the axis at most, and one voxel at least
    """
    corners = np.sort(volume.voxels[np.ix_(*[(0, -1)] * 3)], axis=None)
    level: float = corners[len(corners) // 2].item()
    distances = [np.abs(block.astype(np.float64) - level).max() for block in _corner_blocks(volume.voxels, edge)]
    return float(level), float(np.sort(distances)[len(distances) // 2])


def _corner_blocks(voxels: Array, edge: int) -> Iterator[Array]:
    x, y, z = ((slice(n), slice(-n, None)) for n in (max(1, min(edge, size // 8)) for size in voxels.shape))
    return (voxels[i, j, k] for i in x for j in y for k in z)


def _nearest_to_zero(volume: Volume) -> float:
    """The raw value that stands for the value 0, or comes nearest to it."""
    zero = (0 - volume.inter) / volume.slope
    if volume.voxels.dtype.kind == "f":
        return zero
    limits = np.iinfo(volume.voxels.dtype)
    return float(min(max(round(zero), limits.min), limits.max))


def has_whole_values(volume: Volume) -> bool:
    """Whether every value of an image is a whole number, to the precision of float32."""
    scaling = float(volume.slope), float(volume.inter)
    if volume.voxels.dtype.kind != "f" and all(number.is_integer() for number in scaling):
        return True
    slices = from_ras(volume.voxels, volume.grid).T

    def is_whole(raw: Array) -> bool:
        values = raw if scaling == (1, 0) else volume.slope * raw + volume.inter
        values = values.astype(np.float32, copy=False)
        return bool((values == np.rint(values)).all())

    return is_whole(slices[len(slices) // 2]) and all(is_whole(raw) for raw in slices)  # the middle settles most


def find_reach(volume: Volume, level: float, noise: float = 0.0) -> float:
    """How far the raw values of an image go from its background, without spikes.

    Of the voxels farther from it than the noise, or of all that differ from it where none is as far. It depends
    neither on margins nor on the orientation.
    """
    voxels = from_ras(volume.voxels, volume.grid).T
    for tolerance in (noise, 0.0):
        brain = voxels[Background(level, tolerance).is_brain(voxels)]
        if brain.size:
            return reach_of(brain, level)
    return 0.0


def reach_of(brain: Array, level: float) -> float:
    """The distance from the level of the farthest of these values, once `SPIKE_SHARE` of them are left out."""
    distances = np.abs(brain - float(level))
    n_spikes = math.ceil(SPIKE_SHARE * distances.size)
    return float(np.partition(distances, -n_spikes)[-n_spikes])
