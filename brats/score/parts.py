"""The result of one case, its metric rows or its reject: `parts/<case_id>.json`.

A part is written last, so its presence marks the case as done. The final tables are rebuilt from the parts, so that
a run that was interrupted and resumed ends with the tables of an uninterrupted one.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from brats import storage
from brats.data.rejects import Reject
from brats.data.sources import Sources, from_rows, to_rows
from brats.errors import StorageError
from brats.score.label_orders import CodeCounts
from brats.score.lesion_tables import LESIONS
from brats.score.tables import CASE_METRICS, NOTEBOOK, SLICES, MetricRow, TableName, check_rows
from brats.score.uncertainty_tables import CURVES, UNCERTAINTY
from brats.storage.documents import check_types

FORMAT = "brats-ray part 5"
LACKING: Mapping[str, Mapping[str, Any]] = {
    "brats-ray part 4": {"lesions": []},
    "brats-ray part 3": {"lesions": [], "uncertainty": [], "uncertainty_curves": []},
}
"""Formats that are read too, with what they lack. Their rows lack columns, which are null in the tables."""
METRICS_OF_ALWAYS = ("dice", "hd95_mm", "iou", "sensitivity", "specificity", "precision", "accuracy")
EARLIER_FORMATS = ("brats-ray part 2",)  # those of format 1 were Parquet files
ROWS: dict[TableName, storage.TableKind] = {
    "cases": CASE_METRICS,
    "slices": SLICES,
    "notebook": NOTEBOOK,
    "lesions": LESIONS,
    "uncertainty": UNCERTAINTY,
    "uncertainty_curves": CURVES,
}
"""The kinds of the rows of a part, by field and by table."""
READERS = 8  # parts read at a time; on S3 their latencies overlap


@dataclass(frozen=True, kw_only=True)
class Part:
    """One case: what it was made from, its metric rows, or why there are none, and its warnings.

    sources: the files; those of a reject without hashes
    coding:  in which its segmentation was read
    """

    case_id: str
    sources: Sources = ()
    coding: str = ""
    reject: Reject | None = None
    cases: Sequence[MetricRow] = ()
    slices: Sequence[MetricRow] = ()
    notebook: Sequence[MetricRow] = ()
    lesions: Sequence[MetricRow] = ()
    uncertainty: Sequence[MetricRow] = ()
    uncertainty_curves: Sequence[MetricRow] = ()
    code_counts: CodeCounts = ()
    """Of the prediction, where its codes are those of another program."""
    warnings: Sequence[str] = ()

    @property
    def is_complete(self) -> bool:
        """Whether its rows have METRICS_OF_ALWAYS. Those that were added later do not make a case be done again."""
        return all(name in row for row in self.cases for name in METRICS_OF_ALWAYS)

    @property
    def has_every_convention(self) -> bool:
        """Whether its rows have every column of today; not those of a program that did not know one of them yet."""
        columns = CASE_METRICS.schema.names
        return all(name in row for row in self.cases for name in columns)


def is_done(part: Part | None) -> bool:
    """Whether a case is done, or was rejected for a lasting reason."""
    if part is None or not part.is_complete:
        return False
    return part.reject is None or not part.reject.transient


def parts_dir(out: str) -> str:
    return storage.join(out, "parts")


def part_path(out: str, case_id: str) -> str:
    return storage.join(parts_dir(out), part_name(case_id))


def part_name(case_id: str) -> str:
    return f"{case_id}.json"


def write_part(out: str, part: Part) -> None:
    """Write a part whole. Undefined values are None; raises ValueError for NaN and infinity, which JSON lacks."""
    document = {
        "format": FORMAT,
        "case_id": part.case_id,
        "sources": to_rows(part.sources),
        "coding": part.coding,
        "reject": dataclasses.asdict(part.reject) if part.reject else None,
        "cases": list(part.cases),
        "slices": list(part.slices),
        "notebook": list(part.notebook),
        "lesions": list(part.lesions),
        "uncertainty": list(part.uncertainty),
        "uncertainty_curves": list(part.uncertainty_curves),
        "code_counts": list(part.code_counts),
        "warnings": list(part.warnings),
    }
    storage.write_bytes(part_path(out, part.case_id), json.dumps(document, allow_nan=False).encode())


def read_parts(out: str) -> dict[str, Part]:
    """Every part by case id, in the order of the ids.

    Raises StorageError for a part that is damaged or of another version of this program.
    """
    with ThreadPoolExecutor(READERS) as pool:
        parts = list(pool.map(_read_part, _find_parts(out)))
    return {part.case_id: part for part in sorted(parts, key=lambda part: part.case_id)}


def check_parts(out: str) -> None:
    """Raise StorageError for parts of an earlier version: called before a job does work that it could not keep.

    One part is read: a folder has parts of one format, since all that write there check it first.
    """
    for path in _find_parts(out)[:1]:
        _read_part(path)


def _find_parts(out: str) -> list[str]:
    try:
        files = storage.list_files(parts_dir(out))
    except FileNotFoundError:
        return []
    files = [file for file in files if not file.name.startswith(".")]
    for file in files:
        if file.name.endswith(".parquet"):
            raise _outdated(file.path, "in Parquet")
    return [file.path for file in files if file.name.endswith(".json")]


def _outdated(path: str, form: str) -> StorageError:
    return StorageError(
        f"{path}: a result {form}, of an earlier version of brats-ray; choose another --out, or "
        f"remove {path.rpartition('/')[0]} and run again, which does its cases again"
    )


def _read_part(path: str) -> Part:
    content = storage.read_bytes(path)
    try:
        document = json.loads(content)
        _check_fields(document, {"format"})
        found = document.pop("format")
        if isinstance(found, str) and found in LACKING:
            found, document = FORMAT, {**document, **LACKING[found]}
        if found == FORMAT:
            part = _to_part(document)
            if part_name(part.case_id) == path.rpartition("/")[2]:
                return part
            raise ValueError(f"it is of the case {part.case_id!r}")
    except (TypeError, ValueError, RecursionError) as error:  # not JSON, or JSON of something else
        raise StorageError(
            f"{path}: damaged, not the whole result of a case ({error}); remove it and run again"
        ) from error
    if found in EARLIER_FORMATS:
        raise _outdated(path, f"of the format {found!r}")
    raise StorageError(
        f"{path}: of the format {found!r}, this program reads {FORMAT!r}; choose another --out, or use the version "
        "of brats-ray that wrote it"
    )


def _to_part(document: dict[str, Any]) -> Part:
    _check_fields(document, {item.name for item in dataclasses.fields(Part)})
    reject, sources = document.pop("reject"), from_rows(document.pop("sources"))
    part = Part(reject=Reject(**reject) if reject else None, sources=sources, **document)
    without_rows: dict[str, Any] = dict.fromkeys(ROWS, ())
    check_types(dataclasses.replace(part, **without_rows))
    for name, kind in ROWS.items():
        check_rows(kind, getattr(part, name))
    return part


def _check_fields(document: Any, names: set[str]) -> None:
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    if missing := names - document.keys():
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
