"""Sums over training steps, kept on the device until somebody looks at them.

Axes: `B` batch, `R` region (WT, TC, ET), `H W` slice axes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from brats.labels import REGIONS
from brats.model.inference import label_map
from brats.model.losses import region_targets


@dataclass(frozen=True, kw_only=True)
class StepSums:
    """What some steps of one rank add up to.

    loss_sum:       of the losses of the slices
    n_slices:       trained on
    n_voxels:       of these slices, the padding included
    n_correct:      voxels whose predicted label is that of the reference
    overlap, total: of each region, voxels in both masks, and those of one plus those of the other; the Dice is
                    `2 * overlap / total`
    n_bad:          steps whose gradient had no finite norm
    """

    loss_sum: float
    n_slices: int
    n_voxels: int
    n_correct: int
    overlap: tuple[int, ...]
    total: tuple[int, ...]
    n_bad: int


class DeviceSums:
    """Running sums: added to inside a step, which never waits for them, and read outside."""

    def __init__(self, device: torch.device) -> None:
        # float64 counts voxels exactly up to 2**53. Loss, gradients that are not finite, correct voxels, regions.
        self._sums = torch.zeros(3 + 2 * len(REGIONS), dtype=torch.float64, device=device)
        self._n_slices = self._n_voxels = 0

    def add_outputs(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a micro-batch: its mean loss, logits (B, R, H, W) and labels (B, H, W)."""
        with torch.no_grad():
            predicted = label_map(logits > 0)
            masks, targets = region_targets(predicted), region_targets(labels)
            voxels = (0, 2, 3)
            overlap, total = (masks * targets).sum(voxels), (masks + targets).sum(voxels)
            self._sums[0] += loss.detach() * len(labels)
            self._sums[2] += (predicted == labels).sum()
            self._sums[3 : 3 + len(REGIONS)] += overlap
            self._sums[3 + len(REGIONS) :] += total

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
