"""The sections of test results: each region by each convention, volumes, rejects and warnings."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from brats.labels import REGIONS
from brats.report.charts import Series, chart
from brats.report.findings import Scores
from brats.report.html import DASH, listing, number, paragraph, section, table, text
from brats.score.paired import is_lower_better
from brats.score.tables import TableName

# Why the figures of two conventions differ; of one that is not named here its own columns say what it is.
WHY = {
    "brats": "of each region of each patient in 3-D, on the full volume, then the mean over cases: what challenges "
    "and papers mean by Dice",
    "notebook": "all voxels in one pool with the background as a class: nearly all are background, so these are "
    "close to 1 for any mask and say little of tumours",
    "qu-brats": "of the probabilities, not of the masks alone: voxels are set aside from the most uncertain on",
}
SUBSETS = {
    "all": "all cases",
    "present": "cases whose reference has the region: without them one stray voxel turns a Dice of 1 into 0",
    "tiny": "tumours below 1 ml, of which a voxel more or less is a large share",
    "not_tiny": "tumours of 1 ml and more",
}
TABLE_OF: dict[str, TableName] = {"notebook": "notebook", "qu-brats": "uncertainty"}  # the others: cases
OVERLAP_WORDS = ("dice", "accuracy", "pq")  # of metrics that people compare under one name


def results_section(scores: Scores | None, distributions: str) -> str:
    """The scores by region, and every convention beside the next.

    distributions: the picture of the scores of all cases, as HTML
    """
    summary = scores.table("summary") if scores else pd.DataFrame()
    if scores is None or summary.empty:
        return section("results", "Test results", paragraph("No case with a reference was scored.", "note"))
    return section(
        "results",
        "Test results",
        *_tables(scores, summary),
        distributions,
        "<h3>One set of masks, by each convention</h3>",
        side_by_side(summary),
        _details(summary),
    )


def digits_of(metric: str) -> int:
    """Decimals that a metric is given with."""
    few = is_lower_better(metric) or metric.startswith("n_") or metric.endswith("_ml")  # mm, lesions, ml
    return 1 if few else 3


def mean_and_interval(row: Mapping[str, Any]) -> str:
    """A mean with its 95 % interval, and a dash where there is none."""
    digits = digits_of(str(row["metric"]))
    if pd.isna(row["mean"]) or pd.isna(row["ci95_low"]):
        return number(row["mean"], digits)
    return f"{row['mean']:.{digits}f} [{row['ci95_low']:.{digits}f}, {row['ci95_high']:.{digits}f}]"


def _tables(scores: Scores, summary: pd.DataFrame) -> Iterator[str]:
    """For each convention a table of means with a column for each region, and what each metric means."""
    for convention, group in summary[summary["subset"] == "all"].groupby("convention", sort=False):
        group = group[group["n"] > 0]
        if group.empty:
            continue
        regions = list(dict.fromkeys(group["region"]))
        rows = [
            [metric, *_cells(of_metric, regions), number(int(of_metric["n"].max()))]
            for metric, of_metric in group.groupby("metric", sort=False)
        ]
        title = f"Convention {convention}: mean over cases [95 % interval by patient]"
        yield table([str(convention), *regions, "n"], rows, title)
        name = TABLE_OF.get(str(convention), "cases")
        meanings = {str(row[0]): scores.convention(name, str(row[0])) for row in rows}
        lines = [f"{metric}: {meaning}" for metric, meaning in meanings.items() if meaning]
        yield f"<details><summary>What these metrics mean</summary>{listing(lines)}</details>" if lines else ""


def _cells(rows: pd.DataFrame, regions: Sequence[str]) -> list[str]:
    found = {row["region"]: mean_and_interval(row) for row in rows.to_dict("records")}
    return [found.get(region, DASH) for region in regions]


def side_by_side(summary: pd.DataFrame) -> str:
    """The overlaps of every convention and subset in one table, then a sentence on what each counts."""
    chosen = summary[summary["metric"].map(is_overlap) & (summary["n"] > 0)]
    regions = list(dict.fromkeys(chosen["region"]))
    rows = [
        [f"{convention}, {metric}, {subset}", *_cells(group, regions), number(int(group["n"].max()))]
        for (convention, metric, subset), group in chosen.groupby(["convention", "metric", "subset"], sort=False)
    ]
    reasons = {name: WHY.get(name, "") for name in dict.fromkeys(chosen["convention"])}
    reasons |= {name: SUBSETS.get(name, "") for name in dict.fromkeys(chosen["subset"])}
    why = listing(f"{name}: {reason}" for name, reason in reasons.items() if reason)
    return table(["convention, metric, cases", *regions, "n"], rows) + why


def is_overlap(metric: str) -> bool:
    return any(word in metric for word in OVERLAP_WORDS)


def _details(summary: pd.DataFrame) -> str:
    """All rows of the summary, folded."""
    statistics = ("mean", "std", "median", "q25", "q75", "ci95_low", "ci95_high")
    rows = [
        [
            *(str(row[name]) for name in ("region", "metric", "convention", "subset")),
            number(int(row["n"])),
            *(number(row[name], digits_of(str(row["metric"]))) for name in statistics),
        ]
        for row in summary.to_dict("records")
        if row["n"] > 0
    ]
    whole = table(["region", "metric", "convention", "subset", "n", *statistics], rows)
    return f"<details><summary>All of metrics/summary.parquet ({len(rows)} rows)</summary>{whole}</details>"


def volumes_section(cases: pd.DataFrame) -> str:
    """Dice by the volume of the tumour, and predicted by reference volume: a point for each case and region."""
    scored = cases.dropna(subset=["dice"]) if len(cases) else cases
    if scored.empty:
        return ""
    return section(
        "volumes",
        "Volumes",
        '<div class="charts">',
        chart(
            "Dice by volume",
            _by_region(scored, "reference_ml", "dice"),
            x_label="reference volume, ml",
            y_label="Dice",
            y_limits=(0, 1.02),
            log_x=True,
        ),
        chart(
            "Predicted by reference volume",
            _by_region(scored, "reference_ml", "predicted_ml"),
            x_label="reference volume, ml",
            y_label="predicted volume, ml",
            log_x=True,
            log_y=True,
            diagonal=True,
        ),
        "</div>",
        paragraph(
            "Empty masks stand at the edge of a logarithmic axis. On the dashed line both volumes are equal."
        ),
    )


def _by_region(cases: pd.DataFrame, x: str, y: str) -> list[Series]:
    found = []
    for name, region in REGIONS.items():
        rows = cases[cases["region"] == name]
        hints = [f"{case_id} {name}: {a:.2f}, {b:.3f}" for case_id, a, b in rows[["case_id", x, y]].to_numpy()]
        found.append(
            Series(
                name=f"{name} {region.full_name}",
                x=rows[x].tolist(),
                y=rows[y].tolist(),
                colour=region.colour,
                marker=region.marker,
                line=False,
                hints=hints,
            )
        )
    return found


def rejects_section(rejects: Mapping[str, Sequence[str]], warnings: Sequence[str], notes: Sequence[str]) -> str:
    """Cases that could not be used, by stage, implausible ones, and what this page lacks, with the reasons."""
    blocks = []
    for stage, lines in rejects.items():
        blocks.append(f"<h3>Rejected when {text(stage)} ({len(lines)})</h3>{listing(lines)}")
    if warnings:
        blocks.append(f"<h3>Warnings ({len(warnings)})</h3>{listing(warnings)}")
    if notes:
        blocks.append(f"<h3>Missing from this page</h3>{listing(notes)}")
    none = paragraph("No case was rejected, none was implausible, and nothing is missing from this page.")
    return section("rejects", "Rejects and warnings", *(blocks or [none]))
