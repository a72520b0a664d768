"""How good the network is on one validation case.

Axes: `B` slices of a batch, `R` region (WT, TC, ET), `Z H W` slices of a crop.
"""

from collections.abc import Sequence

import torch
from torch import nn

from brats.config import Precision
from brats.data.slices import open_slices
from brats.labels import REGIONS
from brats.model.inference import predict_logits, threshold_logits
from brats.model.losses import bce_dice_loss, region_targets
from brats.model.unet import DIVISOR

BATCH_SIZE = 16
THRESHOLDS = (0.5,) * len(REGIONS)


def validate_case(
    network: nn.Module, path: str, *, modalities: Sequence[str], device: torch.device, precision: Precision
) -> tuple[float, list[float]]:
    """Loss and 3-D Dice of WT, TC and ET of one prepared case, inside the crop, its slices taken as one batch.

    A loss slice batch by slice batch would be ruled by the batches without tumour, whose soft Dice is next to 0.
    The Dice is that of the written label map, as `score.metrics` has it: 1 where both masks are empty. Expects the
    network in evaluation mode.
    """
    case = open_slices(path).read_case(modalities)
    assert case.labels is not None  # only labelled cases are split
    batches = predict_logits(
        network,
        case,
        modalities=modalities,
        divisor=DIVISOR,
        batch_size=BATCH_SIZE,
        device=device,
        precision=precision,
    )
    logits = torch.cat(list(batches))
    targets = region_targets(torch.from_numpy(case.labels).to(device))
    predicted = region_targets(threshold_logits(logits, THRESHOLDS))
    overlap = (predicted * targets).sum((0, 2, 3), dtype=torch.float64).tolist()
    total = (predicted + targets).sum((0, 2, 3), dtype=torch.float64).tolist()
    dice = [2 * both / either if either else 1.0 for both, either in zip(overlap, total, strict=True)]
    return bce_dice_loss(logits, targets).item(), dice
