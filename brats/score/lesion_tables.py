"""The conventions that score lesions one by one, the rows of a case by each, and the table of lesions.

A case is scored by every convention; the columns of each carry its year.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from brats import storage
from brats.config import RulesName
from brats.labels import REGIONS, region_mask
from brats.score.components import RegionPair
from brats.score.lesions import Lesion, LesionMetric
from brats.score.lesions_2023 import METRICS_2023, RULES, lesions_2023
from brats.score.metrics import Overlap
from brats.score.panoptic_2026 import METRICS_2026, lesions_2026


@dataclass(frozen=True)
class Convention:
    """A way to score lesions: its name in tables, what it means, its lesions of a region, its metrics of them."""

    name: str
    meaning: str
    lesions: Callable[[RegionPair, RulesName], list[Lesion]]
    metrics: Sequence[LesionMetric]


def _rules_text() -> str:
    return "; ".join(
        f"{name} {rules.n_dilations} and {rules.largest_ignored_mm3:g} mm3" for name, rules in RULES.items()
    )


CONVENTIONS = (
    Convention(
        "lesion-wise-2023",
        "code of BraTS 2023 (rachitsaluja/BraTS-2023-Metrics 43c9052): the reference dilated by 18 neighbours, its "
        "26-connected components are lesions, those up to a volume are ignored; the components of the prediction "
        "that touch a dilated lesion belong to it. Dilations and volume by challenge_rules: " + _rules_text(),
        lambda regions, rules: lesions_2023(regions, RULES[rules]),
        METRICS_2023,
    ),
    Convention(
        "panoptic-2026",
        "code of BraTS 2025/26 (panoptica 2.1.4, set up as in BraTS-evaluation 0.0.10): 26-connected components, "
        "matched one to one so that the sum of their Dice is largest; no dilation, none ignored",
        lambda regions, _: lesions_2026(regions),
        METRICS_2026,
    ),
)
"""The columns of `metrics/cases.parquet`, their conventions in its metadata, the rows of `metrics/lesions.parquet`
and those of the summary follow from this list."""

CHALLENGE_RULES = (
    "challenge by whose rules of 2023 the lesions are scored: that of the case's id, else --challenge-rules; null "
    "for cases scored before there were scores by lesion, whose columns of 2023 and 2026 are null"
)
CASE_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("challenge_rules", pa.string()),
    *(
        (metric.name, pa.int64() if metric.is_count else pa.float64())
        for convention in CONVENTIONS
        for metric in convention.metrics
    ),
]
CASE_CONVENTIONS = {
    "challenge_rules": CHALLENGE_RULES,
    **{convention.name: convention.meaning for convention in CONVENTIONS},
    **{metric.name: metric.convention for convention in CONVENTIONS for metric in convention.metrics},
}
LESIONS = storage.TableKind(
    name="lesions",
    schema=pa.schema(
        [
            *((name, pa.string()) for name in ("case_id", "patient_id", "region", "convention", "status")),
            *((name, pa.float64()) for name in ("volume_mm3", "centroid_i", "centroid_j", "centroid_k")),
            *((name, pa.float64()) for name in ("dice", "hd95_mm", "surface_dice")),
        ]
    ),
    conventions={
        **{convention.name: convention.meaning for convention in CONVENTIONS},
        "status": "found and missed: lesions of the reference; false: a component of the prediction that is none "
        "of them; ignored: too small to count",
        "volume_mm3": "of the reference or, of a false component, of the prediction; voxels x voxel volume",
        "centroid_i, centroid_j, centroid_k": "mean voxel index along the axes of the source file, counted from 0",
        "dice, hd95_mm, surface_dice": "of the lesion, as the means in metrics/cases.parquet take it; null where "
        "it does not enter them",
    },
)


def lesion_columns(
    overlap: Overlap,
    rules: RulesName,
    hd95_mm: Mapping[str, float],
    first_voxel: tuple[int, int, int] = (0, 0, 0),
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """The columns of `metrics/cases.parquet` by region, CASE_COLUMNS, and rows of `metrics/lesions.parquet`.

    hd95_mm: of the whole regions that the model predicts; of others the columns are None, and there are no rows
    first_voxel: index of the first voxel of the overlap's label maps in the volume, along S H W

    The rows lack the names of the case.
    """
    columns: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    slice_index, row, column = (first + inner for first, inner in zip(first_voxel, overlap.start, strict=True))
    start = slice_index, row, column
    for region in REGIONS:
        columns[region] = {name: None for name, _ in CASE_COLUMNS} | {"challenge_rules": rules}
        if region not in hd95_mm:
            continue
        reference, predicted = (region_mask(labels, region) for labels in (overlap.reference, overlap.predicted))
        pair = RegionPair.of(reference, predicted, start, overlap.spacing_shw_mm, hd95_mm[region])
        for convention in CONVENTIONS:
            lesions = convention.lesions(pair, rules)
            columns[region] |= {metric.name: metric.value(lesions) for metric in convention.metrics}
            rows += [_row(lesion, region, convention) for lesion in lesions]
    return columns, rows


def _row(lesion: Lesion, region: str, convention: Convention) -> dict[str, Any]:
    slice_index, row, column = lesion.centroid
    return {
        "region": region,
        "convention": convention.name,
        "status": lesion.status,
        "volume_mm3": lesion.volume_mm3,
        "centroid_i": row,
        "centroid_j": column,
        "centroid_k": slice_index,
        "dice": lesion.dice,
        "hd95_mm": lesion.hd95_mm,
        "surface_dice": lesion.surface_dice,
    }


def rules_line(rows: Iterable[Mapping[str, Any]]) -> str:
    """By whose rules cases were scored, from rows of `metrics/cases.parquet`: "gli (10 cases), met (2 cases)"."""
    of_case = {row["case_id"]: row.get("challenge_rules") for row in rows}
    counts = [(name, sum(rules == name for rules in of_case.values())) for name in RULES]
    return ", ".join(f"{name} ({n} case{'s' * (n != 1)})" for name, n in counts if n)
