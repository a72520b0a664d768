"""Rejects: cases that could not be used, their table `rejects.parquet`, and the check of --strict."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import pyarrow as pa

from brats import storage
from brats.errors import BratsError, CaseError

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


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A case that could not be used: one row of `rejects.parquet`."""

    case_id: str
    path: str
    stage: str
    """Where it failed: find, read or predict."""
    reason: str
    transient: bool = False
    """Whether a rerun retries this case."""

    @classmethod
    def from_error(cls, case_id: str, stage: str, error: CaseError) -> "Reject":
        return cls(case_id=case_id, path=error.path, stage=stage, reason=error.reason, transient=error.transient)

    def __str__(self) -> str:
        return f"{self.case_id}: {self.path}: {self.reason}" if self.path else f"{self.case_id}: {self.reason}"


def rejects_path(out: str) -> str:
    return storage.join(out, "rejects.parquet")


def write_rejects(out: str, rejects: Sequence[Reject]) -> None:
    """Write the table, even an empty one, unless the one there has the same rows."""
    if read_rejects(out) != list(rejects) or not storage.exists(rejects_path(out)):
        storage.write_table(rejects_path(out), REJECTS, REJECTS.table(asdict(reject) for reject in rejects))


def read_rejects(out: str) -> list[Reject]:
    """The rejects of an earlier run; none where there is no table."""
    try:
        table = storage.read_table(rejects_path(out), REJECTS)
    except FileNotFoundError:
        return []
    return [Reject(**row) for row in table.to_pylist()]


class HasRejects(Protocol):
    """The result of a job on cases."""

    @property
    def rejects(self) -> Sequence[Reject]: ...

    def summary(self) -> str: ...


def check_rejects(result: HasRejects, *, strict: bool) -> None:
    """Show the result of a job and raise BratsError when `strict` and any case was rejected."""
    rejects = result.rejects
    if strict and rejects:
        print(result.summary(), flush=True)
        raise BratsError(
            f"{len(rejects)} rejected case{'s' if len(rejects) > 1 else ''} (--strict); the first: {rejects[0]}"
        )
