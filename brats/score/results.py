"""The results of a set of cases: the metric tables and the rejects, rebuilt from the parts of the cases."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from brats import storage
from brats.data.plausibility import Warned, warning_lines
from brats.data.rejects import Reject, write_rejects
from brats.errors import BratsError
from brats.score.label_orders import CodeCounts
from brats.score.parts import parts_dir, read_parts
from brats.score.summary import SUMMARY, format_summary, summarise
from brats.score.tables import CASE_METRICS, NOTEBOOK, SLICES, MetricRow, TableName, metrics_dir, metrics_path


@dataclass(frozen=True)
class Results:
    """What was scored: the folder of the tables, the number of usable cases, statistics, rejects and warnings.

    code_counts: of the predictions, by case, where they are those of another program
    doubts:      what makes the scores doubtful, a line each
    """

    out: str
    n_cases: int
    statistics: pa.Table
    rejects: list[Reject]
    warnings: list[Warned] = field(default_factory=list)
    code_counts: Mapping[str, CodeCounts] = field(default_factory=dict)
    doubts: Sequence[str] = ()

    def summary(self) -> str:
        """The scores as a small table, for the console."""
        lines = [format_summary(self.statistics)]
        lines += warning_lines(self.warnings, parts_dir(self.out))
        lines += [f"  rejected {reject}" for reject in self.rejects]
        lines += [f"WARNING: {doubt}" for doubt in self.doubts]
        lines.append(f"metrics  {metrics_dir(self.out)} ({self.n_cases} cases)")
        return "\n".join(lines)


def write_results(
    out: str, case_ids: Collection[str], found_rejects: Sequence[Reject], *, config: Mapping[str, Any]
) -> Results:
    """Rebuild the metric tables and the rejects of a folder from its parts of these cases.

    found_rejects: cases that have no part, because they were rejected when the cases were listed

    Raises BratsError when no case could be used.
    """
    parts = [part for part in read_parts(out).values() if part.case_id in case_ids]
    found = [*found_rejects, *(part.reject for part in parts if part.reject)]
    rejects = sorted(found, key=lambda reject: reject.case_id)
    write_rejects(out, rejects)
    usable = [part for part in parts if not part.reject]
    if not usable:
        raise BratsError(f"{out}: no usable case; the first of {len(rejects)} rejected: {rejects[0]}")
    statistics = write_metric_tables(
        out,
        cases=[row for part in usable for row in part.cases],
        slices=[row for part in usable for row in part.slices],
        notebook=[row for part in usable for row in part.notebook],
        config=config,
    )
    code_counts = {part.case_id: part.code_counts for part in usable if part.code_counts}
    warnings = [Warned(part.case_id, text) for part in usable for text in part.warnings]
    return Results(out, len(usable), statistics, rejects, warnings, code_counts)


def write_metric_tables(
    out: str,
    *,
    cases: Sequence[MetricRow],
    slices: Sequence[MetricRow],
    notebook: Sequence[MetricRow],
    config: Mapping[str, Any],
) -> pa.Table:
    """Write the four tables of `out`/metrics from the rows of all cases. Returns the summary."""
    cases_table, notebook_table = CASE_METRICS.table(cases), NOTEBOOK.table(notebook)
    summary = summarise(cases_table, notebook_table)
    tables: dict[TableName, tuple[storage.TableKind, pa.Table]] = {
        "cases": (CASE_METRICS, cases_table),
        "slices": (SLICES, SLICES.table(slices)),
        "notebook": (NOTEBOOK, notebook_table),
        "summary": (SUMMARY, summary),
    }
    for name, (kind, table) in tables.items():
        storage.write_table(metrics_path(out, name), kind, table, config=dict(config))
    return summary
