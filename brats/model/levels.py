"""The whole prediction of a case by a model: its label map, and the probabilities behind it in levels.

Axes: `Z H W` slices of a crop, `R` region (of `REGIONS`; or WT alone), `S` slice of the source file.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from brats.data.case import Case
from brats.data.segmented_case import N_LABELS, N_LEVELS, LevelCounts, SegmentedCase
from brats.model.ensemble import EnsembleSegmenter
from brats.model.inference import Segmenter, decoded


@torch.inference_mode()
def segment(
    segmenter: Segmenter | EnsembleSegmenter, case: Case, batch_size: int, *, keep_levels: bool = False
) -> SegmentedCase:
    """Segment a case. Raises CaseError naming the modality that the case lacks."""
    labels, probabilities = decoded(segmenter, case, batch_size)
    device = probabilities.device
    levels = quantise(probabilities)
    reference = torch.zeros_like(labels) if case.labels is None else torch.from_numpy(case.labels).to(device)
    brain = torch.from_numpy(brain_mask(case, segmenter.modalities)).to(device)
    axis, forwards = case.slice_axis
    counts = count_levels(levels, predicted=labels, reference=reference, brain=brain, slice_axis=axis)
    return SegmentedCase(
        labels=labels.cpu().numpy(),
        regions=segmenter.regions,
        counts=counts if forwards else backwards(counts),
        levels=levels.cpu().numpy() if keep_levels else None,
    )


def quantise(probabilities: Tensor) -> Tensor:
    """The levels of probabilities, of their shape, uint8: 0 is 0, 255 is 1."""
    return (probabilities * (N_LEVELS - 1)).round_().to(torch.uint8)


def brain_mask(case: Case, modalities: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Where any of these modalities is not background, (Z, H, W)."""
    masks = [case.intensities[name].is_brain(case.images[name]) for name in modalities]
    brain: npt.NDArray[np.bool_] = np.logical_or.reduce(masks)
    return brain


def count_levels(
    levels: Tensor, *, predicted: Tensor, reference: Tensor, brain: Tensor, slice_axis: int
) -> LevelCounts:
    """Count the voxels of a case.

    levels:     (Z, R, H, W) uint8
    predicted, reference: labels (Z, H, W) uint8
    brain:      (Z, H, W) bool
    slice_axis: axis of Z H W along which the source file has its slices, in the order of the crop
    """
    n_slices = predicted.shape[slice_axis]
    numbers = torch.arange(n_slices, dtype=torch.int32, device=levels.device)
    numbers = numbers.reshape([-1 if axis == slice_axis else 1 for axis in range(3)])
    labels = brain.to(torch.uint8) * N_LABELS**2 + reference * N_LABELS + predicted
    first = (numbers * (2 * N_LABELS**2) + labels) * N_LEVELS
    shape = (n_slices, 2, N_LABELS, N_LABELS, N_LEVELS)
    by_labels, by_slice = [], []
    for of_region in levels.unbind(1):  # the bins of one region fit in a cache
        counts = torch.bincount((first + of_region).flatten(), minlength=math.prod(shape)).reshape(shape)
        by_labels.append(counts.sum(0))
        by_slice.append(counts.sum((1, 2, 3)))
    return LevelCounts(by_labels=torch.stack(by_labels).cpu().numpy(), by_slice=torch.stack(by_slice).cpu().numpy())


def backwards(counts: LevelCounts) -> LevelCounts:
    """The same counts, of slices in the opposite order."""
    return LevelCounts(by_labels=counts.by_labels, by_slice=counts.by_slice[:, ::-1])
