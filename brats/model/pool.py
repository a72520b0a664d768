"""The pool of training slices on a device, filled once; every step gathers its slices from it.

Axes: `B` slices of a batch, `M` modality, `D` slices of a modality that are seen at once, `C` channel (`M D` in
one), `H W` slice axes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from brats.data.pool import FLOAT32_BYTES, INT16_BYTES, PoolLayout, TrainingVolume
from brats.errors import BratsError, TooLargeError

NUMBERS_BACKGROUND = 2  # row of `channel_numbers`


@dataclass(frozen=True, kw_only=True)
class SlicePool:
    """All slices that a run trains on.

    values:  raw values of all images, int16, or float32 where a case needs it
    labels:  uint8, of the same voxels
    numbers: (n cases, 4, M), of `brats.data.stacks.channel_numbers`
    """

    layout: PoolLayout
    values: Tensor
    labels: Tensor
    numbers: npt.NDArray[np.float32]

    @classmethod
    def fill(
        cls, layout: PoolLayout, volumes: Iterable[TrainingVolume], device: torch.device, at_most: int
    ) -> Self:
        """The pool of these volumes, each of which comes once, in any order.

        at_most: bytes that it may take. Raises TooLargeError when a case of floating-point images makes it larger.
        """
        values = torch.empty(layout.n_voxels * layout.n_channels, dtype=torch.int16, device=device)
        labels = torch.empty(layout.n_voxels, dtype=torch.uint8, device=device)
        numbers = np.zeros((len(layout.index), 4, layout.n_channels), np.float32)
        missing = set(layout.index)
        for volume in volumes:
            case = layout.index[volume.case_id]
            if volume.images.dtype == np.float32 and values.dtype == torch.int16:
                if layout.n_bytes(INT16_BYTES + FLOAT32_BYTES) > at_most:  # both, while the one becomes the other
                    raise TooLargeError(f"the images of {volume.case_id} are of floating-point numbers")
                values = values.float()
            if volume.images.shape != (layout.n_channels, *layout.shapes[case]):
                raise BratsError(f"{volume.case_id}: a volume of {volume.images.shape}; this is a bug")
            first = int(layout.starts[case])
            labels[first : first + volume.labels.size] = _flat(volume.labels, device)
            first *= layout.n_channels
            values[first : first + volume.images.size] = _flat(volume.images, device)
            numbers[case] = volume.numbers
            missing.discard(volume.case_id)
        if missing:
            raise BratsError(f"{len(missing)} of {len(layout.index)} training cases did not come; this is a bug")
        return cls(layout=layout, values=values, labels=labels, numbers=numbers)

    @property
    def n_bytes(self) -> int:
        return self.layout.n_bytes(self.values.element_size())

    def gather(
        self, windows: Tensor, numbers: Tensor, size: tuple[int, int], context: int = 0
    ) -> tuple[Tensor, Tensor]:
        """The slices that lie in these windows (B, 10), padded at the end of H and W to this size.

        Returns images (B, C, H, W), padded with each image's background, and labels (B, H, W), padded with 0.

        numbers: (B, 4, C)
        context: neighbours on either side, which are channels too; beyond the ends of a case, background
        """
        background = numbers[:, NUMBERS_BACKGROUND, :, None, None].to(self.values.dtype)
        return (self._copy if windows.device.type == "cpu" else self._index)(windows, background, size, context)

    def _index(
        self, windows: Tensor, background: Tensor, size: tuple[int, int], context: int
    ) -> tuple[Tensor, Tensor]:
        """Gather all voxels at once, by where they lie: work of the device alone."""
        image, channel, row, column, label, height, width, *along = (
            windows[:, number, None, None] for number in range(windows.shape[1])
        )
        down = torch.arange(size[0], device=windows.device)[:, None]
        across = torch.arange(size[1], device=windows.device)
        inside = (down < height) & (across < width)
        at = (down * row + across * column) * inside  # outside, any voxel of the slice: it is overwritten
        labels = self.labels[label + at] * inside
        channels = torch.arange(self.layout.n_channels, device=windows.device)[:, None]
        distances, inside = channels * channel, inside[:, None]  # (B, M, 1)
        if context:
            steps = torch.arange(-context, context + 1, device=windows.device)
            distance, before, after = along
            here = (-steps <= before) & (steps <= after)  # (B, 1, D)
            distances = (distances + steps * distance * here).flatten(1)[..., None]
            inside = inside & here.repeat(1, self.layout.n_channels, 1).flatten(1)[..., None, None]
        images = self.values[(image + at)[:, None] + distances[..., None]]
        return torch.where(inside, images, background), labels

    def _copy(
        self, windows: Tensor, background: Tensor, size: tuple[int, int], context: int
    ) -> tuple[Tensor, Tensor]:
        """Copy slice by slice, which takes a CPU an eighth of the time."""
        n_modalities = self.layout.n_channels
        images = background.expand(-1, -1, *size).contiguous()
        by_modality = images.unflatten(1, (n_modalities, -1))
        labels = torch.zeros(len(windows), *size, dtype=torch.uint8)
        for position, window in enumerate(windows.tolist()):
            image, channel, row, column, label, height, width, along, before, after = window
            first, last = -min(context, before), min(context, after)
            by_modality[position, :, context + first : context + last + 1, :height, :width] = (
                self.values.as_strided(
                    (n_modalities, last - first + 1, height, width),
                    (channel, along, row, column),
                    image + first * along,
                )
            )
            labels[position, :height, :width] = self.labels.as_strided((height, width), (row, column), label)
        return images, labels


def _flat(array: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.tensor(array.reshape(-1)).to(device)
