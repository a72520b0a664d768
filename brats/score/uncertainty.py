"""Uncertainty metrics of a predicted case: the figures of QU-BraTS 2020, and calibration.

Axes: `L` level of probability, `T` threshold of the uncertainty, `S` slice of the source file.

The uncertainty of a voxel is the binary entropy of the probability of a region: 0 bits where it is 0 or 1, 1 bit
where it is .5. A probability p is known by its level round(255 p), so counts of voxels by level suffice.

Sources: Mehta et al., "QU-BraTS: MICCAI BraTS 2020 Challenge on Quantifying Uncertainty in Brain Tumor
Segmentation", MELBA 2022, and its program (github.com/RagMeh11/QU-BraTS); Guo et al., "On Calibration of Modern
Neural Networks", 2017.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from brats.data.segmented_case import N_LEVELS, Counts, SegmentedCase
from brats.labels import region_mask
from brats.score.metrics import LABELS

Floats = npt.NDArray[np.float64]

PROBABILITY: Floats = np.arange(N_LEVELS) / (N_LEVELS - 1)  # of each level
N_STEPS = 40  # thresholds of QU-BraTS: 0, 2.5, ..., 100
TAU: Floats = np.linspace(0, 100, N_STEPS + 1)
N_CALIBRATION_BINS = 15  # as Guo et al. take


def _entropy_bits(probability: Floats) -> Floats:
    inside = probability[1:-1]
    bits = np.zeros_like(probability)
    bits[1:-1] = -inside * np.log2(inside) - (1 - inside) * np.log2(1 - inside)
    return bits


ENTROPY_BITS: Floats = _entropy_bits(PROBABILITY)  # of each level
_IS_CERTAIN: npt.NDArray[np.bool_] = TAU[:, None] >= 100 * ENTROPY_BITS  # (T, L)


@dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """What is known of the uncertainty of one region of a case.

    levels:    (2, 2, 2, L), voxels by whether they are brain, in the reference, and predicted
    by_slice:  (S, L), voxels by slice
    is_scored: whether the case has a reference
    """

    levels: Counts
    by_slice: Counts
    is_scored: bool

    @property
    def n_predicted(self) -> int:
        return int(self.levels[:, :, 1].sum())

    @property
    def slice_entropy_bits(self) -> Floats:
        """Entropy summed over the voxels of each slice, (S,)."""
        bits: Floats = self.by_slice @ ENTROPY_BITS
        return bits


@dataclass(frozen=True)
class Curves:
    """What is left, and what is lost, where voxels of an uncertainty above TAU are set aside; each (T,).

    dice: of the voxels left; both masks empty 1
    ftp:  share of the true positives in the brain that are set aside; 0 where there are none
    ftn:  the same of the true negatives
    """

    dice: Floats
    ftp: Floats
    ftn: Floats


def region_uncertainties(found: SegmentedCase, *, is_scored: bool) -> dict[str, Uncertainty]:
    """The uncertainty of each region that the model tells apart, by name."""
    return {
        region: Uncertainty(levels=merge_labels(by_labels, region), by_slice=by_slice, is_scored=is_scored)
        for region, by_labels, by_slice in zip(
            found.regions, found.counts.by_labels, found.counts.by_slice, strict=True
        )
    }


def merge_labels(by_labels: Counts, region: str) -> Counts:
    """Voxels (2, 2, 2, L) by membership of a region, from voxels (2, 4, 4, L) by label; see `Uncertainty`."""
    inside = region_mask(LABELS, region).astype(int)
    merge = np.stack([1 - inside, inside])  # (2, 4)
    merged: Counts = np.einsum("ra,pb,iabl->irpl", merge, merge, by_labels)
    return merged


def curves(levels: Counts) -> Curves:
    """The curves of QU-BraTS from voxels (2, 2, 2, L), see `Uncertainty`."""
    everywhere = levels.sum(axis=0)
    tp = _left(everywhere[1, 1])
    total = 2 * tp + _left(everywhere[0, 1]) + _left(everywhere[1, 0])
    dice = np.divide(2 * tp, total, out=np.ones(TAU.size), where=total > 0)
    return Curves(dice, _share_set_aside(levels[1, 1, 1]), _share_set_aside(levels[1, 0, 0]))


def _left(counts: Counts) -> Counts:
    """How many voxels (T,) of counts (L,) are no more uncertain than each threshold."""
    left: Counts = _IS_CERTAIN @ counts
    return left


def _share_set_aside(counts: Counts) -> Floats:
    total = counts.sum()
    shares: Floats = 1 - _left(counts) / total if total else np.zeros(TAU.size)
    return shares


def area(values: Floats) -> float:
    """Area under a curve (T,) over TAU, as a share of its width, by the trapezoidal rule."""
    return float(np.trapezoid(values, TAU) / TAU[-1])


def calibration_error(levels: Counts) -> float | None:
    """Expected calibration error of the probabilities of a region over the brain; None without a brain.

    levels: voxels (2, 2, 2, L), see `Uncertainty`
    """
    of_brain = levels[1].sum(axis=1)  # (2, L): in the reference or not
    bins = np.minimum(np.arange(N_LEVELS) * N_CALIBRATION_BINS // (N_LEVELS - 1), N_CALIBRATION_BINS - 1)
    expected = np.bincount(bins, of_brain.sum(axis=0) * PROBABILITY, N_CALIBRATION_BINS)
    found = np.bincount(bins, of_brain[1], N_CALIBRATION_BINS)
    n_voxels = int(of_brain.sum())
    return float(np.abs(expected - found).sum() / n_voxels) if n_voxels else None


def uncertainty_row(found: Uncertainty) -> dict[str, Any]:
    """The columns of `metrics/uncertainty.parquet` from `n_predicted_voxels` on."""
    bits = float(found.slice_entropy_bits.sum())
    row: dict[str, Any] = {
        "n_predicted_voxels": found.n_predicted,
        "entropy_bits": bits,
        "entropy_per_voxel": bits / found.n_predicted if found.n_predicted else None,
    }
    if not found.is_scored:
        return {**row, **dict.fromkeys(("dice_auc", "ftp_auc", "ftn_auc", "score", "ece"))}
    each = curves(found.levels)
    dice, ftp, ftn = area(each.dice), area(each.ftp), area(each.ftn)
    return {
        **row,
        "dice_auc": dice,
        "ftp_auc": ftp,
        "ftn_auc": ftn,
        "score": (dice + (1 - ftp) + (1 - ftn)) / 3,
        "ece": calibration_error(found.levels),
    }


def curve_rows(found: Uncertainty) -> list[dict[str, Any]]:
    """The columns of `metrics/uncertainty_curves.parquet` from `threshold` on; no rows without a reference."""
    if not found.is_scored:
        return []
    each = curves(found.levels)
    columns = zip(*(values.tolist() for values in (TAU, each.dice, each.ftp, each.ftn)), strict=True)
    return [{"threshold": tau, "dice": dice, "ftp": ftp, "ftn": ftn} for tau, dice, ftp, ftn in columns]
