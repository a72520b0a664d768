"""Pictures of a run: learning curves, cases with their outlines, distributions of scores. Drawn from files only.

Axes: `Z H W` slices of a crop, H = X and W = Y in RAS+; `rows columns` a slice as it is shown, in radiological
orientation: rows from front to back, columns from the patient's right to the patient's left.
"""

import io
import math
from typing import Any, NamedTuple

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
from brats.score.surface import HD95_ONE_EMPTY_MM

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

# Okabe and Ito, "Color Universal Design", 2008: of their colours the three that stay furthest apart in
# protanopia, deuteranopia and tritanopia. Yellow needs a dark edge where the background is white.
COLOURS = {"WT": "#56B4E9", "TC": "#F0E442", "ET": "#D55E00"}
TRAINING_COLOUR, VALIDATION_COLOUR = "#000000", "#0072B2"  # Okabe and Ito, too
EDGE_COLOUR = "#333333"
MARKERS = {"WT": "o", "TC": "s", "ET": "^"}
REGION_NAMES = {"WT": "WT whole tumour", "TC": "TC tumour core", "ET": "ET enhancing tumour"}
MODALITY_NAMES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}

WINDOW_PERCENTILES = (1, 99.5)  # of the values inside the brain; what is darker or brighter is clipped
LETTER_ROOM_MM = 10  # around the crop, for the letters of the directions
FIELD_MARGIN_MM = 10  # of healthy tissue shown around the tumour
MIN_FIELD_MM = 30  # shown around the smallest tumour

REFERENCE_LINE: dict[str, Any] = {"linestyle": "solid", "linewidth": 1.9}
PREDICTION_LINE: dict[str, Any] = {"linestyle": (0, (3, 2.5)), "linewidth": 1.1}

# Between the centres of two voxels a mask rises from 0 to 1. At different levels, the outlines of regions that
# share an edge lie 0.4 of a voxel apart, and none hides another.
OUTLINE_LEVELS = {"WT": 0.1, "TC": 0.5, "ET": 0.9}

_WIDTH_IN, _DPI = 10, 160


def draw_learning_curves(run: str, figures: str) -> str:
    """Draw `history.parquet` of a run into the folder `figures`; return the path of the picture.

    Raises FileNotFoundError before the first epoch is done.
    """
    history: pd.DataFrame = storage.read_table(storage.join(run, "history.parquet"))[0].to_pandas()
    return _write(plot_learning_curves(history), storage.join(figures, "learning_curves.png"))


def draw_cases(predictions: str, figures: str, prepared: str) -> list[str]:
    """Draw the best, the median and the worst case of a folder of predictions; return the pictures' paths.

    Images and references are read from the prepared dataset that was predicted. Fewer than three scored cases
    give as many pictures, and none gives none. Raises FileNotFoundError for a missing file.
    """
    metrics = _read_metrics(predictions)
    heading = f"of {_count_cases(metrics)} by mean Dice"
    paths = []
    for role, case_id in choose_cases(metrics).items():
        case = SliceFile(slices_path(prepared, case_id)).read_case()
        scores = metrics[metrics["case_id"] == case_id].set_index("region")
        figure = plot_case(case, read_prediction(predictions, case), scores, f"{role.capitalize()} {heading}")
        paths.append(_write(figure, storage.join(figures, f"case_{role}.png")))
    return paths


def draw_distributions(predictions: str, figures: str) -> str | None:
    """Draw Dice and HD95 of every scored case; return the path of the picture, None where no case is scored."""
    metrics = _read_metrics(predictions)
    if metrics.empty:
        return None
    return _write(plot_distributions(metrics), storage.join(figures, "distributions.png"))


