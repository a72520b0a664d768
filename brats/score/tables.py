"""The metric tables of a set of predictions: their files and kinds, and the rows of one case."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from brats import storage
from brats.config import RulesName
from brats.labels import REGIONS, TISSUES, Labels
from brats.score.lesion_tables import CASE_COLUMNS, CASE_CONVENTIONS, lesion_columns
from brats.score.metrics import MACRO, METRICS, MICRO, case_metrics, count_overlap, notebook_metrics, slice_metrics
from brats.score.surface import Spacing
from brats.storage.documents import is_text

MetricRow = Mapping[str, Any]
"""A row of a metric table, by column; its values fit JSON."""

TableName = Literal[
    "cases", "slices", "notebook", "lesions", "summary", "uncertainty", "uncertainty_curves", "ranking"
]
CHANNELS = ", ".join(["background", *map(str.upper, TISSUES)])
NOT_PREDICTED = "null for a region that the model does not predict, such as TC of --outputs whole-tumour"


_VALUES = {pa.int32(): (int,), pa.int64(): (int,), pa.float64(): (float, int)}  # of the other columns: text
_WHOLE = range(-(2**31), 2**31)  # a volume has fewer voxels


def _definition(region: str) -> str:
    """A region as the union of its tissues: "TC = NCR + ET"."""
    union = " + ".join(name.upper() for name, label in TISSUES.items() if label in REGIONS[region].labels)
    return region if union == region else f"{region} = {union}"


ENTROPY = (
    "binary entropy of the probability of the region, in bits, summed over the voxels: a voxel that may as well be "
    "inside as outside counts 1; null for masks without probabilities"
)
CASE_METRICS = storage.TableKind(
    name="case metrics",
    schema=pa.schema(
        [
            ("case_id", pa.string()),
            ("patient_id", pa.string()),
            ("split", pa.string()),
            ("region", pa.string()),
            *((metric.name, pa.float64()) for metric in METRICS),
            ("reference_ml", pa.float64()),
            ("predicted_ml", pa.float64()),
            ("n_reference_voxels", pa.int64()),
            ("n_predicted_voxels", pa.int64()),
            ("entropy_bits", pa.float64()),
            *CASE_COLUMNS,
        ]
    ),
    conventions={
        "region": f"{', '.join(_definition(name) for name in REGIONS)}; 3-D, on the full volume",
        **{metric.name: metric.convention for metric in METRICS},
        "reference_ml, predicted_ml": "voxels x voxel volume",
        "entropy_bits": ENTROPY,
        **CASE_CONVENTIONS,
        ", ".join([*(metric.name for metric in METRICS), "predicted_ml", "n_predicted_voxels"]): NOT_PREDICTED,
    },
)
SLICES = storage.TableKind(
    name="slice metrics",
    schema=pa.schema(
        [
            ("case_id", pa.string()),
            ("slice_index", pa.int32()),
            ("region", pa.string()),
            ("dice", pa.float64()),
            ("n_reference_voxels", pa.int64()),
            ("n_predicted_voxels", pa.int64()),
            ("entropy_bits", pa.float64()),
        ]
    ),
    conventions={
        "slice_index": "slice of the source volume along its third axis",
        "dice": "of that slice alone; both masks empty 1, one empty 0",
        "entropy_bits": f"{ENTROPY}; of that slice alone",
        "dice, n_predicted_voxels": NOT_PREDICTED,
    },
)
NOTEBOOK = storage.TableKind(
    name="notebook metrics",
    schema=pa.schema(
        [("case_id", pa.string()), ("metric", pa.string()), ("averaging", pa.string()), ("value", pa.float64())]
    ),
    conventions={
        "purpose": "comparison with notebooks that report these numbers; background counts as a class",
        "averaging": f"all pixels of the full volume pooled; one-hot channels, of 2 labels (of a model that "
        f"predicts WT alone) background and tumour, of {1 + len(TISSUES)} {CHANNELS}",
        MICRO.format("N"): "TP, FP, TN, FN summed over the channels, then the ratio; accuracy is of pixels",
        MACRO.format("N"): "(2 TP + 1) / (2 TP + FP + FN + 1) of each channel, then their mean",
        "source": "https://www.kaggle.com/code/rastislav/3d-mri-brain-tumor-segmentation-u-net",
    },
)


def check_rows(kind: storage.TableKind, rows: Any) -> None:
    """Raise TypeError for rows, as of a damaged part, with a value that does not fit its column."""
    if not isinstance(rows, list) or not all(type(row) is dict for row in rows):
        raise TypeError(f"the rows of the {kind.name} are {str(rows)[:80]!r}")
    for field in kind.schema:
        values = {(type(value), value) for row in rows if (value := row.get(field.name)) is not None}
        for value_type, value in values:
            if value_type not in _VALUES.get(field.type, (str,)) or not _is_writable(value):
                raise TypeError(f"{field.name} is {str(value)[:80]!r}")


def _is_writable(value: str | int | float) -> bool:
    return is_text(value) if isinstance(value, str) else isinstance(value, float) or value in _WHOLE


def metrics_dir(out: str) -> str:
    return storage.join(out, "metrics")


def metrics_path(out: str, table: TableName) -> str:
    return storage.join(metrics_dir(out), f"{table}.parquet")


def read_case_metrics(out: str) -> pd.DataFrame:
    """The rows of `metrics/cases.parquet`, nulls as NaN. Raises FileNotFoundError where there is none."""
    metrics: pd.DataFrame = storage.read_table(metrics_path(out, "cases"), CASE_METRICS).to_pandas()
    return metrics


def score_rows(
    *,
    case_id: str,
    patient_id: str,
    split: str | None,
    reference: Labels,
    predicted: Labels,
    spacing_shw_mm: Spacing,
    n_outside: int,
    first_slice: int,
    rules: RulesName,
    first_in_slice: tuple[int, int] = (0, 0),
    regions: Collection[str] = REGIONS,
    entropy_bits: Mapping[str, npt.NDArray[np.float64]] = MappingProxyType({}),
) -> dict[str, list[dict[str, Any]]]:
    """The rows of a case by every convention, keys cases, slices, notebook and lesions; values fit JSON.

    reference, predicted: label maps (S, H, W), crops of a volume that is background in both outside
    spacing_shw_mm: voxel size along their axes
    n_outside: number of voxels of the volume outside the crops
    first_slice, first_in_slice: index of the crops' first slice in the volume, and of its first row and column
    rules: challenge by whose rules of 2023 the lesions are scored
    regions: those that the model predicts; the scores of others are None
    entropy_bits: of each slice (S,) of the crops, by region; without a region where it is not known
    """
    overlap = count_overlap(reference, predicted, spacing_shw_mm, n_outside)
    whole = case_metrics(overlap, regions)
    hd95_mm = {region: whole[region]["hd95_mm"] for region in regions}
    of_lesions, lesions = lesion_columns(overlap, rules, hd95_mm, (first_slice, *first_in_slice))
    names = {"case_id": case_id, "patient_id": patient_id}
    return {
        "cases": [
            {
                **names,
                "split": split,
                "region": region,
                **metrics,
                "entropy_bits": _total(entropy_bits.get(region)),
                **of_lesions[region],
            }
            for region, metrics in whole.items()
        ],
        "slices": [
            {
                "case_id": case_id,
                **row,
                "slice_index": first_slice + row["slice_index"],
                "entropy_bits": _value(entropy_bits.get(row["region"]), row["slice_index"]),
            }
            for row in slice_metrics(overlap, regions)
        ],
        "notebook": [{"case_id": case_id, **row} for row in notebook_metrics(overlap, regions)],
        "lesions": [{**names, **row} for row in lesions],
    }


def _total(values: npt.NDArray[np.float64] | None) -> float | None:
    return None if values is None else float(values.sum())


def _value(values: npt.NDArray[np.float64] | None, index: int) -> float | None:
    return None if values is None else float(values[index])
