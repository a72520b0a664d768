"""The table of cases that could not be used, `rejects.parquet`, and what the user is told of them."""

from collections.abc import Sequence
from dataclasses import asdict

import pyarrow as pa

from brats import storage
from brats.errors import BratsError, Reject

REJECTS = storage.TableKind(
    name="rejects",
    schema=pa.schema(
        [
            ("case_id", pa.string()),
            ("path", pa.string()),
            ("stage", pa.string()),
            ("reason", pa.string()),
            ("transient", pa.bool_()),
        ]
    ),
    conventions={"transient": "a reason that may pass, such as a read error: a rerun tries the case again"},
)


def rejects_path(out: str) -> str:
    return storage.join(out, "rejects.parquet")


def write_rejects(out: str, rejects: Sequence[Reject]) -> None:
    """Write the table, also when it is empty, unless it says the same already."""
    if read_rejects(out) != list(rejects) or not storage.exists(rejects_path(out)):
        storage.write_table(rejects_path(out), REJECTS, REJECTS.table(asdict(reject) for reject in rejects))


def read_rejects(out: str) -> list[Reject]:
    """The rejects of an earlier run; none where there is no table."""
    try:
        table = storage.read_table(rejects_path(out), REJECTS)
    except FileNotFoundError:
        return []
    return [Reject(**row) for row in table.to_pylist()]


def check_rejects(rejects: Sequence[Reject], *, strict: bool) -> None:
    """Raise BratsError when `strict` and any case was rejected."""
    if strict and rejects:
        raise BratsError(
            f"{len(rejects)} rejected case{'s' if len(rejects) > 1 else ''} (--strict); the first: {rejects[0]}"
        )
