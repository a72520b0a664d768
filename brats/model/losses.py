"""Losses by name: what training minimises.

Axes: `B` batch, `R` region (WT, TC, ET), `H W` slice axes.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from brats.labels import REGIONS

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits and region targets, both (B, R, H, W), to a float32 scalar, the mean over the batch."""

DICE_SMOOTH = 1.0  # in voxels; keeps the Dice of a batch without the region defined and its gradient small


def region_targets(labels: Tensor) -> Tensor:
    """Region masks (B, R, H, W) float32 of a label map (B, H, W)."""
    return torch.stack([_any_of(labels, region.labels) for region in REGIONS.values()], dim=1).float()


def _any_of(labels: Tensor, wanted: tuple[int, ...]) -> Tensor:
    mask = labels == wanted[0]
    for label in wanted[1:]:
        mask = mask | (labels == label)
    return mask


def bce_dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy plus one minus the mean soft Dice of the regions; a float32 scalar.

    The Dice of a region is taken over the whole batch. Dice alone has no gradient where the batch has no tumour
    and the prediction is empty, and hardly any for false positives there; the cross-entropy sees every pixel.
    """
    logits = logits.float()
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, targets)
    probabilities = torch.sigmoid(logits)
    voxels = (0, 2, 3)
    overlap = (probabilities * targets).sum(voxels)
    total = probabilities.sum(voxels) + targets.sum(voxels)
    dice = (2 * overlap + DICE_SMOOTH) / (total + DICE_SMOOTH)
    return cross_entropy + 1 - dice.mean()


LOSSES: dict[str, Loss] = {"bce-dice": bce_dice_loss}
