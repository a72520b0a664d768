"""The results of a set of cases: the metric tables and the rejects, rebuilt from the parts of the cases."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa

from brats import storage
from brats.data.plausibility import Warned, warning_lines
from brats.data.rejects import Reject, write_rejects
from brats.errors import BratsError
from brats.score.label_orders import CodeCounts
from brats.score.lesion_tables import rules_line
from brats.score.parts import ROWS, parts_dir, read_parts
from brats.score.summary import SUMMARY, format_summary, summarise
from brats.score.tables import CASE_METRICS, MetricRow, TableName, metrics_dir, metrics_path
from brats.score.uncertainty_tables import RANKING, UNCERTAINTY, look_first, ranking, with_ranks


@dataclass(frozen=True)
class Results:
    """What was scored: the folder of the tables, the number of usable cases, statistics, rejects and warnings.

    code_counts: of the predictions, by case, where they are those of another program
    doubts:      what makes the scores doubtful, a line each
    look_first:  the line that names the most uncertain cases; "" where that is not known
    rules:       by whose rules of 2023 the lesions were scored; "" where they were not
    """

    out: str
    n_cases: int
    statistics: pa.Table
    rejects: list[Reject]
    warnings: list[Warned] = field(default_factory=list)
    code_counts: Mapping[str, CodeCounts] = field(default_factory=dict)
    doubts: Sequence[str] = ()
    look_first: str = ""
    rules: str = ""

    @property
    def cases(self) -> pd.DataFrame:
        """The scores of `metrics/cases.parquet`: one row per case and region; none without references."""
        frame: pd.DataFrame = storage.read_table(metrics_path(self.out, "cases"), CASE_METRICS).to_pandas()
        return frame

    @property
    def statistics_frame(self) -> pd.DataFrame:
        """The statistics of `metrics/summary.parquet`: one row per region, metric, convention and subset."""
        frame: pd.DataFrame = self.statistics.to_pandas()
        return frame

    def summary(self) -> str:
        """The scores as a small table, for the console."""
        lines = [format_summary(self.statistics)]
        lines += [f"lesions of 2023 by the rules of {self.rules}"] if self.rules else []
        lines += [self.look_first] if self.look_first else []
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
    rows = {name: [row for part in usable for row in getattr(part, name)] for name in ROWS}
    statistics, look_first = write_metric_tables(out, rows, len(usable), config=config)
    code_counts = {part.case_id: part.code_counts for part in usable if part.code_counts}
    warnings = [Warned(part.case_id, text) for part in usable for text in part.warnings]
    rules = rules_line(rows["cases"])
    return Results(out, len(usable), statistics, rejects, warnings, code_counts, look_first=look_first, rules=rules)


def write_metric_tables(
    out: str, rows: Mapping[TableName, Sequence[MetricRow]], n_cases: int, *, config: Mapping[str, Any]
) -> tuple[pa.Table, str]:
    """Write the tables of `out`/metrics from the rows of all of the cases, by field of `Part`.

    The tables of uncertainty are written where there are such rows; masks without probabilities have none.

    Returns the summary, and the line that names the cases to look at first.
    """
    tables: dict[TableName, tuple[storage.TableKind, pa.Table]] = {
        name: (kind, kind.table(rows.get(name, ()))) for name, kind in ROWS.items()
    }
    cases, notebook, uncertainty = (tables[name][1] for name in ("cases", "notebook", "uncertainty"))
    summary = summarise(cases, notebook, uncertainty)
    tables["summary"] = (SUMMARY, summary)
    line = ""
    if len(uncertainty):
        ranked, quality = with_ranks(uncertainty), ranking(uncertainty, cases)
        tables |= {"uncertainty": (UNCERTAINTY, ranked), "ranking": (RANKING, quality)}
        line = look_first(ranked, quality, n_cases)
    else:
        del tables["uncertainty"], tables["uncertainty_curves"]
    for name, (kind, table) in tables.items():
        storage.write_table(metrics_path(out, name), kind, table, config=dict(config))
    return summary, line
