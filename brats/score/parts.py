"""What is known of one predicted case, written last of all it has: `parts/<case_id>.parquet`.

A part marks its case as done and holds its rows of every metric table, or its reject. The final tables are rebuilt
from the parts, so that a run that broke off and went on ends with the tables of an unbroken one.
"""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from brats import storage
from brats.data.rejects import Reject

Row = Mapping[str, Any]

PART = storage.TableKind(
    name="part",
    schema=pa.schema([("kind", pa.string()), ("row", pa.string())]),
    conventions={"kind": "source, reject, or the metric table the row belongs to", "row": "the row as JSON"},
)
READERS = 8  # parts read at a time; on S3 their latencies overlap


@dataclass(frozen=True, kw_only=True)
class Part:
    """One case: the size of what it was made from, its metric rows, or why there are none."""

    case_id: str
    source_bytes: int
    reject: Reject | None = None
    cases: Sequence[Row] = ()
    slices: Sequence[Row] = ()
    notebook: Sequence[Row] = ()


def is_done(part: Part | None, source_bytes: int) -> bool:
    """Whether a case is done from files of this size, or was rejected for a reason that stays."""
    if part is None or part.source_bytes != source_bytes:
        return False
    return part.reject is None or not part.reject.transient


def write_part(out: str, part: Part) -> None:
    rows: list[tuple[str, Row]] = [("source", {"case_id": part.case_id, "source_bytes": part.source_bytes})]
    rows += [("reject", asdict(part.reject))] if part.reject else []
    for kind in ("cases", "slices", "notebook"):
        rows += [(kind, row) for row in getattr(part, kind)]
    columns = {"kind": [kind for kind, _ in rows], "row": [json.dumps(row) for _, row in rows]}
    path = storage.join(out, "parts", f"{part.case_id}.parquet")
    storage.write_table(path, PART, pa.table(columns, schema=PART.schema))


def read_parts(out: str) -> dict[str, Part]:
    """Every part by case id, in the order of the ids."""
    try:
        files = storage.list_files(storage.join(out, "parts"))
    except FileNotFoundError:
        return {}
    paths = [file.path for file in files if file.name.endswith(".parquet") and not file.name.startswith(".")]
    with ThreadPoolExecutor(READERS) as pool:
        parts = list(pool.map(_read_part, paths))
    return {part.case_id: part for part in sorted(parts, key=lambda part: part.case_id)}


def _read_part(path: str) -> Part:
    rows: dict[str, list[Any]] = {"source": [], "reject": [], "cases": [], "slices": [], "notebook": []}
    for entry in storage.read_table(path, PART).to_pylist():
        rows[entry["kind"]].append(json.loads(entry["row"]))
    return Part(
        **rows["source"][0],
        reject=Reject(**rows["reject"][0]) if rows["reject"] else None,
        cases=rows["cases"],
        slices=rows["slices"],
        notebook=rows["notebook"],
    )
