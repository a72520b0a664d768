"""From the parts of all cases to the final metric tables, and what the user is told of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from brats import storage
from brats.data.rejects import Reject, check_rejects, write_rejects
from brats.errors import BratsError
from brats.score import tables
from brats.score.parts import read_parts


@dataclass(frozen=True)
class Scores:
    """What was scored: where the tables are, of how many cases, their summary, and what was rejected."""

    out: str
    n_cases: int
    table: pa.Table
    rejects: list[Reject]

    def summary(self) -> str:
        """The scores as a small table, for the console."""
        lines = [tables.format_summary(self.table)]
        lines += [f"  rejected {reject}" for reject in self.rejects]
        lines.append(f"metrics  {storage.join(self.out, 'metrics')} ({self.n_cases} cases)")
        return "\n".join(lines)


def write_tables(
    out: str, case_ids: Collection[str], found_rejects: Sequence[Reject], *, config: Mapping[str, Any], strict: bool
) -> Scores:
    """Rebuild the metric tables and the rejects from the parts of these cases.

    Raises BratsError when no case could be used or, with `strict`, when one could not.
    """
    parts = [part for part in read_parts(out).values() if part.case_id in case_ids]
    found = [*found_rejects, *(part.reject for part in parts if part.reject)]
    rejects = sorted(found, key=lambda reject: reject.case_id)
    write_rejects(out, rejects)
    usable = [part for part in parts if not part.reject]
    if not usable:
        raise BratsError(f"{out}: no usable case; the first of {len(rejects)} rejected: {rejects[0]}")
    table = tables.write_metrics(
        out,
        cases=[row for part in usable for row in part.cases],
        slices=[row for part in usable for row in part.slices],
        notebook=[row for part in usable for row in part.notebook],
        config=config,
    )
    check_rejects(rejects, strict=strict)
    return Scores(out, len(usable), table, rejects)
