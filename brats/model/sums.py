"""Sums over training steps, kept on the device until somebody looks at them.

Axes: `B` batch, `K` channel of the network, `H W` slice axes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from brats.labels import REGIONS
from brats.model.decoding import label_map
from brats.model.losses import region_targets
from brats.model.outputs import OutputSpec


@dataclass(frozen=True, kw_only=True)
class StepSums:
    """What some steps of one rank add up to.

    loss_sum:       of the losses of the slices
    n_slices:       trained on
    n_voxels:       of these slices, the padding included
    n_correct:      voxels whose predicted label is right, as of `OutputSpec.predictable`
    overlap, total: of each of `REGIONS`, voxels in both masks, and those of one plus those of the other; the Dice
                    is `2 * overlap / total`. They say nothing of a region that the network does not predict
    n_bad:          steps whose gradient had no finite norm
    """

    loss_sum: float
    n_slices: int
    n_voxels: int
    n_correct: int
    overlap: tuple[int, ...]
    total: tuple[int, ...]
    n_bad: int


@torch.no_grad()
def outputs_of(loss: Tensor, logits: Tensor, labels: Tensor, outputs: OutputSpec) -> Tensor:
    """What a micro-batch adds to the sums: its mean loss, logits (B, K, H, W) and labels (B, H, W), as float64."""
    predicted = label_map(outputs.masks(logits))
    masks, targets = region_targets(predicted), region_targets(labels)
    voxels = (0, 2, 3)
    overlap = (masks * targets).sum(voxels, dtype=torch.float64)
    total = (masks + targets).sum(voxels, dtype=torch.float64)
    n_correct = (predicted == outputs.predictable(labels)).sum()
    first = torch.stack([loss.double() * len(labels), torch.zeros_like(loss).double(), n_correct.double()])
    return torch.cat([first, overlap, total])


class DeviceSums:
    """Running sums: added to inside a step, which never waits for them, and read outside."""

    def __init__(self, device: torch.device) -> None:
        # As of `outputs_of`; at 1, gradients that are not finite. float64 counts voxels exactly up to 2**53.
        self._sums = torch.zeros(3 + 2 * len(REGIONS), dtype=torch.float64, device=device)
        self._n_slices = self._n_voxels = 0

    def add(self, outputs: Tensor) -> None:
        """Add what `outputs_of` found."""
        self._sums += outputs

    def add_norm(self, norm: Tensor) -> None:
        """Count a step whose gradient has this norm."""
        self._sums[1] += ~torch.isfinite(norm)

    def count(self, n_slices: int, slice_voxels: int) -> None:
        """Count the slices of a step, each of so many voxels; the host knows them."""
        self._n_slices += n_slices
        self._n_voxels += n_slices * slice_voxels

    def read(self) -> StepSums:
        """The sums since the last reading; waits for the device."""
        loss_sum, n_bad, n_correct, *regions = self._sums.tolist()
        self._sums.zero_()
        found = StepSums(
            loss_sum=loss_sum,
            n_slices=self._n_slices,
            n_voxels=self._n_voxels,
            n_correct=int(n_correct),
            overlap=tuple(map(int, regions[: len(REGIONS)])),
            total=tuple(map(int, regions[len(REGIONS) :])),
            n_bad=int(n_bad),
        )
        self._n_slices = self._n_voxels = 0
        return found