def read_prediction(predictions: str, case: Case) -> Labels:
    """The predicted label map of a case, (Z, H, W): the part that is the case's crop."""
    return crop(to_ras(read_masks(masks_path(predictions, case.case_id)), case.grid), case.box)


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

    history: rows of `history.parquet`. An epoch that lacks a value leaves a gap.
    """
    figure = _figure(4.2)
    loss, dice = figure.subplots(1, 2)
    epoch = history["epoch"]
    points: dict[str, Any] = {"markersize": 4, "markeredgecolor": EDGE_COLOUR, "markevery": 1 + len(epoch) // 30}
    edge = [withStroke(linewidth=2.4, foreground=EDGE_COLOUR)]
    loss.plot(epoch, history["train_loss"], "-o", color=TRAINING_COLOUR, label="training", **points)
    loss.plot(epoch, history["val_loss"], "--D", color=VALIDATION_COLOUR, label="validation", **points)
    highest = np.nanmax(history[["train_loss", "val_loss"]].to_numpy(float))
    loss.set(title="Loss", ylabel="binary cross-entropy + Dice loss", ylim=(0, 1.05 * highest))
    for region in REGIONS:
        style = {"color": COLOURS[region], "marker": MARKERS[region], "label": REGION_NAMES[region], **points}
        dice.plot(epoch, history[f"val_dice_{region.lower()}"], path_effects=edge, **style)
    dice.set(title="Validation cases", ylabel="mean Dice (1 is perfect)", ylim=(0, 1.02))
    scored = history[history["val_dice"].notna()]
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


def plot_distributions(metrics: pd.DataFrame) -> Figure:
    """Dice and HD95 by region: a point for every case, a box for quartiles and median.

    metrics: rows of `metrics/cases.parquet`
    """
    figure = _figure(4.8)
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
    place = {"ha": "right", "textcoords": "offset points", "xytext": (0, 7)}
    hd95.annotate(note, (2.45, HD95_ONE_EMPTY_MM), fontsize=8, **place)
    figure.suptitle(f"{_count_cases(metrics)}: a point for each, a box for quartiles and median", fontsize=11)
    return figure


def _draw_distribution(axes: Axes, metrics: pd.DataFrame, column: str, n_decimals: int, unit: str) -> None:
    """One column of points for each region. A case has the same place in all, so that it can be followed."""
    values = metrics.pivot(index="case_id", columns="region", values=column).reindex(columns=REGIONS)
    places = ((np.arange(len(values)) + 0.5) / len(values) - 0.5) * 0.5
    ticks = []
    for position, region in enumerate(REGIONS):
        low, median, high = values[region].quantile([0.25, 0.5, 0.75])
        axes.bar(position, high - low, 0.7, bottom=low, color="#EEEEEE", edgecolor="#999999")
        axes.plot([position - 0.35, position + 0.35], [median, median], color=EDGE_COLOUR)
        axes.plot(position + places, values[region], MARKERS[region], color=COLOURS[region], mec=EDGE_COLOUR)
        ticks.append(f"{region}\nmedian {_format(median, n_decimals)}{unit}")
    axes.set_xticks(range(len(REGIONS)), ticks)
    axes.set_xlim(-0.5, len(REGIONS) - 0.5)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def _format(value: float, n_decimals: int) -> str:
    return "n/a" if math.isnan(value) else f"{value:.{n_decimals}f}"


def _count_cases(metrics: pd.DataFrame) -> str:
    """How many cases of which splits: "4 test cases"."""
    n_cases = metrics["case_id"].nunique()
    splits = "/".join(sorted(metrics["split"].dropna().unique()))
    return " ".join(filter(None, [str(n_cases), splits, "case" if n_cases == 1 else "cases"]))


def _read_metrics(predictions: str) -> pd.DataFrame:
    """The rows of `metrics/cases.parquet`; nulls, of a column that has nothing else too, are NaN."""
    table, _ = storage.read_table(storage.join(predictions, "metrics", "cases.parquet"))
    metrics: pd.DataFrame = table.to_pandas()
    return metrics.astype({"dice": float, "hd95_mm": float})


def _figure(height_in: float, background: str = "white") -> Figure:
    return Figure(figsize=(_WIDTH_IN, height_in), dpi=_DPI, layout="constrained", facecolor=background)


def _write(figure: Figure, path: str) -> str:
    """Write a figure as PNG, 1600 pixels wide, and return the path."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    storage.write_bytes(path, content.getbuffer())
    return path


class Field(NamedTuple):
    """The part of a slice that a panel shows. In pixels, of which number k reaches from k - 0.5 to k + 0.5."""

    left: float
    right: float
    bottom: float
    top: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


