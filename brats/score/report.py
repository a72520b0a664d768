"""Pictures of a run: learning curves, cases with their outlines, distributions of scores. Drawn from files only.

Axes: `Z H W` slices of a crop, H = X and W = Y in RAS+; `rows columns` a slice as it is shown: radiological
orientation, rows from front to back, columns from the patient's right to the patient's left.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from brats import storage
from brats.data.masks import masks_path, read_masks
from brats.data.preprocess import Case, Intensity, crop
from brats.data.slices import SliceFile, slices_path
from brats.data.volume import to_ras
from brats.labels import REGIONS, Labels, region_mask

Array = npt.NDArray[Any]

# Okabe and Ito, "Color Universal Design", 2008: of their colours the three that stay furthest apart under
# protanopia, deuteranopia and tritanopia.
COLOURS = {"WT": "#56B4E9", "TC": "#F0E442", "ET": "#D55E00"}
MARKERS = {"WT": "o", "TC": "s", "ET": "^"}
REGION_NAMES = {"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour"}
MODALITY_NAMES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}
REFERENCE_STYLE, PREDICTION_STYLE = "solid", "dashed"

WINDOW_PERCENTILES = (1, 99.5)  # of the voxels inside the brain; what is darker or brighter is clipped

LETTER_ROOM_MM = 10  # around the crop, for the letters of the directions
MIN_FIELD_MM, FIELD_MARGIN_MM = 60, 10  # of the enlarged field: its side at least, and what it shows beside tumour

# Between voxel centres a mask rises from 0 to 1. Outlines of regions that share an edge are drawn a third of a
# voxel apart, so that none hides another.
OUTLINE_LEVELS = {"WT": 0.2, "TC": 0.5, "ET": 0.8}

Field = tuple[float, float, float, float]
"""What a panel shows, in pixels: left, right, bottom, top."""

_WIDTH_IN = 10.0
_DPI = 160
_EDGE = "#333333"  # around markers and lines, so that yellow stands out from white


def draw_learning_curves(run: str, figures: str) -> str:
    """Draw `RUN/history.parquet` and return the path of the picture.

    Raises FileNotFoundError before the first epoch is done.
    """
    history = storage.read_table(storage.join(run, "history.parquet"))[0].to_pandas()
    return _write(storage.join(figures, "learning_curves.png"), plot_learning_curves(history))


def draw_cases(predictions: str, figures: str, prepared: str) -> list[str]:
    """Draw the best, the median and the worst case of a folder of predictions; return the pictures' paths.

    Images and reference come from the prepared dataset that was predicted. Fewer than three scored cases give
    as many pictures, and none gives none. Raises FileNotFoundError where a case's files are missing.
    """
    metrics = _read_metrics(predictions)
    scored = _describe_cases(metrics)
    paths = []
    for role, case_id in choose_cases(metrics).items():
        case = SliceFile(slices_path(prepared, case_id)).read_case()
        predicted = crop(to_ras(read_masks(masks_path(predictions, case_id)), case.grid), case.box)
        scores = metrics[metrics["case_id"] == case_id].set_index("region")
        figure = plot_case(case, predicted, scores, f"{role.capitalize()} of {scored}")
        paths.append(_write(storage.join(figures, f"case_{role}.png"), figure))
    return paths


def draw_distributions(predictions: str, figures: str) -> str | None:
    """Draw Dice and HD95 of every scored case; return the picture's path, None where no case was scored."""
    metrics = _read_metrics(predictions)
    if metrics.empty:
        return None
    return _write(storage.join(figures, "distributions.png"), plot_distributions(metrics))


