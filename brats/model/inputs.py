"""From stored slices to the network's input: the arithmetic that training, validation and prediction share.

Axes: `B` slices of a batch, `C` channel, `R` region (WT, TC, ET), `Z H W` slices of a crop.
"""

from collections.abc import Iterator
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from brats.config import Augmentation
from brats.data.batches import InputSpec, SliceBatch, case_batches
from brats.data.case import Case
from brats.labels import Labels
from brats.model.augment import augment
from brats.model.feed import RawSlices
from brats.model.losses import region_targets


def training_tensors(slices: RawSlices, noise: Tensor, kind: Augmentation) -> tuple[Tensor, Tensor]:
    """Network input (B, C, H, W) and labels (B, H, W) of slices to train on, augmented.

    noise: of `brats.model.augment.noise_table`
    """
    images = normalise(slices.images, *slices.numbers.unbind(1))
    images, labels = augment(images, slices.labels, slices.parameters, noise, kind)
    return images.contiguous(memory_format=torch.channels_last), labels


def case_tensors(case: Case, inputs: InputSpec, *, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Network input (B, C, H, W) of a case's slices, in order, padded at the end of H and W to the divisor.

    Raises CaseError naming the modality that the case lacks.
    """
    for batch in case_batches(case, inputs, batch_size):
        yield _normalised(batch, to_device(batch.images, device))


def case_targets(labels: Labels, device: torch.device) -> Tensor:
    """Region targets (Z, R, H, W) of a case's labels (Z, H, W), on the device."""
    return region_targets(to_device(labels, device))


def to_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """The array on the device; from pinned memory without waiting for the copy."""
    return torch.from_numpy(array).to(device, non_blocking=True)


def _normalised(batch: SliceBatch, images: Tensor) -> Tensor:
    """A batch normalised on the device of its images."""
    columns = (batch.offset, batch.scale, batch.background, batch.tolerance)
    return normalise(images, *(to_device(column, images.device) for column in columns))


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
