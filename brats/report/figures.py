"""The figures of a run, each drawn from its files: learning curves, scores, cases with their outlines.

Axes: `Z H W` slices of a crop, H = X and W = Y in RAS+.
"""

from collections.abc import Iterator, Sized
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from brats import storage
from brats.data.dataset import slices_path
from brats.data.run_split import test_dir
from brats.data.slices import SliceFile
from brats.labels import REGIONS
from brats.model.history import dice_column
from brats.report.figure_files import Plot, blank_figure
from brats.report.findings import Findings
from brats.report.overlay import format_score, plot_case
from brats.report.score_figures import EDGE_COLOUR, count_cases, plot_uncertainty, plot_volumes, with_volumes
from brats.report.volumes import read_prediction
from brats.score.surface import HD95_ONE_EMPTY_MM
from brats.score.tables import metrics_path

TRAINING_COLOUR, VALIDATION_COLOUR = "#000000", "#0072B2"  # Okabe and Ito, as those of the regions


def figures_dir(run: str) -> str:
    return storage.join(run, "figures")


def plots(found: Findings) -> Iterator[tuple[str, Plot]]:
    """Every figure that the files of a folder give, by its name; those that need voxels come last.

    A folder has those for which it has the tables: learning_curves, distributions, volumes, uncertainty; a run of
    one network, whose prepared cases it knows, case_best, case_median and case_worst too.
    """
    if "" in found.histories:
        yield "learning_curves", partial(plot_learning_curves, found.histories[""])
    cases = found.case_table
    if len(cases):
        yield "distributions", partial(plot_distributions, cases)
    if len(with_volumes(cases)):
        yield "volumes", partial(plot_volumes, cases)
    if found.scores and len(curves := found.scores.table("uncertainty_curves")):
        yield "uncertainty", partial(plot_uncertainty, curves)
    own = storage.exists(
        metrics_path(found.folder, "cases")
    )  # predictions, or a cross-validation, whose folds have masks
    if found.scores and not own:
        yield from case_plots(cases, test_dir(found.folder), found.data)


def case_plots(metrics: pd.DataFrame, predictions: str, prepared: str) -> Iterator[tuple[str, Plot]]:
    """The figures of the best, the median and the worst case of a folder of predictions, by their names.

    metrics: rows of `metrics/cases.parquet`; fewer than three cases give as many figures

    A plot reads image and reference from the prepared dataset that was predicted. It raises FileNotFoundError for a
    missing file, CaseError for a mask of another grid.
    """
    for role, case_id in choose_cases(metrics).items():
        heading = f"{role.capitalize()} of {count_cases(metrics)} by mean Dice"
        scores = metrics[metrics["case_id"] == case_id].set_index("region")
        yield f"case_{role}", partial(_plot_predicted, predictions, prepared, case_id, scores, heading)


def _plot_predicted(predictions: str, prepared: str, case_id: str, scores: pd.DataFrame, heading: str) -> Figure:
    case = SliceFile(slices_path(prepared, case_id)).read_case()
    return plot_case(case, read_prediction(predictions, case), scores, heading)


