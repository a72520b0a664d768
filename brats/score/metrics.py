"""Scores of a predicted label map against its reference: per case in 3-D, per slice, and as notebooks do it.

Axes: `S H W` slices of a label map, `L` labels 0 (background), NCR, ED, ET.

All overlaps come from one count: how many voxels have which label in the reference and which in the prediction.
Label maps may be crops of a volume in which everything outside is background in both.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from brats.labels import REGIONS, TISSUES, Labels, bounding_box, region_mask
from brats.score.surface import (
    ASSD,
    HD95,
    NSD,
    Spacing,
    SurfaceDistances,
    assd_mm,
    hd95_mm,
    surface_dice,
    surface_distances,
)

LABELS: Labels = np.arange(1 + len(TISSUES), dtype=np.uint8)
NOTEBOOK_DICE_SMOOTH = 1.0  # dice_coef(smooth=1.0) of the notebook cited in `notebook_metrics`
MICRO, MACRO = "micro over {} labels", "macro over {} labels"

Counts = npt.NDArray[np.int64]
"""Numbers of voxels (..., L, L) by their label in the reference, then by their label in the prediction."""


@dataclass(frozen=True)
class Overlap:
    """Two label maps of a case side by side, counted once: what every score is computed from.

    reference, predicted: the box (S H W) of the maps that holds all tumour of both
    start:                index in the maps of the first voxel of the box
    spacing_shw_mm:       voxel size along their axes
    slice_counts:         (S, L, L), of every slice of the maps, in and beside the box
    counts:               (L, L), of the full volume
    """

    reference: Labels
    predicted: Labels
    start: tuple[int, int, int]
    spacing_shw_mm: Spacing
    slice_counts: Counts
    counts: Counts


@dataclass(frozen=True)
class RegionOverlap:
    """A region of a case in reference and prediction: voxels of the full volume, and the surfaces' distances."""

    n_voxels: int
    n_reference: int
    n_predicted: int
    n_both: int
    distances: SurfaceDistances

    @property
    def n_either(self) -> int:
        return self.n_reference + self.n_predicted - self.n_both

    @property
    def n_neither(self) -> int:
        return self.n_voxels - self.n_either


@dataclass(frozen=True)
class Metric:
    """A score of a region: the name of its column, its convention, and its value; None where it is undefined."""

    name: str
    convention: str
    value: Callable[[RegionOverlap], float | None]


METRICS = (
    Metric(
        "dice",
        "2 TP / (2 TP + FP + FN); both masks empty 1, one empty 0",
        lambda found: _agreement(2 * found.n_both, found.n_reference + found.n_predicted),
    ),
    Metric("hd95_mm", HD95, lambda found: hd95_mm(found.distances)),
    Metric(
        "iou",
        "TP / (TP + FP + FN); both masks empty 1, one empty 0",
        lambda found: _agreement(found.n_both, found.n_either),
    ),
    Metric(
        "sensitivity",
        "TP / (TP + FN); null where the reference is empty",
        lambda found: _ratio(found.n_both, found.n_reference),
    ),
    Metric(
        "specificity",
        "TN / (TN + FP); null where the reference fills the volume",
        lambda found: _ratio(found.n_neither, found.n_voxels - found.n_reference),
    ),
    Metric(
        "precision",
        "TP / (TP + FP); null where the prediction is empty",
        lambda found: _ratio(found.n_both, found.n_predicted),
    ),
    Metric(
        "accuracy",
        "(TP + TN) / all voxels of the volume",
        lambda found: (found.n_both + found.n_neither) / found.n_voxels,
    ),
    Metric("nsd_at_half_mm", NSD.format("0.5"), lambda found: surface_dice(found.distances, 0.5)),
    Metric("nsd_at_1_mm", NSD.format("1"), lambda found: surface_dice(found.distances, 1.0)),
    Metric("assd_mm", ASSD, lambda found: assd_mm(found.distances)),
    Metric(
        "relative_volume_difference",
        "(predicted - reference) / reference volume; null where the reference is empty",
        lambda found: _ratio(found.n_predicted - found.n_reference, found.n_reference),
    ),
)
"""What each region of a case is scored by. The columns of `metrics/cases.parquet`, their conventions in its
metadata and the rows of the summary follow from this list."""