def choose_cases(metrics: pd.DataFrame) -> dict[str, str]:
    """The case ids of the roles best, median and worst, by the mean Dice of the regions; no case twice.

    metrics: rows of `metrics/cases.parquet`. A Dice that is null is left out of its case's mean. Of two middle
    cases the better is the median; equal ones are ordered by id.
    """
    means = metrics.groupby("case_id")["dice"].mean().dropna()
    ranked = [str(case_id) for case_id in means.sort_values(ascending=False, kind="stable").index]
    chosen: dict[str, str] = {}
    if ranked:
        ranks = {"best": 0, "median": (len(ranked) - 1) // 2, "worst": len(ranked) - 1}
        for role, rank in ranks.items():
            if ranked[rank] not in chosen.values():
                chosen[role] = ranked[rank]
    return chosen


def choose_slice(reference: Labels, predicted: Labels) -> int:
    """The slice of (Z, H, W) with most tumour in the reference; without any, in the prediction; else the middle."""
    for labels in (reference, predicted):
        n_tumour = np.count_nonzero(labels, axis=(1, 2))
        if n_tumour.any():
            return int(n_tumour.argmax())
    return len(reference) // 2


def to_display(plane: Array) -> Array:
    """A slice (H, W) as it is shown (rows, columns): front up, the patient's left on the right."""
    return plane.T[::-1, ::-1]


def grey_levels(image: Array, intensity: Intensity, index: int) -> npt.NDArray[np.float64]:
    """Slice `index` of an image (Z, H, W) of stored numbers as grey levels (H, W), 0 to 1; background is 0.

    The window is that of the whole crop, so that slices of a case compare.
    """
    inside = image != intensity.background
    low, high = np.percentile(intensity.slope * image[inside] + intensity.inter, WINDOW_PERCENTILES)
    values = intensity.slope * image[index] + intensity.inter
    levels = np.clip((values - low) / max(high - low, np.finfo(float).tiny), 0, 1)
    return np.where(inside[index], levels, 0)


def tumour_field(tumour: npt.NDArray[np.bool_], row_mm: float, column_mm: float) -> Field:
    """The field to enlarge: a square, in mm, around the tumour (rows, columns); around everything without one."""
    if not tumour.any():
        tumour = np.ones_like(tumour)
    left, right, bottom, top = _field(tumour, 0, 0)
    height, width = bottom - top, right - left
    side_mm = max(height * row_mm, width * column_mm, MIN_FIELD_MM - 2 * FIELD_MARGIN_MM) + 2 * FIELD_MARGIN_MM
    return _field(tumour, (side_mm / row_mm - height) / 2, (side_mm / column_mm - width) / 2)


def _field(mask: Array, row_margin: float, column_margin: float) -> Field:
    """The box of a mask (rows, columns) with margins, in pixels: pixel k reaches from k - 0.5 to k + 0.5."""
    rows, columns = np.nonzero(mask)
    return (
        float(columns.min() - 0.5 - column_margin),
        float(columns.max() + 0.5 + column_margin),
        float(rows.max() + 0.5 + row_margin),
        float(rows.min() - 0.5 - row_margin),
    )


def plot_learning_curves(history: pd.DataFrame) -> Figure:
    """Loss and validation Dice over the epochs, the best epoch marked. history: see `brats.model.history`."""
    figure = _figure(4.2)
    loss, dice = figure.subplots(1, 2)
    style: dict[str, Any] = {"markersize": 4, "markeredgecolor": _EDGE, "markeredgewidth": 0.5}
    loss.plot(history["epoch"], history["train_loss"], "o-", color="#000000", label="training", **style)
    loss.plot(history["epoch"], history["val_loss"], "D--", color="#0072B2", label="validation", **style)
    loss.set(title="Loss", ylabel="binary cross-entropy + Dice loss")
    loss.set_ylim(bottom=0)
    for region in REGIONS:
        (line,) = dice.plot(
            history["epoch"],
            history[f"val_dice_{region.lower()}"],
            marker=MARKERS[region],
            color=COLOURS[region],
            label=_region_label(region),
            **style,
        )
        line.set_path_effects([withStroke(linewidth=2.5, foreground=_EDGE)])
    dice.set(title="Dice of the validation cases", ylabel="mean Dice per case (1 is perfect)", ylim=(0, 1.02))
    _mark_best_epoch((loss, dice), history)
    for axes in (loss, dice):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _mark_best_epoch(panels: tuple[Axes, Axes], history: pd.DataFrame) -> None:
    known = history.dropna(subset=["val_dice"])
    if known.empty:
        return
    best = known.loc[known["val_dice"].idxmax()]
    label = f"best epoch {best['epoch']:.0f}, mean {best['val_dice']:.3f}"
    for axes in panels:
        axes.axvline(best["epoch"], color="#666666", linestyle=":", zorder=1, label=label)


def plot_case(case: Case, predicted: Labels, scores: pd.DataFrame, heading: str) -> Figure:
    """One slice of a case in every modality: the whole crop, and enlarged with the outlines of both label maps.

    predicted: (Z, H, W), the crop of the case
    scores:    dice and hd95_mm of the case, indexed by region
    """
    assert case.labels is not None, f"{case.case_id} has scores, but no reference"
    index = choose_slice(case.labels, predicted)
    reference, prediction = to_display(case.labels[index]), to_display(predicted[index])
    _, column_mm, row_mm = case.spacing_mm
    whole = _field(np.ones_like(reference), LETTER_ROOM_MM / row_mm, LETTER_ROOM_MM / column_mm)
    enlarged = tumour_field((reference > 0) | (prediction > 0), row_mm, column_mm)
    figure, panels = _case_panels(len(case.images), reference.shape[0] * row_mm / (reference.shape[1] * column_mm))
    for name, overview, detail in zip(case.images, *panels, strict=True):
        levels = to_display(grey_levels(case.images[name], case.intensities[name], index))
        for axes, field in ((overview, whole), (detail, enlarged)):
            axes.imshow(levels, cmap="gray", vmin=0, vmax=1, aspect=row_mm / column_mm)
            axes.set_axis_off()
            axes.set(xlim=field[:2], ylim=field[2:])
            _draw_letters(axes)
        left, right, bottom, top = enlarged
        overview.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="#999999"))
        overview.set_title(MODALITY_NAMES.get(name, name), color="white")
        draw_outlines(detail, reference, prediction)
    for axes, length_mm in ((panels[0, 0], 50), (panels[1, 0], 10)):
        _draw_scale_bar(axes, length_mm, column_mm)
    figure.suptitle(_case_title(case, index, scores, heading), color="white", fontsize=11)
    _draw_outline_legend(figure)
    return figure