def choose_cases(metrics: pd.DataFrame) -> dict[str, str]:
    """The ids of the best, the median and the worst case by the mean Dice of its regions; no case twice.

    metrics: rows of `metrics/cases.parquet`. A null is left out of its case's mean. Equal cases are ordered by
    id, and of two in the middle the better one is the median.
    """
    means = metrics.groupby("case_id")["dice"].mean().dropna()
    ranked = [str(case_id) for case_id in means.sort_values(ascending=False, kind="stable").index]
    chosen: dict[str, str] = {}
    for role, rank in (("best", 0), ("median", (len(ranked) - 1) // 2), ("worst", len(ranked) - 1)):
        if ranked and ranked[rank] not in chosen.values():
            chosen[role] = ranked[rank]
    return chosen


def plot_learning_curves(history: pd.DataFrame) -> Figure:
    """Loss, and Dice of the validation cases, over the epochs; the best epoch is marked.

    history: rows of `history.parquet`. An epoch that was not validated has no point among the validated ones, and
             a region that the network does not predict no line.
    """
    figure = blank_figure(3.024)
    loss, dice = figure.subplots(1, 2)
    epoch = history["epoch"]
    scored = history[history["val_dice"].notna()]
    points: dict[str, Any] = {"markersize": 3, "markeredgecolor": EDGE_COLOUR}
    edge = [withStroke(linewidth=1.8, foreground=EDGE_COLOUR)]
    trained = points | {"color": TRAINING_COLOUR, "markevery": _every(epoch)}
    loss.plot(epoch, history["train_loss"], "-o", label="training", **trained)
    points |= {"markevery": _every(scored)}
    validated = points | {"color": VALIDATION_COLOUR, "label": "validation"}
    loss.plot(scored["epoch"], scored["val_loss"], "--D", **validated)
    highest = np.nanmax(history[["train_loss", "val_loss"]].to_numpy(float))
    loss.set(title="Loss", ylabel="loss (0 is perfect)", ylim=(0, 1.05 * highest))
    for name, region in REGIONS.items():
        if len(scored) and scored[dice_column(name)].isna().all():
            continue
        style = {"color": region.colour, "marker": region.marker, "label": f"{name} {region.full_name}", **points}
        dice.plot(scored["epoch"], scored[dice_column(name)], path_effects=edge, **style)
    dice.set(title="Validation cases", ylabel="mean Dice (1 is perfect)", ylim=(0, 1.02))
    for axes in (loss, dice):
        if len(scored):
            best = scored.iloc[scored["val_dice"].argmax()]
            label = f"best epoch: {best['epoch']:.0f}, mean Dice {best['val_dice']:.3f}"
            axes.axvline(best["epoch"], color=EDGE_COLOUR, linestyle="dotted", label=label)
        axes.set(xlabel="epoch", xlim=(0, epoch.max() + 1))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _every(values: Sized) -> int:
    """Of how many points of a line one is marked, so that some 30 are."""
    return 1 + len(values) // 30


def plot_distributions(metrics: pd.DataFrame) -> Figure:
    """Dice and HD95 by region: a point for every case, a box for quartiles and median.

    metrics: rows of `metrics/cases.parquet`
    """
    figure = blank_figure(3.456)
    dice, hd95 = figure.subplots(1, 2)
    _draw_distribution(dice, metrics, "dice", 3, "")
    dice.set(title="Dice", ylabel="Dice (1 is perfect)", ylim=(-0.02, 1.02))
    _draw_distribution(hd95, metrics, "hd95_mm", 1, " mm")
    hd95.set(title="HD95", ylabel="95th percentile of surface distances (mm, 0 is perfect)")
    hd95.set_yscale("symlog", linthresh=1)  # linear up to 1 mm, so that 0 has its place
    hd95.set_ylim(-0.1, 800)
    hd95.yaxis.set_major_formatter("{x:g}")
    hd95.axhline(HD95_ONE_EMPTY_MM, color=EDGE_COLOUR, linestyle="dotted")
    note = f"one of the masks empty: {HD95_ONE_EMPTY_MM} mm"
    place = {"ha": "right", "textcoords": "offset points", "xytext": (0, 5)}
    hd95.annotate(note, (2.45, HD95_ONE_EMPTY_MM), fontsize=6, **place)
    figure.suptitle(f"{count_cases(metrics)}: a point for each, a box for quartiles and median", fontsize=8)
    return figure


def _draw_distribution(axes: Axes, metrics: pd.DataFrame, column: str, n_decimals: int, unit: str) -> None:
    """One column of points for each region. A case has the same place in each, so that it can be followed."""
    values = metrics.pivot(index="case_id", columns="region", values=column).reindex(columns=list(REGIONS))
    places = ((np.arange(len(values)) + 0.5) / len(values) - 0.5) * 0.5
    ticks = []
    for position, (name, region) in enumerate(REGIONS.items()):
        low, median, high = values[name].quantile([0.25, 0.5, 0.75])
        axes.bar(position, high - low, 0.7, bottom=low, color="#EEEEEE", edgecolor="#999999")
        axes.plot([position - 0.35, position + 0.35], [median, median], color=EDGE_COLOUR)
        axes.plot(position + places, values[name], region.marker, color=region.colour, mec=EDGE_COLOUR)
        ticks.append(f"{name}\nmedian {format_score(median, n_decimals)}{unit if pd.notna(median) else ''}")
    axes.set_xticks(range(len(REGIONS)), ticks)
    axes.set_xlim(-0.5, len(REGIONS) - 0.5)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
