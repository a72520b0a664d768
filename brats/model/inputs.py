"""From stored slices to the network's input: the arithmetic that training, validation and prediction share.

Axes: `B` slices of a batch, `C` channel, `R` region (WT, TC, ET), `Z H W` slices of a crop.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from brats.config import Augmentation
from brats.data.batches import InputSpec, case_slices
from brats.data.case import Array, Case
from brats.model.augment import augment, drop_modalities
from brats.model.feed import RawSlices


def training_tensors(
    slices: RawSlices, noise: Tensor, kind: Augmentation, *, drops: bool = False
) -> tuple[Tensor, Tensor]:
    """Network input (B, C, H, W) and labels (B, H, W) of slices to train on, augmented.

    noise: of `brats.model.augment.noise_table`
    drops: whether the last parameters say, one for each channel, which modalities are kept
    """
    images = normalise(slices.images, *slices.numbers.unbind(1))
    n_drawn = slices.parameters.shape[1] - (images.shape[1] if drops else 0)
    images, labels = augment(images, slices.labels, slices.parameters[:, :n_drawn], noise, kind)
    if drops:
        images = drop_modalities(images, slices.parameters[:, n_drawn:])
    return images.contiguous(memory_format=torch.channels_last), labels


@dataclass(frozen=True, kw_only=True)
class RawCase:
    """All slices of a case as they are stored, on a host or a device, to be normalised batch by batch.

    images:  (Z, C, H, W), raw values, padded at the end of H and W to the divisor
    numbers: offset, scale, background and tolerance, (4, Z, C), see `brats.data.batches.SliceBatch`
    size:    (H, W) without the padding
    """

    images: Tensor
    numbers: Tensor
    size: tuple[int, int]

    @classmethod
    def of(cls, case: Case, inputs: InputSpec, *, pinned: bool) -> Self:
        """A case on the host, in pinned memory where it is to go to a GPU.

        Raises CaseError naming the modality that the case lacks.
        """
        batch = case_slices(case, inputs, _pinned_array if pinned else np.empty)
        numbers = np.stack([batch.offset, batch.scale, batch.background, batch.tolerance])
        height, width = case.box.shape[:2]
        return cls(images=torch.from_numpy(batch.images), numbers=torch.from_numpy(numbers), size=(height, width))

    def to(self, device: torch.device) -> Self:
        """The same on a device, without waiting for the copy."""
        images, numbers = (tensor.to(device, non_blocking=True) for tensor in (self.images, self.numbers))
        return dataclasses.replace(self, images=images, numbers=numbers)

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """Network input (B, C, H, W) of the slices, in order."""
        for first in range(0, len(self.images), batch_size):
            rows = slice(first, first + batch_size)
            yield normalise(self.images[rows], *self.numbers[:, rows])


def _pinned_array(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    like = torch.from_numpy(np.empty(0, dtype))
    pinned: Array = torch.empty(shape, dtype=like.dtype, pin_memory=True).numpy()
    return pinned


def normalise(images: Tensor, offset: Tensor, scale: Tensor, background: Tensor, tolerance: Tensor) -> Tensor:
    """Raw values (B, C, H, W) as float32 network input: `(raw - offset) / scale`, 0 in the background.

    offset, scale, background, tolerance: (B, C), see `brats.data.batches.SliceBatch`.
    """
    normalised = torch.empty(images.shape, device=images.device, memory_format=torch.channels_last)
    # On a CPU one slice at a time, which its cache holds from one step of the arithmetic to the next.
    on_cpu = images.device.type == "cpu"
    exact = on_cpu and not tolerance.any()  # most images; on a GPU, asking would make the host wait
    n_rows = 1 if on_cpu else max(1, len(images))
    for first in range(0, len(images), n_rows):
        rows = slice(first, first + n_rows)
        values = images[rows].to(torch.float32, copy=True)
        # 0 or 1 in float32: multiplying by it takes a quarter of the time that filling a mask takes on CPUs.
        if exact:
            inside = values.clone().ne_(background[rows, :, None, None])
        else:
            inside = values.sub(background[rows, :, None, None]).abs_().gt_(tolerance[rows, :, None, None])
        # Before the division, which would make the lowest number there is, a common background, infinite.
        values.sub_(offset[rows, :, None, None]).mul_(inside)
        normalised[rows] = values.div_(scale[rows, :, None, None])
    return normalised
