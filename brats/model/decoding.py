"""From region probabilities to a label map: thresholds, and rules for what is too small to be believed.

Axes: `Z H W` slices of a crop, `B` slices of a batch, `R` region (of `REGIONS`; or WT alone).
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from brats.labels import ET, NCR, REGIONS, Labels, bounding_box, region_index, region_mask
from brats.model.outputs import EQUAL_ODDS

# NVIDIA's entries to BraTS 2021 and 2022 (DeepLearningExamples, nnUNet): an ET of fewer than 73 voxels, of 1 mm3
# each, whose mean probability is below .9 becomes NCR.
SMALL_ET_MM3 = 73.0
SURE = 0.9
# Of the false components that models of few steps find in phantoms nearly all are smaller, and less sure: see
# benchmarks/RESULTS.md. A lesion-wise score counts each of them as much as a whole tumour.
SMALL_WT_MM3 = 200.0
FEWEST_CASES = 10  # below, tuning looks only at whether a rule does harm
FORMER_RULE = "smallest_wt_mm3"  # removed components however sure they were

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How the region probabilities of a model become a label map.

    thresholds:      what the probability of WT, TC and ET must exceed; a model of WT alone has the first
    smallest_et_mm3: an ET of less than this in the whole case becomes NCR, where its mean probability is below SURE
    doubtful_wt_mm3: connected components of tumour of less than this are removed, where their mean probability of
                     WT is below SURE
    n_tuned_on:      validation cases that the numbers were chosen on, or below FEWEST_CASES that the rules alone
                     were checked on; 0 where they are defaults
    """

    thresholds: tuple[float, ...] = (EQUAL_ODDS,) * len(REGIONS)
    smallest_et_mm3: float = 0.0
    doubtful_wt_mm3: float = 0.0
    n_tuned_on: int = 0

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`, also after a passage through JSON text. Raises ValueError."""
        known = {name: item for name, item in value.items() if name != FORMER_RULE}
        if value.get(FORMER_RULE):
            raise ValueError(
                f"{FORMER_RULE} {value[FORMER_RULE]}: a rule of an earlier version; train with --out elsewhere, "
                "or set it to 0"
            )
        decoding = cls(**{**known, "thresholds": tuple(value["thresholds"])})
        n = len(REGIONS)
        if len(decoding.thresholds) != n or not all(0 < threshold < 1 for threshold in decoding.thresholds):
            raise ValueError(f"thresholds {list(decoding.thresholds)} are not {n} numbers between 0 and 1")
        for name in ("smallest_et_mm3", "doubtful_wt_mm3", "n_tuned_on"):
            if not 0 <= getattr(decoding, name) < math.inf:
                raise ValueError(f"{name} {getattr(decoding, name)} is not 0 or more")
        return decoding

    def __str__(self) -> str:
        return f"{self.rules} ({self.origin})"

    @property
    def origin(self) -> str:
        """What the numbers rest on, in words."""
        usual = (self.smallest_et_mm3, self.doubtful_wt_mm3) in itertools.product(
            (0, SMALL_ET_MM3), (0, SMALL_WT_MM3)
        )
        chosen = self.thresholds != Decoding().thresholds or not usual
        if not self.n_tuned_on:
            return "of several models, one or more of them not tuned" if chosen else "defaults"
        cases = "1 validation case" if self.n_tuned_on == 1 else f"{self.n_tuned_on} validation cases"
        if self.n_tuned_on >= FEWEST_CASES:
            return f"chosen on {cases}"
        if chosen:
            return f"of several models, chosen or checked on {cases} or more"
        return f"defaults, without rules that cost Dice on {cases}"

    @property
    def rules(self) -> str:
        """What is applied, in words."""
        named = zip(REGIONS, self.thresholds, strict=True)
        rules = [f"thresholds {', '.join(f'{region} {threshold:g}' for region, threshold in named)}"]
        if self.smallest_et_mm3:
            rules.append(f"ET below {self.smallest_et_mm3:g} mm3 and a mean probability of {SURE:g} is NCR")
        if self.doubtful_wt_mm3:
            doubtful = f"below {self.doubtful_wt_mm3:g} mm3 and a mean probability of {SURE:g}"
            rules.append(f"components of WT {doubtful} are removed")
        return "; ".join(rules)


def mean_decoding(each: Sequence[Decoding]) -> Decoding:
    """The decoding for the mean of the probabilities of several models: their mean thresholds, and of each rule the
    smallest volume, so that no model's tumour is removed which its own rule would leave.
    """
    return Decoding(
        thresholds=tuple(map(fmean, zip(*(one.thresholds for one in each), strict=True))),
        smallest_et_mm3=min(one.smallest_et_mm3 for one in each),
        doubtful_wt_mm3=min(one.doubtful_wt_mm3 for one in each),
        n_tuned_on=min(one.n_tuned_on for one in each),
    )


def decode(probabilities: Tensor, decoding: Decoding, voxel_mm3: float) -> Tensor:
    """Labels (Z, H, W) uint8 of the region probabilities (Z, R, H, W) of a case, on their device."""
    n_regions = probabilities.shape[1]
    # Made on the device, they would wait for all that is under way there.
    limits = torch.tensor(decoding.thresholds[:n_regions]).to(probabilities.device, non_blocking=True)
    labels = label_map(probabilities > limits.reshape(1, -1, 1, 1)).contiguous()
    et = region_index("ET")
    if decoding.smallest_et_mm3 and et < n_regions:
        labels = _without_doubtful_et(labels, probabilities[:, et], decoding.smallest_et_mm3 / voxel_mm3)
    if decoding.doubtful_wt_mm3:
        found = labels.cpu().numpy()
        box = bounding_box(found != 0)  # the rest of a crop is most of it
        inside = probabilities[:, region_index("WT")][box].cpu().numpy()
        found[box] = without_doubtful_components(found[box], inside, decoding.doubtful_wt_mm3 / voxel_mm3)
        labels = torch.from_numpy(found).to(labels.device)
    return labels


def label_map(regions: Tensor) -> Tensor:
    """Labels (B, H, W) uint8 of region masks (B, R, H, W): the label of each region, a later one over the earlier.

    So it is ED where WT, then NCR where TC, then ET where ET. Masks of WT alone are one channel.
    """
    labels = torch.zeros_like(regions[:, 0], dtype=torch.uint8)
    for mask, region in zip(regions.to(torch.uint8).unbind(1), REGIONS.values(), strict=False):
        # Arithmetic instead of masks: it takes a tenth of the time on CPUs.
        labels = mask * region.label + (1 - mask) * labels
    return labels


def _without_doubtful_et(labels: Tensor, probability: Tensor, n_voxels: float) -> Tensor:
    """The labels (Z, H, W) with their ET as NCR, where it has fewer voxels than this and is not sure.

    probability: of ET, (Z, H, W). A GPU is not waited for.
    """
    et = labels == ET
    n_et = et.sum()
    doubtful = (n_et < n_voxels) & ((probability * et).sum(dtype=torch.float64) < SURE * n_et)
    return torch.where(et & doubtful, NCR, labels)


def without_doubtful_components(labels: Labels, probability: Floats, n_voxels: float) -> Labels:
    """The labels (Z, H, W) without the components of WT of fewer voxels than this that are not sure.

    probability: of WT, (Z, H, W)

    Voxels that touch at a corner are connected.
    """
    components, n = ndimage.label(region_mask(labels, "WT"), structure=np.ones((3, 3, 3)))
    tumour = components != 0
    numbers = components[tumour]
    sizes = np.bincount(numbers, minlength=n + 1)
    sums = np.bincount(numbers, weights=probability[tumour], minlength=n + 1)
    kept = (sizes >= n_voxels) | (sums >= SURE * sizes)
    return np.where(kept[components], labels, 0).astype(labels.dtype)
