"""Two predictions of the same cases against each other: paired differences, and whether their order holds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from brats import storage
from brats.console import some
from brats.labels import REGIONS
from brats.score.compare import NOTEBOOK_REGION
from brats.score.lesion_tables import CONVENTIONS
from brats.score.paired import LEAST_DIFFERENCES, by_patient, compare_paired, is_lower_better
from brats.score.summary import N_RESAMPLES, WHOLE_PATIENT
from brats.score.tables import CASE_METRICS

# Of one kind of error alone: a model that finds more gains in one and loses in the other, whichever is better.
ONE_SIDED = (
    *("sensitivity", "specificity", "precision", "relative_volume_difference"),
    *("lesion_dice_2026", "lesion_hd95_mm_2026", "lesion_surface_dice_2026"),  # of the lesions found, alone
)
SIGNED = ("relative_volume_difference",)  # the nearer to 0 the better
SIZES = ("reference_ml", "predicted_ml", "entropy_bits")  # numbers of the table of cases that are no scores
SHOWN = ("dice", "hd95_mm", "nsd_at_1_mm", "lesion_dice_2023", "panoptic_quality_2026")  # on the console
WIDEST_NAME = max(map(len, SHOWN)) + 1
OURS, THEIRS, EQUAL = "predictions", "against", "equal"  # the options that name the two

AGAINST = storage.TableKind(
    name="comparison of two predictions",
    schema=pa.schema(
        [
            ("region", pa.string()),
            ("metric", pa.string()),
            ("convention", pa.string()),
            ("n_cases", pa.int64()),
            ("n_pairs", pa.int64()),
            ("mean", pa.float64()),
            ("mean_against", pa.float64()),
            ("difference", pa.float64()),
            ("difference_ci95_low", pa.float64()),
            ("difference_ci95_high", pa.float64()),
            ("wins", pa.int64()),
            ("losses", pa.int64()),
            ("ties", pa.int64()),
            ("better", pa.string()),
            ("p_wilcoxon", pa.float64()),
            ("why_no_p", pa.string()),
        ]
    ),
    conventions={
        "convention": "brats: of the whole patient, in metrics/cases.parquet; "
        f"{', '.join(convention.name for convention in CONVENTIONS)}: by lesion, in columns of that year there; "
        "notebook: metrics/notebook.parquet, all labels together",
        "metric": "as in metrics/cases.parquet; of relative_volume_difference the absolute value",
        "n_cases": "cases that both have scored; the others are left out",
        "n_pairs": "patients with a value of both, each the mean over the cases of the patient",
        "mean, mean_against": "over these patients, of --predictions and of --against",
        "difference": "mean over these patients of the value of --predictions minus that of --against",
        "difference_ci95_low, difference_ci95_high": f"percentile bootstrap of that mean, {N_RESAMPLES} resamples "
        "of patients; null below two patients",
        "wins, losses, ties": "patients on whom --predictions is better, worse, or equal to the bit",
        "better": "predictions, against or equal, by the difference of the means",
        "p_wilcoxon": "two-sided Wilcoxon signed-rank test of the differences, those of 0 left out (Wilcoxon "
        f"1945); null, with the reason in why_no_p, below {LEAST_DIFFERENCES} of them; not corrected for the "
        "number of metrics and regions",
    },
)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores of one prediction.

    name:     of its folder, for messages
    cases:    the rows of `metrics/cases.parquet`, nulls as NaN
    notebook: the rows of `metrics/notebook.parquet`
    """

    name: str
    cases: pd.DataFrame
    notebook: pd.DataFrame

    @property
    def case_ids(self) -> set[str]:
        return {*self.cases["case_id"]}

    def has(self, metric: str) -> bool:
        """Whether any case has a value of a metric."""
        return metric in self.cases and bool(self.cases[metric].notna().any())


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two predictions compared: the table AGAINST, and what is left out of it or makes it doubtful, a line each."""

    table: pa.Table
    notes: Sequence[str] = field(default_factory=list)

    def summary(self) -> str:
        """A small table, the line on the order and the notes, for the console."""
        return "\n".join([format_against(self.table), order_line(self.table), *self.notes])


def compare_against(ours: Scored, theirs: Scored) -> Comparison:
    """Compare two predictions on the cases that both have scored, patient by patient.

    A case is of the patient that `ours` has it of. There must be a case of both.
    """
    notes = [*_left_out(ours, theirs), *_other_references(ours, theirs), *_lacking(ours, theirs)]
    shared = ours.case_ids & theirs.case_ids
    patients = ours.cases.drop_duplicates("case_id").set_index("case_id")["patient_id"]
    ours, theirs = (_on(scored, shared, patients) for scored in (ours, theirs))
    rows = [{"n_cases": len(shared), **row} for row in _rows(ours, theirs)]
    return Comparison(table=AGAINST.table(rows), notes=notes)


def compared_metrics() -> list[str]:
    """The scores among the columns of `metrics/cases.parquet`."""
    return [
        column.name for column in CASE_METRICS.schema if column.type == pa.float64() and column.name not in SIZES
    ]


def _on(scored: Scored, case_ids: set[str], patients: pd.Series) -> Scored:
    """The scores of these cases alone, of these patients; signed ones as their distance from 0."""
    cases = scored.cases[scored.cases["case_id"].isin(case_ids)].copy()
    cases["patient_id"] = cases["case_id"].map(patients)
    for metric in filter(scored.has, SIGNED):
        cases[metric] = cases[metric].abs()
    notebook = scored.notebook[scored.notebook["case_id"].isin(case_ids)].copy()
    notebook["patient_id"] = notebook["case_id"].map(patients)
    notebook["region"] = NOTEBOOK_REGION
    return replace(scored, cases=cases, notebook=notebook)


def _rows(ours: Scored, theirs: Scored) -> Iterator[dict[str, Any]]:
    by_lesion = {metric.name: convention.name for convention in CONVENTIONS for metric in convention.metrics}
    for region in REGIONS:
        for metric in compared_metrics():
            if ours.has(metric) and theirs.has(metric):
                scores = [by_patient(scored.cases, region, metric) for scored in (ours, theirs)]
                names = {"region": region, "metric": metric, "convention": by_lesion.get(metric, WHOLE_PATIENT)}
                yield {**names, **_compare(metric, *scores)}
    for metric in _notebook_metrics(ours, theirs):
        scores = [_of_notebook(scored.notebook, metric) for scored in (ours, theirs)]
        names = {"region": NOTEBOOK_REGION, "metric": metric, "convention": "notebook"}
        yield {**names, **_compare(metric, *scores)}


def _notebook_metrics(ours: Scored, theirs: Scored) -> list[str]:
    """The notebook metrics that both average alike: over two labels where a model predicts WT alone, else four."""
    pairs = [set(zip(each.notebook["metric"], each.notebook["averaging"], strict=True)) for each in (ours, theirs)]
    return sorted({metric for metric, _ in pairs[0] & pairs[1]} - {metric for metric, _ in pairs[0] ^ pairs[1]})


def _of_notebook(notebook: pd.DataFrame, metric: str) -> pd.Series:
    rows = notebook[notebook["metric"] == metric]
    return by_patient(rows.rename(columns={"value": metric}).drop(columns="metric"), NOTEBOOK_REGION, metric)


def _compare(metric: str, ours: pd.Series, theirs: pd.Series) -> dict[str, Any]:
    """The columns of AGAINST of a metric, from its values by patient."""
    lower_is_better = is_lower_better(metric) or metric in SIGNED
    found = compare_paired(ours, theirs, lower_is_better=lower_is_better)
    both = pd.DataFrame({"ours": ours, "theirs": theirs}).dropna()
    return {
        "n_pairs": found.n_pairs,
        "mean": float(both["ours"].mean()) if len(both) else None,
        "mean_against": float(both["theirs"].mean()) if len(both) else None,
        "difference": found.difference,
        "difference_ci95_low": found.ci95_low,
        "difference_ci95_high": found.ci95_high,
        "wins": found.wins,
        "losses": found.losses,
        "ties": found.n_pairs - found.wins - found.losses,
        "better": _better(found.difference, lower_is_better=lower_is_better),
        "p_wilcoxon": found.p,
        "why_no_p": found.why_no_p or None,
    }


def _better(difference: float | None, *, lower_is_better: bool) -> str | None:
    if difference is None:
        return None
    gain = -difference if lower_is_better else difference
    return OURS if gain > 0 else THEIRS if gain < 0 else EQUAL


def _left_out(ours: Scored, theirs: Scored) -> Iterator[str]:
    for one, other in ((ours, theirs), (theirs, ours)):
        if only := sorted(one.case_ids - other.case_ids):
            yield f"left out, scored in {one.name} only: {some(only)}"


def _other_references(ours: Scored, theirs: Scored) -> Iterator[str]:
    """The warning that cases were scored against different references, told by their sizes."""
    sizes = [
        scored.cases.set_index(["case_id", "region"])["n_reference_voxels"].astype(np.float64)
        for scored in (ours, theirs)
    ]
    both = pd.concat(sizes, axis=1, join="inner")
    differ = both[both.iloc[:, 0] != both.iloc[:, 1]].index.get_level_values("case_id").unique()
    if len(differ):
        yield f"WARNING: scored against references of different sizes: {some(differ)}; the two do not compare there"


def _lacking(ours: Scored, theirs: Scored) -> Iterator[str]:
    """The metrics that one of the two lacks, with the command that adds them."""
    for one, other in ((ours, theirs), (theirs, ours)):
        if missing := [name for name in compared_metrics() if other.has(name) and not one.has(name)]:
            yield (
                f"not compared, since {one.name} lacks them: {some(missing)}; evaluate.py --predictions {one.name} "
                "adds what its masks give"
            )


def order_line(table: pa.Table) -> str:
    """Whether the order of the two depends on the convention, in one line, from the rows of AGAINST."""
    by_region: dict[str, dict[str, list[str]]] = {}
    for row in table.to_pylist():
        if row["better"] and row["metric"] not in ONE_SIDED:
            by_region.setdefault(row["region"], {}).setdefault(row["better"], []).append(row["metric"])
    orders = {better for found in by_region.values() for better in found} - {EQUAL}
    if len(orders) < 2:
        how = {OURS: "--predictions is better", THEIRS: "--against is better"}
        return f"order    the same by every convention: {how[orders.pop()] if orders else 'the two are equal'}"
    sides = [f"{region} {_sides(found)}" for region, found in by_region.items()]
    return f"order    changes with the convention: {'; '.join(sides)}"


def _sides(found: dict[str, list[str]]) -> str:
    """How many metrics of a region favour which side; the fewer ones by name."""
    ours, theirs = found.get(OURS, []), found.get(THEIRS, [])
    if not (ours and theirs):
        return f"better by all {len(ours)}" if ours else f"worse by all {len(theirs)}" if theirs else "equal"
    few, word = (ours, "better") if len(ours) < len(theirs) else (theirs, "worse")
    other, n_other = ("worse", len(theirs)) if word == "better" else ("better", len(ours))
    return f"{other} by {n_other}, {word} by {some(few)}"


def format_against(table: pa.Table) -> str:
    """The most used metrics as a small table for the console: lines of up to 116 columns, no newline at the end."""
    rows = [row for row in table.to_pylist() if row["metric"] in SHOWN and row["region"] in REGIONS]
    lines = [
        f"{'region':<7}{'metric':<{WIDEST_NAME}}{'n':>4}{'mean':>9}{'against':>9}   "
        f"{'difference [95 % interval]':<28}better worse equal       p"
    ]
    lines += [_line(row) for row in rows if row["n_pairs"]]
    lines.append(
        "n: patients of both; difference: --predictions minus --against, mean over patients; p: signed-rank"
    )
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    low, high = (_number(row[f"difference_ci95_{end}"]) for end in ("low", "high"))
    return (
        f"{row['region']:<7}{row['metric']:<{WIDEST_NAME}}{row['n_pairs']:>4}{_number(row['mean']):>9}"
        f"{_number(row['mean_against']):>9}   {_number(row['difference']) + f' [{low}, {high}]':<28}"
        f"{row['wins']:>6}{row['losses']:>6}{row['ties']:>6}{_number(row['p_wilcoxon']):>8}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
