"""Scores of a predicted label map against its reference: per case in 3-D, per slice, and the notebooks' way.

Axes: `X Y Z` voxel axes in any order, `S` slices along one of them, `L` labels 0 (background), NCR, ED, ET.

All overlaps come from one table: how many voxels have which label in the reference and which in the
prediction. Label maps may be crops of a volume in which everything outside is background in both.
"""

from typing import TypedDict

import numpy as np
import numpy.typing as npt

from brats.labels import REGIONS, TISSUES, Labels, region_mask
from brats.score.surface import Spacing, bounding_box, hd95_mm

LABELS: Labels = np.arange(1 + len(TISSUES), dtype=np.uint8)
DICE_SMOOTH = 1.0  # dice_coef(smooth=1.0) of the notebook cited in `notebook_metrics`

Counts = npt.NDArray[np.int64]
"""Numbers of voxels (..., L, L) by label in the reference, then by label in the prediction."""


class RegionMetrics(TypedDict):
    """Scores of one region of a case. None: the ratio is not defined."""

    dice: float
    hd95_mm: float
    iou: float
    sensitivity: float | None
    specificity: float | None
    precision: float | None
    accuracy: float
    reference_ml: float
    predicted_ml: float
    n_reference_voxels: int
    n_predicted_voxels: int


class SliceMetrics(TypedDict):
    """Scores of one region in one slice."""

    slice_index: int
    region: str
    dice: float
    n_reference_voxels: int
    n_predicted_voxels: int


class NotebookMetric(TypedDict):
    """A score by a notebook convention."""

    metric: str
    averaging: str
    value: float


def case_metrics(
    reference: Labels, predicted: Labels, spacing_mm: Spacing, n_outside: int = 0
) -> dict[str, RegionMetrics]:
    """Scores of a case in 3-D by region, from its label maps (X, Y, Z).

    n_outside: number of voxels of the full volume outside these arrays; all are true negatives.

    Dice and IoU: both masks empty 1, one empty 0. HD95: both empty 0, one empty 373.13 mm. None are the
    sensitivity of an empty reference, the precision of an empty prediction, and the specificity where the
    reference fills the volume. Raises ValueError for label maps of different shapes.
    """
    counts = count_label_pairs(reference, predicted, slice_axis=0).sum(axis=0)
    counts[0, 0] += n_outside
    box = bounding_box((reference | predicted) != 0)
    metrics: dict[str, RegionMetrics] = {}
    for region in REGIONS:
        masks = [region_mask(labels[box], region) for labels in (reference, predicted)]
        distance_mm = hd95_mm(masks[0], masks[1], spacing_mm)
        metrics[region] = _region_metrics(counts, region, distance_mm, float(np.prod(spacing_mm)) / 1000)
    return metrics


def slice_metrics(reference: Labels, predicted: Labels, *, slice_axis: int) -> list[SliceMetrics]:
    """Dice of every region in every slice along an axis of the label maps, by slice index in the array.

    Both masks empty 1, one empty 0: most slices of a case hold no tumour, and a mean over them says little.
    """
    counts = count_label_pairs(reference, predicted, slice_axis)
    rows: list[SliceMetrics] = []
    for region in REGIONS:
        both, n_reference, n_predicted = _region_counts(counts, region)
        sizes = n_reference + n_predicted
        dice = np.where(sizes == 0, 1.0, 2 * both / np.maximum(sizes, 1))
        rows += [
            SliceMetrics(
                slice_index=index,
                region=region,
                dice=float(dice[index]),
                n_reference_voxels=int(n_reference[index]),
                n_predicted_voxels=int(n_predicted[index]),
            )
            for index in range(len(counts))
        ]
    return sorted(rows, key=lambda row: row["slice_index"])