class SliceMetrics(TypedDict):
    """Scores of one region in one slice."""

    slice_index: int
    region: str
    dice: float | None
    n_reference_voxels: int
    n_predicted_voxels: int | None


class NotebookMetric(TypedDict):
    """A score by a notebook convention."""

    metric: str
    averaging: str
    value: float


def count_overlap(reference: Labels, predicted: Labels, spacing_shw_mm: Spacing, n_outside: int = 0) -> Overlap:
    """Count the label pairs of a case, in label maps (S, H, W) that may be crops of its volume.

    spacing_shw_mm: voxel size along their axes
    n_outside:      number of voxels of the full volume outside the maps; all are background in both

    Raises ValueError for label maps of different shapes.
    """
    if reference.shape != predicted.shape:
        raise ValueError(f"reference has shape {reference.shape}, prediction {predicted.shape}")
    box = bounding_box((reference | predicted) != 0)
    slice_counts = _count_label_pairs(reference, predicted, box)
    counts = slice_counts.sum(axis=0)
    counts[0, 0] += n_outside
    first_slice, first_row, first_column = (side.start for side in box)
    start = first_slice, first_row, first_column
    return Overlap(reference[box], predicted[box], start, spacing_shw_mm, slice_counts, counts)


def case_metrics(overlap: Overlap, regions: Collection[str] = REGIONS) -> dict[str, dict[str, Any]]:
    """METRICS and sizes of a case in 3-D, by region: the columns of `metrics/cases.parquet` from `dice` on.

    regions: those that the model predicts; of the others only the reference has values
    """
    voxel_ml = float(np.prod(overlap.spacing_shw_mm)) / 1000
    metrics: dict[str, dict[str, Any]] = {}
    for region in REGIONS:
        if region in regions:
            found = _region_overlap(overlap, region)
            scores = {metric.name: metric.value(found) for metric in METRICS}
            n_reference, n_predicted = found.n_reference, found.n_predicted
        else:
            scores = dict.fromkeys(metric.name for metric in METRICS)
            n_reference, n_predicted = int(_region_counts(overlap.counts, region)[1]), None
        metrics[region] = {
            **scores,
            "reference_ml": n_reference * voxel_ml,
            "predicted_ml": None if n_predicted is None else n_predicted * voxel_ml,
            "n_reference_voxels": n_reference,
            "n_predicted_voxels": n_predicted,
        }
    return metrics


def region_dice(counts: Counts) -> dict[str, float]:
    """Dice of each region from the label pairs (L, L) of a full volume, as METRICS has it."""
    found = {region: _region_counts(counts, region) for region in REGIONS}
    return {
        region: _agreement(2 * int(n_both), int(n_reference + n_predicted))
        for region, (n_both, n_reference, n_predicted) in found.items()
    }


def slice_metrics(overlap: Overlap, regions: Collection[str] = REGIONS) -> list[SliceMetrics]:
    """Dice of every region in every slice (H, W), by slice index in the label maps.

    Both masks empty 1, one empty 0: most slices of a case hold no tumour, so a mean over them says little.

    regions: as of `case_metrics`
    """
    columns = []
    for region in REGIONS:
        n_both, n_reference, n_predicted = _region_counts(overlap.slice_counts, region)
        n_sum = n_reference + n_predicted
        dice = np.divide(2 * n_both, n_sum, out=np.ones(len(n_sum)), where=n_sum > 0)
        unknown = [None] * len(n_sum)
        found = (dice.tolist(), n_predicted.tolist()) if region in regions else (unknown, unknown)
        columns.append(zip(found[0], n_reference.tolist(), found[1], strict=True))
    return [
        SliceMetrics(
            slice_index=slice_index,
            region=region,
            dice=dice,
            n_reference_voxels=n_reference,
            n_predicted_voxels=n_predicted,
        )
        for slice_index, of_slice in enumerate(zip(*columns, strict=True))
        for region, (dice, n_reference, n_predicted) in zip(REGIONS, of_slice, strict=True)
    ]


