"""Validation: loss and 3-D Dice of a network on whole cases.

Axes: `B` slices of a batch, `R` region (WT, TC, ET), `Z H W` slices of a crop.

Cases are read here, by the training process itself, and not by Ray Data: a rank scores whole cases, so each has
just one reader, and which rank scores which case must not depend on a stream.
"""

from collections.abc import Sequence

import torch

from brats.data.slices import open_slices
from brats.labels import REGIONS
from brats.model.distributed import Worker, all_reduce_sum
from brats.model.history import dice_column
from brats.model.inference import Segmenter, threshold_logits
from brats.model.inputs import case_targets
from brats.model.losses import Loss, region_targets

BATCH_SIZE = 16


def validate(segmenter: Segmenter, loss: Loss, worker: Worker, paths: Sequence[str]) -> dict[str, float]:
    """Loss and 3-D Dice on whole cases, this rank's read here, averaged over the cases of all ranks."""
    segmenter.network.eval()
    sums = torch.zeros(4 + len(REGIONS), dtype=torch.float64)
    for path in paths:
        case_loss, dice, *counts = validate_case(segmenter, loss, path)
        sums += torch.tensor([1, case_loss, *counts, *dice], dtype=torch.float64)
    n_cases, loss_sum, n_correct, n_voxels, *dice = all_reduce_sum(sums.tolist(), worker)
    means = [value / n_cases for value in dice]
    per_region = {dice_column(region): mean for region, mean in zip(REGIONS, means, strict=True)}
    return {
        "val_loss": loss_sum / n_cases,
        "val_dice": sum(means) / len(means),
        **per_region,
        "val_accuracy": n_correct / n_voxels,
    }


def validate_case(segmenter: Segmenter, loss: Loss, path: str) -> tuple[float, list[float], int, int]:
    """Loss, 3-D Dice of WT, TC and ET, correct voxels and voxels of one prepared case, inside the crop.

    Its slices are taken as one batch.

    A loss slice batch by slice batch would be ruled by the batches without tumour, whose soft Dice is next to 0.
    The Dice is that of the written label map, as `score.metrics` has it: 1 where both masks are empty. Expects the
    network in evaluation mode.
    """
    case = open_slices(path).read_case(segmenter.inputs.modalities)
    assert case.labels is not None  # only labelled cases are split
    logits = torch.cat(list(segmenter.logits(case, BATCH_SIZE)))
    targets = case_targets(case.labels, segmenter.device)
    predicted = region_targets(threshold_logits(logits, segmenter.thresholds))
    overlap = (predicted * targets).sum((0, 2, 3), dtype=torch.float64).tolist()
    total = (predicted + targets).sum((0, 2, 3), dtype=torch.float64).tolist()
    dice = [2 * both / either if either else 1.0 for both, either in zip(overlap, total, strict=True)]
    n_correct = int((predicted == targets).all(dim=1).sum())  # labels are equal where all regions are
    return loss(logits, targets).item(), dice, n_correct, predicted[:, 0].numel()
