"""From a cropped case to its label map, slice batch by slice batch.

Axes: `Z H W` slices of a crop, `B` slices of a batch, `C` modality, `R` region.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from brats.config import Precision
from brats.data.preprocess import Case
from brats.data.slices import common_dtype, padded_size
from brats.labels import ED, ET, NCR, Labels
from brats.model.precision import autocast
from brats.model.unet import normalise


@torch.inference_mode()
def predict_logits(
    network: nn.Module,
    case: Case,
    *,
    modalities: Sequence[str],
    divisor: int,
    batch_size: int,
    device: torch.device,
    precision: Precision,
) -> Iterator[Tensor]:
    """The logits (B, R, H, W) of a case in float32, slice batch by slice batch, by a network in evaluation mode.

    Raises CaseError naming the modality that the case lacks.
    """
    height, width = case.box.shape[:2]
    for slices in normalised_slices(case, modalities, divisor=divisor, batch_size=batch_size, device=device):
        with autocast(precision, device):
            logits = network(slices)
        yield logits.float()[:, :, :height, :width]


def normalised_slices(
    case: Case, modalities: Sequence[str], *, divisor: int, batch_size: int, device: torch.device
) -> Iterator[Tensor]:
    """The network's input (B, C, H, W) float32, padded at the end of H and W with background to the divisor.

    Raises CaseError naming the modality that the case lacks.
    """
    wanted = case.only(modalities)
    offset, scale, background = (column.to(device) for column in _intensity_columns(case, modalities))
    for stored in _stacked(wanted, divisor, batch_size):
        rows = (len(stored), -1)
        yield normalise(
            stored.to(device, non_blocking=True),
            offset.expand(rows),
            scale.expand(rows),
            background.expand(rows),
        )


def predict_labels(
    network: nn.Module,
    case: Case,
    *,
    modalities: Sequence[str],
    thresholds: Sequence[float],
    divisor: int,
    batch_size: int,
    device: torch.device,
    precision: Precision,
) -> Labels:
    """The label map (Z, H, W) of a case; arguments and errors as of `predict_logits`."""
    batches = predict_logits(
        network,
        case,
        modalities=modalities,
        divisor=divisor,
        batch_size=batch_size,
        device=device,
        precision=precision,
    )
    labels: Labels = torch.cat([threshold_logits(logits, thresholds) for logits in batches]).cpu().numpy()
    return labels


def threshold_logits(logits: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Labels (B, H, W) uint8 of logits (B, R, H, W): a region is where its probability exceeds its threshold."""
    limits = [math.log(threshold / (1 - threshold)) for threshold in thresholds]
    return label_map(logits > torch.tensor(limits, device=logits.device).reshape(1, -1, 1, 1))


def label_map(regions: Tensor) -> Tensor:
    """Labels (B, H, W) uint8 of region masks (B, R, H, W): ED where WT, then NCR where TC, then ET."""
    wt, tc, et = regions.to(torch.uint8).unbind(1)
    # Arithmetic instead of masks: it takes a tenth of the time on CPUs.
    outside_et = tc * NCR + (1 - tc) * wt * ED
    return et * ET + (1 - et) * outside_et


def _stacked(case: Case, divisor: int, batch_size: int) -> Iterator[Tensor]:
    """The images of a case (B, C, H, W), padded with each image's background to multiples of the divisor."""
    images = list(case.images.values())
    n_slices, height, width = images[0].shape
    dtype = common_dtype({image.dtype.str for image in images})
    size = padded_size([(height, width)], divisor)
    for first in range(0, n_slices, batch_size):
        batch = slice(first, first + batch_size)
        stacked = np.empty((len(images[0][batch]), len(images), *size), dtype)
        for channel, (name, image) in enumerate(case.images.items()):
            stacked[:, channel, height:] = stacked[:, channel, :, width:] = case.intensities[name].background
            stacked[:, channel, :height, :width] = image[batch]
        yield torch.from_numpy(stacked)


def _intensity_columns(case: Case, modalities: Sequence[str]) -> list[Tensor]:
    items = [case.intensities[name] for name in modalities]
    pairs = [item.stored_offset_scale() for item in items]
    columns = [
        [offset for offset, _ in pairs],
        [scale for _, scale in pairs],
        [item.background for item in items],
    ]
    return [torch.tensor([column], dtype=torch.float32) for column in columns]
