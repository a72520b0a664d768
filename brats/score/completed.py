"""The result of a case completed: what today's metrics add to its rows, all that was there kept as it was."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from brats.errors import CaseError
from brats.labels import REGIONS
from brats.score.parts import Part
from brats.score.tables import MetricRow

Rows = Mapping[str, Sequence[MetricRow]]
"""The rows of a case for each of its tables, as `score_rows` makes them."""

KEYS = {"cases": ("region",), "slices": ("slice_index", "region"), "notebook": ("metric", "averaging")}
"""What tells the rows of a case apart, in tables whose rows have one score or more that can be compared."""
REMEDY = "one of them has changed since; nothing was written of this case: give another --out, or predict it again"
NOT_SCORED = ("patient_id", "split", "entropy_bits")  # columns that a mask and its reference do not give


def is_scored(part: Part) -> bool:
    """Whether a case was scored against a reference."""
    return bool(part.cases)


def predicted_regions(parts: Iterable[Part]) -> tuple[str, ...]:
    """The regions that a model predicts, from its results: those with a predicted size; all where none says so."""
    rows = [row for part in parts for row in (*part.cases, *part.uncertainty)]
    found = {row["region"] for row in rows if row.get("n_predicted_voxels") is not None}
    return tuple(region for region in REGIONS if region in found or not found)


def completed(part: Part, rows: Rows, path: str) -> Part:
    """A result with the columns and rows that it lacks, from rows scored anew.

    rows: those of a table that the result has none of are added, except slices beside those that it has
    path: of the result, for the message

    Raises CaseError where a value that is there differs, to the bit, from the new one.
    """
    found: dict[str, Any] = {}
    for table, fresh in rows.items():
        before = getattr(part, table)
        if not before:
            found[table] = list(fresh)
        elif table in KEYS:
            by_key = {_key(table, row): row for row in fresh}
            found[table] = [_merge(row, by_key.get(_key(table, row)), path) for row in before]
    return dataclasses.replace(part, **found)


def _key(table: str, row: MetricRow) -> tuple[Any, ...]:
    return tuple(row.get(column) for column in KEYS[table])


def _merge(before: MetricRow, fresh: MetricRow | None, path: str) -> dict[str, Any]:
    """A row with the columns of a fresh one that it lacks. Raises CaseError where they differ."""
    if fresh is None:
        raise CaseError(path, f"has a row {_name(before)}, which its mask and its reference do not give; {REMEDY}")
    for column, value in before.items():
        if column in fresh and column not in NOT_SCORED and value is not None and value != fresh[column]:
            raise CaseError(
                path,
                f"{column} {_name(before)} is {value!r}, but {fresh[column]!r} from its mask and its reference; "
                f"{REMEDY}",
            )
    return {**before, **{column: value for column, value in fresh.items() if before.get(column) is None}}


def _name(row: MetricRow) -> str:
    """A row in words, by what tells it apart: of slice 4, ET."""
    if "slice_index" in row:
        return f"of slice {row['slice_index']}, {row['region']}"
    return f"of {row['region'] if 'region' in row else row['averaging']}"
