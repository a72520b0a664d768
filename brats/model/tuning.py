"""Chooses how probabilities become label maps, on validation cases.

Axes: `Z H W` slices of a crop, `R` region (of `REGIONS`; or WT alone), `N` case.

What is chosen by a few cases may do harm on others, so each number stays what it was unless another one is better
beyond the noise between the cases; see `choose_decoding`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from brats.data.case import Case
from brats.labels import ET, NCR, REGIONS, Labels, bounding_box, region_index, region_mask
from brats.model.decoding import (
    FEWEST_CASES,
    SMALL_ET_MM3,
    SMALL_WT_MM3,
    SURE,
    Decoding,
    without_doubtful_components,
)
from brats.model.inference import Segmenter

# Of those that are equally good the nearest to .5 is taken.
THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)  # NVIDIA's of 2022, .45 .4 .4, are among them
ET_MM3 = (0.0, SMALL_ET_MM3, 200.0, 500.0)
WT_MM3 = (0.0, 50.0, SMALL_WT_MM3, 500.0)
UNTUNED = Decoding(smallest_et_mm3=SMALL_ET_MM3, doubtful_wt_mm3=SMALL_WT_MM3)

LEAST_GAIN = 0.002  # in mean Dice; written masks of two machines may differ by as much
N_ERRORS = 2.0  # standard errors of the mean difference between the cases

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TuningCase:
    """What the Dice of a validation case under any candidate is computed from, exactly.

    bins:      (R, Z, H, W) uint8: how many of THRESHOLDS a probability exceeds, in the box where any of them is
    reference: labels (Z, H, W) in the same box
    n_missed:  (R,), voxels of each region of the reference beside the box
    et_sums:   (len(THRESHOLDS) + 1,), the sum of the probabilities of ET over its voxels of each bin; 0 of a model
               of WT alone
    wt:        the probabilities of WT where any bin is above 0, one behind the other
    voxel_mm3: volume of a voxel
    """

    bins: npt.NDArray[np.uint8]
    reference: Labels
    n_missed: tuple[int, ...]
    et_sums: Floats
    wt: npt.NDArray[np.float32]
    voxel_mm3: float


@torch.inference_mode()
def tuning_case(segmenter: Segmenter, case: Case, batch_size: int) -> TuningCase:
    """Segment a case that has a reference. Raises CaseError naming the modality that the case lacks."""
    assert case.labels is not None  # only labelled cases are split
    probabilities = segmenter.probabilities(case, batch_size).contiguous()
    limits = torch.tensor(THRESHOLDS, device=probabilities.device)
    bins = torch.bucketize(probabilities, limits, out_int32=True)
    found = bins.to(torch.uint8).movedim(1, 0).cpu().numpy()
    likely = np.any(found, axis=0)
    box = bounding_box(likely)
    reference = case.labels[box]
    return TuningCase(
        bins=found[(slice(None), *box)].copy(),
        reference=reference.copy(),
        n_missed=tuple(
            int(region_mask(case.labels, name).sum() - region_mask(reference, name).sum())
            for name in segmenter.regions
        ),
        et_sums=_et_sums(bins, probabilities),
        wt=probabilities[:, region_index("WT")].cpu().numpy()[likely],
        voxel_mm3=case.voxel_mm3,
    )


def _et_sums(bins: Tensor, probabilities: Tensor) -> Floats:
    """See `TuningCase`; of bins and probabilities (Z, R, H, W)."""
    et, n_bins = region_index("ET"), len(THRESHOLDS) + 1
    if et >= probabilities.shape[1]:
        return np.zeros(n_bins)
    weights = probabilities[:, et].double().flatten()
    sums: Floats = torch.bincount(bins[:, et].flatten(), weights=weights, minlength=n_bins).cpu().numpy()
    return sums


def choose_decoding(cases: Sequence[TuningCase], regions: Sequence[str]) -> Decoding:
    """The decoding for a model that tells these regions apart, from its validation cases.

    What is small and doubtful is treated as by UNTUNED, but for a rule that costs Dice here. With FEWEST_CASES or
    more, other numbers are tried one after the other: the volume of a small ET, the thresholds of ET, TC and WT,
    and the volume of a small component. Of those by which the mean Dice rises by LEAST_GAIN and by N_ERRORS
    standard errors over the number before it, the best is taken; where there is none, that number stays.
    """
    has_et = "ET" in regions
    chosen = replace(UNTUNED, n_tuned_on=len(cases))
    if not has_et:
        chosen = replace(chosen, smallest_et_mm3=0.0)
    chosen = _where_it_pays(cases, chosen, replace(chosen, smallest_et_mm3=0.0))
    chosen = _where_it_pays(cases, chosen, replace(chosen, doubtful_wt_mm3=0.0))
    if len(cases) < FEWEST_CASES:
        return chosen
    if has_et:
        sizes = [replace(chosen, smallest_et_mm3=size) for size in ET_MM3]
        chosen = _better(cases, sizes, chosen, [region_index("ET")])
    for region in reversed(range(len(regions))):  # the WT of a label map holds TC, and TC holds ET
        nearest_first = sorted(THRESHOLDS, key=lambda threshold: abs(threshold - 0.5))
        candidates = [_with_threshold(chosen, region, threshold) for threshold in nearest_first]
        chosen = _better(cases, candidates, chosen, [region])
    everything = list(range(len(regions)))
    return _better(cases, [replace(chosen, doubtful_wt_mm3=size) for size in WT_MM3], chosen, everything)


def _where_it_pays(cases: Sequence[TuningCase], present: Decoding, without: Decoding) -> Decoding:
    """The present decoding, or the one without one of its rules where that rule costs Dice."""
    costs = bool(cases) and dice(cases, without).mean() > dice(cases, present).mean()
    return without if costs else present


def _with_threshold(decoding: Decoding, region: int, threshold: float) -> Decoding:
    thresholds = list(decoding.thresholds)
    thresholds[region] = threshold
    return replace(decoding, thresholds=tuple(thresholds))


def _better(
    cases: Sequence[TuningCase], candidates: Sequence[Decoding], present: Decoding, regions: Sequence[int]
) -> Decoding:
    """The candidate of the highest mean Dice of these regions that is better than the present one beyond noise."""
    before = dice(cases, present)[:, regions].mean(axis=1)
    best, best_gain = present, 0.0
    for candidate in candidates:
        gain = dice(cases, candidate)[:, regions].mean(axis=1) - before
        if gain.mean() > best_gain and _is_beyond_noise(gain):
            best, best_gain = candidate, gain.mean()
    return best


def _is_beyond_noise(gain: Floats) -> bool:
    """Whether the Dice of cases rises by these differences (N,) beyond the noise between cases."""
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    return bool(gain.mean() >= max(LEAST_GAIN, N_ERRORS * error))


def dice(cases: Sequence[TuningCase], decoding: Decoding) -> Floats:
    """The 3-D Dice (N, R) of the written label maps: 1 where region and reference are empty."""
    return np.array([_case_dice(case, tuning_labels(case, decoding)) for case in cases])


def _case_dice(case: TuningCase, labels: Labels) -> list[float]:
    found = []
    for name, n_missed in zip(REGIONS, case.n_missed, strict=False):
        predicted, reference = region_mask(labels, name), region_mask(case.reference, name)
        total = int(predicted.sum() + reference.sum()) + n_missed
        found.append(2 * int((predicted & reference).sum()) / total if total else 1.0)
    return found


def tuning_labels(case: TuningCase, decoding: Decoding) -> Labels:
    """The label map (Z, H, W) of the box, as `decode` makes it of the probabilities."""
    labels = np.zeros_like(case.reference)
    steps = [THRESHOLDS.index(threshold) for threshold in decoding.thresholds]
    for bins, step, region in zip(case.bins, steps, REGIONS.values(), strict=False):
        labels[bins > step] = region.label
    et = labels == ET
    n_et, above = int(et.sum()), steps[region_index("ET")] + 1
    if n_et < decoding.smallest_et_mm3 / case.voxel_mm3 and case.et_sums[above:].sum() < SURE * n_et:
        labels[et] = NCR
    if decoding.doubtful_wt_mm3:
        probability = np.zeros(labels.shape, np.float32)
        probability[case.bins.any(axis=0)] = case.wt
        return without_doubtful_components(labels, probability, decoding.doubtful_wt_mm3 / case.voxel_mm3)
    return labels
