"""Reliability: whether probabilities are shares of the reference, and whether doubt finds the bad cases."""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from brats.data.segmented_case import N_LEVELS
from brats.labels import REGIONS, region_mask
from brats.report.charts import Series, chart
from brats.report.findings import Scores
from brats.report.html import number, paragraph, section, table
from brats.report.volumes import Layers
from brats.score.uncertainty import N_CALIBRATION_BINS

FEWEST_VOXELS = 20  # of a bin, below which its share says nothing and is not drawn

CURVE_TITLES = {
    "dice": "Dice of the voxels left",
    "ftp": "True positives set aside",
    "ftn": "True negatives set aside",
}
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Calibration = Mapping[str, Counts]
"""Voxels of the brain by probability x 255 and by whether the reference has the region, (256, 2), by region."""


def calibration(layers: Layers) -> dict[str, Counts]:
    """The counts of one case; none without a reference or without probabilities."""
    if layers.reference is None:
        return {}
    brain = np.zeros(layers.reference.shape, bool)
    for name, image in layers.case.images.items() if layers.probabilities else ():
        brain |= layers.case.intensities[name].is_brain(image)
    found = {}
    for region, probability in layers.probabilities.items():
        index = probability[brain].astype(np.int64) * 2 + region_mask(layers.reference[brain], region)
        found[region] = np.bincount(index, minlength=2 * N_LEVELS).reshape(N_LEVELS, 2)
    return found


def add_up(cases: Iterable[Calibration]) -> dict[str, Counts]:
    """The counts of several cases together."""
    total: dict[str, Counts] = {}
    for case in cases:
        for region, counts in case.items():
            total[region] = total.get(region, 0) + counts
    return total


def reliability_section(scores: Scores | None, counts: Calibration) -> str:
    """The reliability diagram where probabilities were written, QU-BraTS curves, the ranking of cases by doubt."""
    if scores is None or scores.table("uncertainty").empty:
        return ""
    no_diagram = paragraph(
        "A reliability diagram needs the probabilities: predict with --probabilities and report on that folder.",
        "note",
    )
    charts = [_diagram(counts), *_curves(scores.table("uncertainty_curves"))]
    return section(
        "reliability",
        "Reliability",
        f'<div class="charts">{"".join(filter(None, charts))}</div>',
        "" if counts else no_diagram,
        _ranking(scores),
    )


def calibration_curve(counts: Counts) -> tuple[Floats, Floats, Counts]:
    """The mean probability of each bin, the share of its voxels in the reference, and how many voxels it has.

    counts: (256, 2), of one region; bins of few voxels are left out
    """
    bins = np.minimum(np.arange(N_LEVELS) * N_CALIBRATION_BINS // (N_LEVELS - 1), N_CALIBRATION_BINS - 1)
    of_level = counts.sum(axis=1)
    totals = np.bincount(bins, of_level, N_CALIBRATION_BINS)
    sums = np.bincount(bins, of_level * np.arange(N_LEVELS) / (N_LEVELS - 1), N_CALIBRATION_BINS)
    inside = np.bincount(bins, counts[:, 1], N_CALIBRATION_BINS)
    drawn = totals >= FEWEST_VOXELS
    return sums[drawn] / totals[drawn], inside[drawn] / totals[drawn], totals[drawn].astype(np.int64)


def mean_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Means over cases, by region and threshold, of the rows of `metrics/uncertainty_curves.parquet`."""
    means: pd.DataFrame = (
        curves.groupby(["region", "threshold"], sort=False)[list(CURVE_TITLES)].mean().reset_index()
    )
    return means


def _diagram(counts: Calibration) -> str:
    """Share of voxels in the reference by predicted probability, in equal bins; "" without probabilities."""
    if not counts:
        return ""
    series = []
    for name, of_region in counts.items():
        predicted, inside, totals = calibration_curve(of_region)
        region = REGIONS[name]
        series.append(
            Series(
                name=f"{name} {region.full_name}",
                x=predicted.tolist(),
                y=inside.tolist(),
                colour=region.colour,
                marker=region.marker,
                hints=[f"{name}: {total:,} voxels" for total in totals.tolist()],
            )
        )
    return chart(
        "Reliability, voxels of the brain",
        series,
        x_label="predicted probability",
        y_label="share in the reference",
        x_limits=(0, 1),
        y_limits=(0, 1),
        diagonal=True,
    )


def _curves(curves: pd.DataFrame) -> Iterable[str]:
    """Means over cases of the QU-BraTS curves by threshold."""
    if curves.empty:
        return
    means = mean_curves(curves)
    for column, title in CURVE_TITLES.items():
        series = []
        for name, region in REGIONS.items():
            rows = means[means["region"] == name]
            label = f"{name} {region.full_name}"
            values = {"x": rows["threshold"].tolist(), "y": rows[column].tolist()}
            if len(rows):
                series.append(Series(name=label, colour=region.colour, marker=region.marker, **values))
        yield chart(title, series, x_label="threshold of uncertainty", y_label=column, y_limits=(0, 1.02))


def _ranking(scores: Scores) -> str:
    """How well doubt orders the cases by their Dice."""
    rows = [
        [
            str(row["region"]),
            number(int(row["n"])),
            number(row["spearman"]),
            number(None if pd.isna(row["n_bad"]) else int(row["n_bad"])),
            number(row["auroc"]),
        ]
        for row in scores.table("ranking").to_dict("records")
    ]
    header = ["region", "n", "Spearman with Dice", "bad cases", "AUROC for bad cases"]
    return table(header, rows, "Doubt per voxel as a warning of bad cases") if rows else ""