def choose_slice(reference: Labels, predicted: Labels) -> int:
    """The slice of (Z, H, W) with most tumour: of the reference, else of the prediction; else the middle one."""
    for labels in (reference, predicted):
        n_tumour = np.count_nonzero(labels, axis=(1, 2))
        if n_tumour.any():
            return int(n_tumour.argmax())
    return len(reference) // 2


def to_display(plane: Array) -> Array:
    """A slice (H, W) as it is shown, (rows, columns): front up, the patient's left on the right."""
    return plane.T[::-1, ::-1]


def grey_levels(image: Array, intensity: Intensity, index: int) -> npt.NDArray[np.float64]:
    """Slice `index` of an image (Z, H, W) of stored numbers as grey levels (H, W) from 0 to 1; background is 0.

    One window serves the whole crop, so that slices of one case compare.
    """
    inside = image != intensity.background
    low, high = np.percentile(intensity.slope * image[inside] + intensity.inter, WINDOW_PERCENTILES)
    values = intensity.slope * image[index] + intensity.inter
    levels = np.clip((values - low) / max(high - low, np.finfo(np.float64).tiny), 0, 1)
    return np.where(inside[index], levels, 0)


def whole_field(shape: tuple[int, ...], row_mm: float, column_mm: float) -> Field:
    """All of a slice of this shape (rows, columns), with room for the letters of the directions around it."""
    across, down = LETTER_ROOM_MM / column_mm, LETTER_ROOM_MM / row_mm
    return Field(-0.5 - across, shape[1] - 0.5 + across, shape[0] - 0.5 + down, -0.5 - down)


def tumour_field(tumour: Mask, row_mm: float, column_mm: float) -> Field:
    """A square, in mm, around the tumour (rows, columns), or around everything where there is none.

    It is kept inside the slice where it fits.
    """
    shown = tumour if tumour.any() else np.ones_like(tumour)
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    extent_mm = max(np.ptp(rows) * row_mm + row_mm, np.ptp(columns) * column_mm + column_mm)
    side_mm = max(extent_mm + 2 * FIELD_MARGIN_MM, MIN_FIELD_MM)
    top, bottom = _span(rows, side_mm / row_mm, tumour.shape[0])
    left, right = _span(columns, side_mm / column_mm, tumour.shape[1])
    return Field(left, right, bottom, top)


def _span(used: npt.NDArray[np.intp], length: float, n_pixels: int) -> tuple[float, float]:
    """The edges of a span of `length` pixels around the used ones, moved inside the `n_pixels` where it fits."""
    room = n_pixels - length
    start = min(max((used[0] + used[-1] + 1 - length) / 2, 0), room) if room > 0 else room / 2
    return start - 0.5, start - 0.5 + length


def plot_case(case: Case, predicted: Labels, scores: pd.DataFrame, heading: str) -> Figure:
    """One slice of a case in every modality: the whole crop, and the tumour enlarged with its outlines.

    predicted: (Z, H, W), the crop of the case
    scores:    dice and hd95_mm of the case, by region
    """
    assert case.labels is not None, f"{case.case_id} was scored, but has no reference"
    index = choose_slice(case.labels, predicted)
    reference, prediction = to_display(case.labels[index]), to_display(predicted[index])
    _, column_mm, row_mm = case.spacing_mm
    whole = whole_field(reference.shape, row_mm, column_mm)
    enlarged = tumour_field((reference > 0) | (prediction > 0), row_mm, column_mm)
    figure, panels = _case_panels(len(case.images), whole.height * row_mm / (whole.width * column_mm))
    for name, overview, detail in zip(case.images, *panels, strict=True):
        levels = to_display(grey_levels(case.images[name], case.intensities[name], index))
        for axes, field in ((overview, whole), (detail, enlarged)):
            axes.imshow(levels, cmap="gray", vmin=0, vmax=1, aspect=row_mm / column_mm)
            axes.set(xlim=field[:2], ylim=field[2:])
            axes.set_axis_off()
            _draw_directions(axes)
        overview.set_title(MODALITY_NAMES.get(name, name), color="white")
        frame = (enlarged.left, enlarged.top), enlarged.width, enlarged.height
        overview.add_patch(Rectangle(*frame, fill=False, edgecolor="#AAAAAA"))
        draw_outlines(detail, reference, prediction)
    _draw_scale_bar(panels[0, 0], 50, whole.width * column_mm)
    _draw_scale_bar(panels[1, 0], 10, enlarged.width * column_mm)
    title = f"{heading}: {case.case_id}, axial slice {case.box.start[2] + index}\n{_list_scores(scores)}"
    figure.suptitle(title, color="white", fontsize=11)
    _draw_outline_legend(figure)
    return figure


