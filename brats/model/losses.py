"""Losses by name: what training minimises.

Axes: `B` batch, `K` channel of the network, `R` region (of `REGIONS`), `H W` slice axes.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional

from brats.config import LossName
from brats.labels import REGIONS

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits and targets, both (B, K, H, W), to a float32 scalar, the mean over the batch."""

DICE_SMOOTH = 1.0  # in voxels; keeps the Dice of a batch without the region defined and its gradient small


def region_targets(labels: Tensor, regions: Iterable[str] = REGIONS) -> Tensor:
    """Masks (B, R, H, W) float32 of these regions in a label map (B, H, W)."""
    return torch.stack([_any_of(labels, REGIONS[region].labels) for region in regions], dim=1).float()


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
    return cross_entropy + 1 - soft_dice(logits, targets)


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """One minus the mean soft Dice of the regions, over the whole batch; a float32 scalar.

    A batch without tumour in which none is found has no gradient.
    """
    return 1 - soft_dice(logits, targets)


def soft_dice(logits: Tensor, targets: Tensor) -> Tensor:
    """The Dice of sigmoids and targets, each channel taken over the whole batch, then their mean; float32."""
    probabilities = torch.sigmoid(logits.float())
    voxels = (0, 2, 3)
    overlap = (probabilities * targets).sum(voxels)
    total = probabilities.sum(voxels) + targets.sum(voxels)
    dice = (2 * overlap + DICE_SMOOTH) / (total + DICE_SMOOTH)
    return dice.mean()


def cross_entropy_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of exclusive classes, by a softmax over the channels; a float32 scalar."""
    return functional.cross_entropy(logits.float(), targets)


LOSSES: dict[LossName, Loss] = {
    "bce-dice": bce_dice_loss,
    "dice": dice_loss,
    "cross-entropy": cross_entropy_loss,
}
