"""A prepared dataset: its table of cases, `PREPARED/cases.parquet`, and where everything lies in its folder."""

import math
from typing import Any

import pyarrow as pa

from brats import storage
from brats.data.case import Box, Description
from brats.data.cases import CASE_ID
from brats.data.grid import Grid
from brats.data.planes import COUNT_COLUMNS
from brats.data.sources import from_rows, source_bytes, source_hash, to_rows
from brats.errors import BratsError, StorageError
from brats.labels import REGIONS, TISSUES, count_regions

_SOURCE_FILE = pa.struct(
    [
        ("kind", pa.string()),
        ("size", pa.int64()),
        ("hash", pa.string()),
        ("path", pa.string()),
        ("stamp", pa.string()),
    ]
)
PREPARED_CASES = storage.TableKind(
    name="prepared cases",
    version=2,
    schema=pa.schema(
        [
            ("case_id", pa.string()),
            ("patient_id", pa.string()),
            ("split", pa.string()),
            ("fold", pa.int16()),
            ("layout", pa.string()),
            ("coding", pa.string()),
            ("grade", pa.string()),
            ("modalities", pa.list_(pa.string())),
            ("shape", pa.list_(pa.int32())),
            ("spacing_mm", pa.list_(pa.float64())),
            ("first_slice", pa.int32()),
            ("n_slices", pa.int32()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            *((f"n_voxels_{tissue}", pa.int64()) for tissue in TISSUES),
            *((f"volume_ml_{region.lower()}", pa.float64()) for region in REGIONS),
            *((column, pa.list_(pa.int32())) for column in COUNT_COLUMNS),
            ("warnings", pa.list_(pa.string())),
            ("voxel_hash", pa.string()),
            ("source_bytes", pa.int64()),
            ("source_hash", pa.string()),
            ("sources", pa.list_(_SOURCE_FILE)),
        ]
    ),
    conventions={
        "split": "patients are split, not cases; null for cases without segmentation",
        "fold": "cross-validation fold of the patients outside the test split",
        "shape, spacing_mm": "shape: of the source file, in its axes; spacing: X Y Z of the RAS+ volume",
        "first_slice, n_slices, height, width": "the crop: slices along z of the RAS+ volume, height x, width y",
        "tumour_per_slice, et_per_slice": "tumour voxels, and voxels of ET, in each slice of the crop",
        "tumour_per_coronal_slice and alike": "the same of slices along y (coronal) or x (sagittal) of the crop; "
        "null for cases prepared before they were counted",
        "warnings": "what is implausible about the case, with the file and the figure; empty for a usual one",
        "voxel_hash": "of the brain voxels of the first modality: equal for one patient under two names",
        "source_bytes": "size of the source files together",
        "source_hash": "of the content of the source files: equal for cases made from equal files",
        "sources": "the source files: what each is an image of, size, XXH3-128 of its bytes; path and times when "
        "it was last found so",
    },
)


def cases_path(prepared: str) -> str:
    return storage.join(prepared, "cases.parquet")


def slices_dir(prepared: str) -> str:
    return storage.join(prepared, "slices")


def slices_path(prepared: str, case_id: str) -> str:
    """Where a prepared case lies. Raises StorageError for an id, as in a foreign table, that names no file."""
    if not CASE_ID.fullmatch(case_id):
        raise StorageError(f"{prepared}: the case id {case_id!r} cannot name a file; prepare the cases again")
    return storage.join(slices_dir(prepared), f"{case_id}.parquet")


def is_prepared(path: str) -> bool:
    return storage.exists(cases_path(path))


def read_case_table(prepared: str) -> list[dict[str, Any]]:
    """The rows of `cases.parquet`. Raises BratsError where there is none."""
    try:
        rows: list[dict[str, Any]] = storage.read_table(cases_path(prepared), PREPARED_CASES).to_pylist()
    except FileNotFoundError:
        raise BratsError(f"{prepared}: not a prepared dataset (it has no cases.parquet)") from None
    return rows


def case_row(case: Description) -> dict[str, Any]:
    """The row of `cases.parquet` that the description of a prepared case gives; the split comes later."""
    grid = Grid.from_json(case["grid"])
    voxel_ml = math.prod(grid.spacing_xyz_mm) / 1000
    box = Box.from_json(case["box"])
    tissues = case["tissues"]
    sources = from_rows(case["sources"])
    regions = None if tissues is None else count_regions(tissues)
    return {
        "case_id": case["case_id"],
        "patient_id": case["patient_id"],
        "layout": case["layout"],
        "coding": case["coding"],
        "grade": case["grade"],
        "modalities": case["modalities"],
        "shape": list(grid.shape),
        "spacing_mm": list(grid.spacing_xyz_mm),
        "first_slice": box.start[2],
        "n_slices": box.shape[2],
        "height": box.shape[0],
        "width": box.shape[1],
        **{f"n_voxels_{tissue}": None if tissues is None else tissues[tissue] for tissue in TISSUES},
        **{
            f"volume_ml_{region.lower()}": None if regions is None else regions[region] * voxel_ml
            for region in REGIONS
        },
        **{column: case.get(column) for column in COUNT_COLUMNS},
        "warnings": case["warnings"],
        "voxel_hash": case["voxel_hash"],
        "source_bytes": source_bytes(sources),
        "source_hash": source_hash(sources),
        "sources": to_rows(sources),
    }
