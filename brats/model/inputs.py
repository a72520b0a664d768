"""From stored slices to the network's input: the arithmetic that training, validation and prediction share.

Axes: `B` slices of a batch, `M` modality, `D` slices of a modality that are seen at once, `C` channel, `R` region
(of `REGIONS`), `Z H W` slices of a crop, in the plane of the network.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from brats.config import Augmentation
from brats.data.batches import InputSpec, case_slices
from brats.data.case import Array, Case
from brats.data.planes import AXES, shape_in_plane
from brats.model.augment import augment, drop_modalities
from brats.model.feed import RawSlices


def training_tensors(
    slices: RawSlices, noise: Tensor, kind: Augmentation, inputs: InputSpec, *, drops: bool = False
) -> tuple[Tensor, Tensor]:
    """Network input (B, C, H, W) and labels (B, H, W) of slices to train on, augmented.

    noise: of `brats.model.augment.noise_table`
    drops: whether the last parameters say, one for each modality, which of them are kept
    """
    images = normalise(slices.images, *slices.numbers.unbind(1))
    n_drawn = slices.parameters.shape[1] - (len(inputs.modalities) if drops else 0)
    images, labels = augment(images, slices.labels, slices.parameters[:, :n_drawn], noise, kind)
    if drops:
        images = drop_modalities(images, slices.parameters[:, n_drawn:])
    return with_extra(images, inputs).contiguous(memory_format=torch.channels_last), labels


def with_extra(images: Tensor, inputs: InputSpec) -> Tensor:
    """Network input (B, C, H, W) of its channels that are normalised slices of images: the others, behind them."""
    if not inputs.extra:
        return images
    size = (len(images), inputs.n_channels, *images.shape[2:])
    complete = torch.empty(size, device=images.device, memory_format=torch.channels_last)
    n_images = images.shape[1]
    complete[:, :n_images] = images
    for number, name in enumerate(inputs.extra, n_images):
        complete[:, number : number + 1] = extra_channel(name, images, inputs)
    return complete


def extra_channel(name: str, images: Tensor, inputs: InputSpec) -> Tensor:
    """A computed channel (B, 1, H, W) float32 of the channels that are normalised slices of images, (B, M D, H, W).

    Raises ValueError for a name that is no computed channel's.
    """
    middle = images[:, inputs.context :: len(inputs.steps)]  # of each modality the slice itself
    if name == "foreground":
        return (middle != 0).any(1, keepdim=True).to(torch.float32)
    if name == "t1ce-t1":
        t1ce, t1 = (inputs.modalities.index(modality) for modality in ("t1ce", "t1"))
        return middle[:, t1ce : t1ce + 1] - middle[:, t1 : t1 + 1]
    raise ValueError(f"{name!r} is no computed channel; add to `extra_channel` how it is computed")


def with_neighbours(images: Tensor, before: int, after: int, inputs: InputSpec) -> Tensor:
    """Slices (Z, M, H, W) of a case, each of them with its neighbours, (B, M D, H, W), see `InputSpec`.

    before, after: neighbours that lie beyond the ends of the case, and are background
    """
    if not inputs.context:
        return images
    if before or after:
        images = functional.pad(images, (0, 0, 0, 0, 0, 0, before, after))
    depth = len(inputs.steps)
    n_slices, n_modalities, height, width = len(images) - (depth - 1), *images.shape[1:]
    size = (n_slices, n_modalities * depth, height, width)
    together = torch.empty(size, device=images.device, memory_format=torch.channels_last)
    for place in range(depth):
        together[:, place::depth] = images[place : place + n_slices]
    return together


@dataclass(frozen=True, kw_only=True)
class RawCase:
    """All slices of a case in their plane, on a host or a device, to be normalised batch by batch.

    images:  (Z, M, H, W), raw values, padded at the end of H and W to the divisor
    numbers: offset, scale, background and tolerance, (4, Z, M), see `brats.data.stacks.SliceBatch`
    size:    (H, W) without the padding
    """

    inputs: InputSpec

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
        x, y, z = case.box.shape
        _, height, width = shape_in_plane((z, x, y), inputs.plane)
        images, size = torch.from_numpy(batch.images), (height, width)
        return cls(inputs=inputs, images=images, numbers=torch.from_numpy(numbers), size=size)

    def to(self, device: torch.device) -> Self:
        """The same on a device, without waiting for the copy."""
        images, numbers = (tensor.to(device, non_blocking=True) for tensor in (self.images, self.numbers))
        return dataclasses.replace(self, images=images, numbers=numbers)

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """Network input (B, C, H, W) of the slices, in order."""
        n_slices, context = len(self.images), self.inputs.context
        for first in range(0, n_slices, batch_size):
            start, stop = first - context, min(first + batch_size, n_slices) + context
            rows = slice(max(0, start), min(stop, n_slices))
            images = normalise(self.images[rows], *self.numbers[:, rows])
            images = with_neighbours(images, rows.start - start, stop - rows.stop, self.inputs)
            yield with_extra(images, self.inputs)


def in_crop_axes(slices: Tensor, inputs: InputSpec) -> Tensor:
    """A view of slices (S, R, H, W) of a case, which lie in the plane of the network, as axial ones of its crop."""
    return slices.movedim(1, 0).movedim(1, 1 + AXES[inputs.plane]).movedim(0, 1)


def _pinned_array(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    like = torch.from_numpy(np.empty(0, dtype))
    pinned: Array = torch.empty(shape, dtype=like.dtype, pin_memory=True).numpy()
    return pinned


def normalise(images: Tensor, offset: Tensor, scale: Tensor, background: Tensor, tolerance: Tensor) -> Tensor:
    """Raw values (B, C, H, W) as float32 network input: `(raw - offset) / scale`, 0 in the background.

    offset, scale, background, tolerance: (B, C), see `brats.data.stacks.SliceBatch`.
    """
    normalised = torch.empty(images.shape, device=images.device, memory_format=torch.channels_last)
    # On a CPU one slice at a time, which its cache holds from one step of the arithmetic to the next.
    on_cpu = images.device.type == "cpu"
    exact = on_cpu and not tolerance.any()  # most images; on a GPU, asking would make the host wait
    n_rows = 1 if on_cpu else max(1, len(images))
    # Written over for each of these slices: memory that is new takes a third of the time.
    values, inside = (torch.empty(images[:n_rows].shape, device=images.device) for _ in range(2))
    for first in range(0, len(images), n_rows):
        rows = slice(first, first + n_rows)
        values.copy_(images[rows])
        # 0 or 1 in float32: multiplying by it takes a quarter of the time that filling a mask takes on CPUs.
        if exact:
            torch.ne(values, background[rows, :, None, None], out=inside)
        else:
            torch.sub(values, background[rows, :, None, None], out=inside)
            inside.abs_().gt_(tolerance[rows, :, None, None])
        # Before the division, which would make the lowest number there is, a common background, infinite.
        values.sub_(offset[rows, :, None, None]).mul_(inside)
        normalised[rows] = values.div_(scale[rows, :, None, None])
    return normalised