def notebook_metrics(overlap: Overlap, regions: Collection[str] = REGIONS) -> list[NotebookMetric]:
    """Scores of a case the way widely copied Keras notebooks report them; only for comparison with theirs.

    As in https://www.kaggle.com/code/rastislav/3d-mri-brain-tumor-segmentation-u-net, masks are one-hot over
    background, NCR, ED and ET, and all pixels of a case are pooled. Precision, sensitivity and specificity pool
    the four channels as well ("micro"): for a label map precision and sensitivity both are the pixel accuracy
    a, and specificity is 1 - (1 - a) / 3. Dice is the mean of the four channels ("macro"), background included,
    each (2 TP + 1) / (n + m + 1). Where a model predicts WT alone, there are two labels: background and tumour.

    regions: as of `case_metrics`
    """
    counts = overlap.counts if len(regions) > 1 else _merge_tissues(overlap.counts)
    n_labels = len(counts)
    micro, macro = MICRO.format(n_labels), MACRO.format(n_labels)
    hits = np.diagonal(counts)
    sizes = counts.sum(axis=0) + counts.sum(axis=1)
    accuracy = float(hits.sum() / counts.sum())
    dice = float(np.mean((2 * hits + NOTEBOOK_DICE_SMOOTH) / (sizes + NOTEBOOK_DICE_SMOOTH)))
    specificity = 1 - (1 - accuracy) / (n_labels - 1)
    return [
        NotebookMetric(metric="accuracy", averaging=micro, value=accuracy),
        NotebookMetric(metric="dice", averaging=macro, value=dice),
        NotebookMetric(metric="precision", averaging=micro, value=accuracy),
        NotebookMetric(metric="sensitivity", averaging=micro, value=accuracy),
        NotebookMetric(metric="specificity", averaging=micro, value=specificity),
    ]


def _count_label_pairs(reference: Labels, predicted: Labels, box: tuple[slice, ...]) -> Counts:
    """Voxels by their two labels, in each slice of label maps (S, H, W) with all tumour in the box: (S, L, L)."""
    n_slices, n_pairs = len(reference), LABELS.size**2
    pairs = LABELS.size * reference[box] + predicted[box]
    bins = pairs + n_pairs * np.arange(len(pairs))[:, None, None]
    counts = np.zeros((n_slices, n_pairs), np.int64)
    counts[box[0]] = np.bincount(bins.ravel(), minlength=n_pairs * len(pairs)).reshape(-1, n_pairs)
    counts[:, 0] += reference[0].size - counts.sum(axis=1)  # outside the box: background in both
    return counts.reshape(n_slices, LABELS.size, LABELS.size)


def _merge_tissues(counts: Counts) -> Counts:
    """Label pairs (L, L) as pairs of what is no tumour and WT (2, 2)."""
    both, reference, predicted = _region_counts(counts, "WT")
    neither = counts.sum() - reference - predicted + both
    return np.array([[neither, predicted - both], [reference - both, both]])


def _region_counts(counts: Counts, region: str) -> tuple[Counts, Counts, Counts]:
    """Voxels of a region in both maps, in the reference and in the prediction, (...) from counts (..., L, L)."""
    inside = region_mask(LABELS, region)
    in_reference, in_predicted = counts[..., inside, :], counts[..., inside]
    both = in_reference[..., inside]
    return both.sum(axis=(-2, -1)), in_reference.sum(axis=(-2, -1)), in_predicted.sum(axis=(-2, -1))


def _region_overlap(overlap: Overlap, region: str) -> RegionOverlap:
    n_both, n_reference, n_predicted = (int(count) for count in _region_counts(overlap.counts, region))
    reference, predicted = (region_mask(labels, region) for labels in (overlap.reference, overlap.predicted))
    return RegionOverlap(
        n_voxels=int(overlap.counts.sum()),
        n_reference=n_reference,
        n_predicted=n_predicted,
        n_both=n_both,
        distances=surface_distances(reference, predicted, overlap.spacing_shw_mm),
    )


def _agreement(shared: int, whole: int) -> float:
    """Dice or IoU, which are 1 where there is nothing to find and nothing was found."""
    return shared / whole if whole else 1.0


def _ratio(count: int, whole: int) -> float | None:
    return count / whole if whole else None
