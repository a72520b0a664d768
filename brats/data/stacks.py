"""Stacks: slices of cases as they are stored, put together to batches and padded to one size.

Axes: `B` slices of a batch, `C` channel, `H W` slice axes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brats.data.case import Array, Intensity

Floats = npt.NDArray[np.float32]
Empty = Callable[[tuple[int, ...], npt.DTypeLike], Array]
"""Makes an array of this shape and dtype, with any content."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Neighbouring slices of one case, as a batch takes them in.

    channels:    raw values (n, H, W) of each channel
    intensities: of each channel
    """

    channels: Sequence[Array]
    intensities: Sequence[Intensity]


@dataclass(frozen=True, kw_only=True)
class SliceBatch:
    """Slices padded to one size with each image's background: all that the network's input is computed from.

    images: (B, C, H, W), raw values: int16 where all fit, else float32
    offset, scale: (B, C); the input is `(raw - offset) / scale`
    background, tolerance: (B, C); it is 0 where `|raw - background| <= tolerance`
    """

    images: Array
    offset: Floats
    scale: Floats
    background: Floats
    tolerance: Floats


def stack_slices(stacks: Sequence[Stack], size: tuple[int, int], empty: Empty = np.empty) -> SliceBatch:
    """The slices of all stacks, one behind the other, padded at the end of H and W to this size.

    empty: makes the array of the images
    """
    counts = [len(stack.channels[0]) for stack in stacks]
    intensities = [stack.intensities for stack in stacks]
    dtype = common_dtype({item.dtype for items in intensities for item in items})
    images = empty((sum(counts), len(intensities[0]), *size), dtype)
    first = 0
    for stack, count in zip(stacks, counts, strict=True):
        for channel, (raw, intensity) in enumerate(zip(stack.channels, stack.intensities, strict=True)):
            height, width = raw.shape[1:]
            padded = images[first : first + count, channel]
            padded[:, height:] = padded[:, :, width:] = intensity.background
            padded[:, :height, :width] = raw
        first += count
    numbers = np.repeat(np.stack([channel_numbers(items) for items in intensities]), counts, axis=0)
    offset, scale, background, tolerance = np.moveaxis(numbers, 1, 0).copy()
    return SliceBatch(images=images, offset=offset, scale=scale, background=background, tolerance=tolerance)


def channel_numbers(intensities: Sequence[Intensity]) -> Floats:
    """Offset, scale, background and tolerance of each channel, (4, C), see `SliceBatch`."""
    numbers = [(*item.raw_offset_scale(), item.background, item.tolerance) for item in intensities]
    return np.array(numbers, np.float32).T


def common_dtype(dtypes: set[str]) -> npt.DTypeLike:
    """The narrower of int16 and float32 that holds all of these dtypes (float32: to its precision)."""
    return np.int16 if all(np.can_cast(np.dtype(name), np.int16) for name in dtypes) else np.float32