def notebook_metrics(
    reference: Labels, predicted: Labels, *, slice_axis: int, full_shape: tuple[int, ...]
) -> list[NotebookMetric]:
    """Scores the way widely copied Keras notebooks report them, for comparison with their figures only.

    full_shape: of the volume whose crop the label maps are, in the same order of axes.

    As in https://www.kaggle.com/code/rastislav/3d-mri-brain-tumor-segmentation-u-net, masks are one-hot over
    background, NCR, ED and ET. Precision, sensitivity and specificity pool the four channels ("micro"): for
    a label map precision and sensitivity both are the pixel accuracy a, and specificity is 1 - (1 - a) / 3.
    Dice is the mean over the four channels ("macro"), background included, each (2 TP + 1) / (n + m + 1).
    A batch there is all slices of a case ("over_case"); others average over single slices ("per_slice").
    """
    cropped = count_label_pairs(reference, predicted, slice_axis)
    counts = np.zeros((full_shape[slice_axis], *cropped.shape[1:]), np.int64)
    counts[: len(cropped)] = cropped
    counts[:, 0, 0] += int(np.prod(full_shape)) // full_shape[slice_axis] - counts.sum(axis=(1, 2))
    return [
        NotebookMetric(metric=metric, averaging=f"{channels}_{over}", value=value)
        for over, pools in (("over_case", counts.sum(axis=0, keepdims=True)), ("per_slice", counts))
        for (metric, channels), value in _notebook_scores(pools).items()
    ]


def count_label_pairs(reference: Labels, predicted: Labels, slice_axis: int) -> Counts:
    """Voxels by their two labels for each slice along an axis of the label maps, shape (S, L, L)."""
    if reference.shape != predicted.shape:
        raise ValueError(f"reference has shape {reference.shape}, prediction {predicted.shape}")
    n_slices, n_pairs = reference.shape[slice_axis], LABELS.size**2
    box = bounding_box((reference | predicted) != 0)
    pairs = np.moveaxis(LABELS.size * reference[box] + predicted[box], slice_axis, 0)
    bins = pairs + n_pairs * np.arange(len(pairs))[:, None, None]
    counts = np.zeros((n_slices, n_pairs), np.int64)
    counts[box[slice_axis]] = np.bincount(bins.ravel(), minlength=n_pairs * len(pairs)).reshape(-1, n_pairs)
    counts[:, 0] += reference.size // n_slices - counts.sum(axis=1)  # outside the box: background in both
    return counts.reshape(n_slices, LABELS.size, LABELS.size)


def _region_counts(counts: Counts, region: str) -> tuple[Counts, Counts, Counts]:
    """Voxels of a region in both maps, in the reference and in the prediction, each of shape (...)."""
    inside = region_mask(LABELS, region)
    in_reference = counts[..., inside, :]
    return (
        in_reference[..., inside].sum(axis=(-2, -1)),
        in_reference.sum(axis=(-2, -1)),
        counts[..., inside].sum(axis=(-2, -1)),
    )


def _region_metrics(counts: Counts, region: str, distance_mm: float, voxel_ml: float) -> RegionMetrics:
    both, n_reference, n_predicted = (int(n) for n in _region_counts(counts, region))
    n_voxels = int(counts.sum())
    n_either = n_reference + n_predicted - both
    n_neither = n_voxels - n_either
    dice = _ratio(2 * both, n_reference + n_predicted)
    iou = _ratio(both, n_either)
    return RegionMetrics(
        dice=1.0 if dice is None else dice,
        hd95_mm=distance_mm,
        iou=1.0 if iou is None else iou,
        sensitivity=_ratio(both, n_reference),
        specificity=_ratio(n_neither, n_voxels - n_reference),
        precision=_ratio(both, n_predicted),
        accuracy=(both + n_neither) / n_voxels,
        reference_ml=n_reference * voxel_ml,
        predicted_ml=n_predicted * voxel_ml,
        n_reference_voxels=n_reference,
        n_predicted_voxels=n_predicted,
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _notebook_scores(counts: Counts) -> dict[tuple[str, str], float]:
    """The notebook scores, by metric and how its channels are joined; the mean over the pools (S, L, L)."""
    n_pixels = counts.sum(axis=(1, 2))
    hits = np.diagonal(counts, axis1=1, axis2=2)
    accuracy = hits.sum(axis=1) / n_pixels
    sizes = counts.sum(axis=1) + counts.sum(axis=2)
    scores = {
        ("accuracy", "micro"): accuracy,
        ("precision", "micro"): accuracy,
        ("sensitivity", "micro"): accuracy,
        ("specificity", "micro"): 1 - (1 - accuracy) / (LABELS.size - 1),
        ("dice", "macro"): ((2 * hits + DICE_SMOOTH) / (sizes + DICE_SMOOTH)).mean(axis=1),
    }
    return {name: float(values.mean()) for name, values in scores.items()}
