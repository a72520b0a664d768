"""Figures of volumes, of the QU-BraTS curves and of reliability, as the page shows them."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from brats.labels import REGIONS
from brats.report.figure_files import blank_figure
from brats.report.reliability import CURVE_TITLES, Calibration, calibration_curve, mean_curves

EDGE_COLOUR = "#333333"
LINEAR_UP_TO_ML = 0.1  # of a logarithmic axis, so that an empty mask has its place
HEIGHT_IN = 3.2


def with_volumes(cases: pd.DataFrame) -> pd.DataFrame:
    """The rows of `metrics/cases.parquet` that `plot_volumes` shows: those with a Dice and both volumes."""
    return cases.dropna(subset=["dice", "reference_ml", "predicted_ml"])


def plot_volumes(cases: pd.DataFrame) -> Figure:
    """Dice, and predicted volume, by reference volume: a point for each case and region.

    cases: rows of `metrics/cases.parquet`, some of them with a Dice
    """
    scored = with_volumes(cases)
    highest = 2 * max(scored["reference_ml"].max(), scored["predicted_ml"].max(), LINEAR_UP_TO_ML)
    figure = blank_figure(HEIGHT_IN)
    dice, volumes = figure.subplots(1, 2)
    for name, region in REGIONS.items():
        rows = scored[scored["region"] == name]
        if len(rows):
            style = {"color": region.colour, "mec": EDGE_COLOUR, "label": f"{name} {region.full_name}"}
            dice.plot(rows["reference_ml"], rows["dice"], region.marker, **style)
            volumes.plot(rows["reference_ml"], rows["predicted_ml"], region.marker, **style)
    dice.set(title="Dice by volume", ylabel="Dice (1 is perfect)", ylim=(-0.02, 1.02))
    volumes.plot([0, highest], [0, highest], "--", color=EDGE_COLOUR, linewidth=0.7, zorder=1)
    volumes.set(title="Predicted by reference volume", ylabel="predicted volume (ml)")
    for axes in (dice, volumes):
        axes.set_xlabel("reference volume (ml)")
        _scale_ml(axes, "x", highest)
        axes.grid(alpha=0.3)
    _scale_ml(volumes, "y", highest)
    figure.suptitle(
        f"{count_cases(scored)}: a point for each region; on the dashed line volumes are equal", fontsize=8
    )
    _legend_below(figure, dice)
    return figure


def plot_uncertainty(curves: pd.DataFrame) -> Figure:
    """The curves of QU-BraTS, means over cases by threshold: Dice of what is left, and what is set aside.

    curves: rows of `metrics/uncertainty_curves.parquet`
    """
    means = mean_curves(curves)
    figure = blank_figure(2.7)
    for axes, (column, title) in zip(figure.subplots(1, 3), CURVE_TITLES.items(), strict=True):
        for name in REGIONS:
            rows = means[means["region"] == name]
            if len(rows):
                _line(axes, rows["threshold"], rows[column], name)
        axes.set(title=title, xlabel="threshold of uncertainty", ylabel="mean over cases", ylim=(-0.02, 1.02))
        axes.grid(alpha=0.3)
    figure.suptitle(f"{_counted(curves['case_id'].nunique())}: voxels above a threshold are set aside", fontsize=8)
    _legend_below(figure, axes)
    return figure


def plot_reliability(counts: Calibration, n_cases: int) -> Figure:
    """The share of voxels in the reference by predicted probability, and how many voxels that rests on.

    counts:  of the voxels of the brain, by region
    n_cases: of which they are
    """
    figure = blank_figure(HEIGHT_IN)
    reliability, voxels = figure.subplots(1, 2)
    for name, of_region in counts.items():
        predicted, inside, totals = calibration_curve(of_region)
        _line(reliability, predicted, inside, name)
        _line(voxels, predicted, totals, name)
    reliability.plot([0, 1], [0, 1], "--", color=EDGE_COLOUR, linewidth=0.7, zorder=1)
    reliability.set(title="Reliability", ylabel="share in the reference", ylim=(-0.02, 1.02))
    voxels.set(title="Voxels of each point", ylabel="voxels of the brain", yscale="log")
    for axes in (reliability, voxels):
        axes.set(xlabel="predicted probability", xlim=(-0.02, 1.02))
        axes.grid(alpha=0.3)
    figure.suptitle(f"{_counted(n_cases)}: on the dashed line the probability is the share", fontsize=8)
    _legend_below(figure, reliability)
    return figure


def count_cases(metrics: pd.DataFrame) -> str:
    """How many cases of which splits: "4 test cases"."""
    n_cases = metrics["case_id"].nunique()
    return _counted(n_cases, "/".join(sorted(metrics["split"].dropna().unique())))


def _counted(n_cases: int, splits: str = "") -> str:
    return " ".join(filter(None, [str(n_cases), splits, "case" if n_cases == 1 else "cases"]))


def _scale_ml(axes: Axes, axis: str, highest: float) -> None:
    """A logarithmic axis of volumes, linear where they are tiny."""
    scale = {"linthresh": LINEAR_UP_TO_ML, "linscale": 0.5}
    if axis == "x":
        axes.set_xscale("symlog", **scale)
        axes.set_xlim(-LINEAR_UP_TO_ML / 5, highest)
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.set_yscale("symlog", **scale)
        axes.set_ylim(-LINEAR_UP_TO_ML / 5, highest)
        axes.yaxis.set_major_formatter("{x:g}")


def _line(axes: Axes, x: "pd.Series[float]", y: "pd.Series[float]", name: str) -> None:
    """A line in the colour of a region, with a dark edge, to show on white."""
    region = REGIONS[name]
    axes.plot(
        x,
        y,
        color=region.colour,
        marker=region.marker,
        markeredgecolor=EDGE_COLOUR,
        markersize=3.5,
        markeredgewidth=0.3,  # its edge is the dark line around it
        markevery=1 + len(x) // 16,
        path_effects=[withStroke(linewidth=1.8, foreground=EDGE_COLOUR)],
        label=f"{name} {region.full_name}",
    )


def _legend_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), frameon=False)
