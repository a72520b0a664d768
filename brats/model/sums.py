"""Sums over training steps: what the figures of an epoch are made of, added up on the device.

Axes: `B` batch, `R` region (WT, TC, ET), `H W` slice axes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from brats.labels import REGIONS
from brats.model.bundle import EQUAL_ODDS
from brats.model.inference import threshold_logits
from brats.model.losses import region_targets


@dataclass(frozen=True, kw_only=True)
class StepSums:
    """Sums over the steps of a while, of one rank or of all.

    loss_sum:  of the losses of the slices
    n_voxels:  of the slices as the network sees them, augmented and padded
    n_correct: voxels whose label map, of thresholds 0.5, equals the reference
    overlap, total: of WT, TC and ET: 2 * overlap / total is the Dice over all voxels
    n_bad:     steps whose gradient had a norm that is not finite
    """

    loss_sum: float
    n_slices: int
    n_voxels: int
    n_correct: int
    overlap: tuple[float, ...]
    total: tuple[float, ...]
    n_bad: int


class SumsOnDevice:
    """`StepSums` in the making: adding does not wait for the device."""

    def __init__(self, device: torch.device) -> None:
        self._values = torch.zeros(5 + 2 * len(REGIONS), dtype=torch.float64, device=device)

    @torch.no_grad()
    def add_batch(self, logits: Tensor, targets: Tensor, loss: Tensor) -> None:
        """Add a micro-batch: logits and region targets (B, R, H, W), and its mean loss."""
        predicted = region_targets(threshold_logits(logits, EQUAL_ODDS))
        wrong = (predicted != targets).any(dim=1)  # labels are equal where all regions are
        voxels = (0, 2, 3)
        counts = torch.tensor([len(logits), wrong.numel(), wrong.numel()], dtype=torch.float64, device=wrong.device)
        counts[2] -= wrong.sum()
        sums = [(loss * len(logits)).reshape(1), counts, (predicted * targets).sum(voxels)]
        self._values[:-1] += torch.cat([*sums, (predicted + targets).sum(voxels)])

    def add_norm(self, norm: Tensor) -> None:
        """Add the gradient norm of a step."""
        self._values[-1] += ~torch.isfinite(norm)

    def read(self) -> StepSums:
        """Wait for the device; return the sums since the last reading, and start anew."""
        loss_sum, n_slices, n_voxels, n_correct, *rest = self._values.tolist()
        self._values.zero_()
        return StepSums(
            loss_sum=loss_sum,
            n_slices=int(n_slices),
            n_voxels=int(n_voxels),
            n_correct=int(n_correct),
            overlap=tuple(rest[: len(REGIONS)]),
            total=tuple(rest[len(REGIONS) : -1]),
            n_bad=int(rest[-1]),
        )