def _case_panels(n_modalities: int, height_to_width: float) -> tuple[Figure, npt.NDArray[Any]]:
    """A black figure and its panels (2, n_modalities): overviews, and the square details below (few: beside) them."""
    if n_modalities > 2:
        figure = _figure(_WIDTH_IN / n_modalities * (height_to_width + 1) + 1.4, "black")
        return figure, figure.subplots(2, n_modalities, height_ratios=(height_to_width, 1))
    figure = _figure(_WIDTH_IN / (2 * n_modalities) * height_to_width + 1.4, "black")
    return figure, figure.subplots(1, 2 * n_modalities).reshape(n_modalities, 2).T


def _case_title(case: Case, index: int, scores: pd.DataFrame, heading: str) -> str:
    dice = "  ".join(f"{region} {_number(scores, region, 'dice', 3)}" for region in REGIONS)
    hd95 = "  ".join(f"{region} {_number(scores, region, 'hd95_mm', 1)}" for region in REGIONS)
    return (
        f"{heading}: {case.case_id}, axial slice {case.box.start[2] + index}\n"
        f"Dice  {dice}      HD95 (mm)  {hd95}"
    )


def _number(scores: pd.DataFrame, region: str, column: str, n_decimals: int) -> str:
    value = scores[column].get(region)
    return "n/a" if value is None or pd.isna(value) else f"{value:.{n_decimals}f}"


def draw_outlines(axes: Axes, reference: Labels, predicted: Labels) -> None:
    """Outline each region of two label maps (rows, columns): the reference solid, the prediction dashed.

    The dashes are thicker, so that they show on a solid line beneath them.
    """
    for labels, style, width in ((reference, REFERENCE_STYLE, 1.0), (predicted, PREDICTION_STYLE, 1.8)):
        for region in REGIONS:
            mask = np.pad(region_mask(labels, region), 1)  # closes outlines at the border of the crop
            if mask.any():
                rows, columns = (np.arange(-1, length - 1) for length in mask.shape)
                outline = axes.contour(
                    columns, rows, mask, [OUTLINE_LEVELS[region]], colors=COLOURS[region], linestyles=style
                )
                outline.set(linewidths=width, path_effects=[withStroke(linewidth=width + 1, foreground="black")])