def draw_outlines(axes: Axes, reference: Labels, predicted: Labels) -> None:
    """Outline the regions of two label maps (rows, columns): the reference solid, the prediction dashed.

    Each has a dark line beneath. The dashes are narrower, so that they show on a solid line that they follow.
    """
    rim = {**REFERENCE_LINE, "linewidth": REFERENCE_LINE["linewidth"] + 0.7}
    gaps = {**PREDICTION_LINE, "linestyle": "solid"}
    dark = dict.fromkeys(REGIONS, "black")
    layers = (
        (reference, dark, rim),
        (reference, COLOURS, REFERENCE_LINE),
        (predicted, dark, gaps),
        (predicted, COLOURS, PREDICTION_LINE),
    )
    for labels, colours, line in layers:
        for region in REGIONS:
            mask = np.pad(region_mask(labels, region), 1)  # closes outlines at the border of the crop
            if mask.any():
                rows, columns = (np.arange(n_pixels) - 1 for n_pixels in mask.shape)
                outline = axes.contour(columns, rows, mask, [OUTLINE_LEVELS[region]], colors=colours[region])
                outline.set(**line)


def _case_panels(n_modalities: int, height_to_width: float) -> tuple[Figure, npt.NDArray[np.object_]]:
    """A black figure and its panels (2, n_modalities): overviews of this proportion, and square details."""
    panel_in = _WIDTH_IN / max(n_modalities, 3)
    figure = _figure(panel_in * (height_to_width + 1) + 1.3, "black")
    return figure, figure.subplots(2, n_modalities, squeeze=False, height_ratios=(height_to_width, 1))


def _draw_directions(axes: Axes) -> None:
    """The letters of the patient's right, left, front and back, at the edges of a panel."""
    for letter, x, y in (("R", 0.03, 0.5), ("L", 0.97, 0.5), ("A", 0.5, 0.97), ("P", 0.5, 0.03)):
        _write_on_image(axes, x, y, letter)


def _draw_scale_bar(axes: Axes, length_mm: int, panel_mm: float) -> None:
    """A bar of this length near the lower left corner of a panel that shows `panel_mm` from left to right."""
    start, height = 0.03, 0.03
    bar = [start, start + length_mm / panel_mm]
    axes.plot(bar, [height, height], color="white", linewidth=2, transform=axes.transAxes)
    _write_on_image(axes, start, 2 * height, f"{length_mm} mm", ha="left")


def _write_on_image(axes: Axes, x: float, y: float, text: str, ha: str = "center") -> None:
    stroke = [withStroke(linewidth=1.5, foreground="black")]
    axes.text(
        x, y, text, color="white", fontsize=8, ha=ha, va="center", transform=axes.transAxes, path_effects=stroke
    )


def _draw_outline_legend(figure: Figure) -> None:
    handles = [Line2D([], [], color=COLOURS[region], label=REGION_NAMES[region]) for region in REGIONS]
    handles.append(Line2D([], [], color="white", label="reference", **REFERENCE_LINE))
    handles.append(Line2D([], [], color="white", label="prediction", **PREDICTION_LINE))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, labelcolor="white")


def _list_scores(scores: pd.DataFrame) -> str:
    """Dice and HD95 of each region in one line."""
    dice, hd95_mm = scores["dice"].reindex(REGIONS), scores["hd95_mm"].reindex(REGIONS)
    dice_texts = (f"{region} {_format(dice[region], 3)}" for region in REGIONS)
    hd95_texts = (f"{region} {_format(hd95_mm[region], 1)}" for region in REGIONS)
    return "  ".join(["Dice", *dice_texts, "    HD95 (mm)", *hd95_texts])