def _draw_letters(axes: Axes) -> None:
    """The patient's right, left, front and back at the edges of a panel."""
    places = {"R": (0.03, 0.5), "L": (0.97, 0.5), "A": (0.5, 0.97), "P": (0.5, 0.03)}
    for letter, (x, y) in places.items():
        text = axes.text(x, y, letter, color="white", fontsize=8, ha="center", va="center", transform=axes.transAxes)
        text.set_path_effects([withStroke(linewidth=1.5, foreground="black")])


def _draw_scale_bar(axes: Axes, length_mm: float, column_mm: float) -> None:
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x, y = left + 0.03 * (right - left), bottom + 0.03 * (top - bottom)
    end = x + length_mm / column_mm
    stroke = [withStroke(linewidth=3.5, foreground="black")]
    axes.plot([x, end], [y, y], color="white", linewidth=2, path_effects=stroke)
    axes.text((x + end) / 2, y, f"{length_mm:g} mm", color="white", fontsize=7, ha="center", va="bottom", path_effects=stroke)


def _draw_outline_legend(figure: Figure) -> None:
    handles = [Line2D([], [], color=COLOURS[region], label=_region_label(region)) for region in REGIONS]
    handles += [
        Line2D([], [], color="white", linewidth=1.0, linestyle=REFERENCE_STYLE, label="reference"),
        Line2D([], [], color="white", linewidth=1.8, linestyle=PREDICTION_STYLE, label="prediction"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, labelcolor="white")


def plot_distributions(metrics: pd.DataFrame) -> Figure:
    """Dice and HD95 of every case by region: a box of the quartiles, and a point for each case.

    metrics: rows of `metrics/cases.parquet`
    """
    figure = _figure(4.8)
    dice, hd95 = figure.subplots(1, 2)
    for axes, column, unit in ((dice, "dice", ""), (hd95, "hd95_mm", " mm")):
        values = metrics.pivot(index="case_id", columns="region", values=column).reindex(columns=REGIONS)
        _draw_distribution(axes, values, unit)
    dice.set(title="Dice", ylabel="Dice (1 is perfect)", ylim=(-0.02, 1.02))
    hd95.set(title="HD95", ylabel="95th percentile surface distance (mm, 0 is perfect)")
    hd95.set_yscale("symlog", linthresh=1)
    hd95.set_ylim(-0.1, 500)
    figure.suptitle(_describe_cases(metrics))
    return figure


def _draw_distribution(axes: Axes, values: pd.DataFrame, unit: str) -> None:
    """One region a column. A case has the same place in each, so that it can be followed from one to the next."""
    n_cases = len(values)
    offsets = ((np.arange(n_cases) + 0.5) / n_cases - 0.5) * 0.5
    labels = []
    for position, region in enumerate(values.columns):
        column = values[region]
        known = column.dropna()
        axes.boxplot(
            [known], positions=[position], widths=0.6, showfliers=False, medianprops={"color": _EDGE}
        )
        axes.plot(position + offsets, column, MARKERS[region], color=COLOURS[region], markeredgecolor=_EDGE)
        labels.append(f"{region}\nmedian {known.median():.3g}{unit}")
    axes.set_xticks(range(len(labels)), labels)
    axes.grid(axis="y", alpha=0.3)


def _region_label(region: str) -> str:
    return f"{region} {REGION_NAMES[region]}"


def _describe_cases(metrics: pd.DataFrame) -> str:
    """How many cases of which split: "4 test cases"."""
    n_cases = metrics["case_id"].nunique()
    splits = "/".join(sorted(metrics["split"].dropna().unique()))
    return " ".join(filter(None, [str(n_cases), splits, "case" if n_cases == 1 else "cases"]))


def _read_metrics(predictions: str) -> pd.DataFrame:
    path = storage.join(predictions, "metrics", "cases.parquet")
    metrics: pd.DataFrame = storage.read_table(path)[0].to_pandas()
    return metrics


def _figure(height_in: float, background: str = "white") -> Figure:
    return Figure(figsize=(_WIDTH_IN, height_in), dpi=_DPI, layout="constrained", facecolor=background)


def _write(path: str, figure: Figure) -> str:
    """Write a figure as PNG, 1600 pixels wide, and return the path."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    storage.write_bytes(path, content.getbuffer())
    return path
