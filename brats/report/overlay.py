"""One slice of a case with the outlines of reference and prediction.

Axes: `Z H W` slices of a crop, H = X and W = Y in RAS+; `rows columns` a slice as it is shown, in radiological
orientation: rows from front to back, columns from the patient's right to the patient's left.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from brats.data.case import Case, Intensity
from brats.labels import REGIONS, Labels, region_mask
from brats.report.figure_files import WIDTH_IN, blank_figure

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

MODALITY_NAMES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}

WINDOW_PERCENTILES = (1, 99.5)  # of the values inside the brain; what is darker or brighter is clipped
LETTER_ROOM_MM = 10  # around the crop, for the letters of the directions
VIEW_MARGIN_MM = 10  # of healthy tissue shown around the tumour
MIN_VIEW_MM = 30  # shown around the smallest tumour

REFERENCE_LINE: dict[str, Any] = {"linestyle": "solid", "linewidth": 1.4}
PREDICTION_LINE: dict[str, Any] = {"linestyle": (0, (3, 2.5)), "linewidth": 0.8}

# Between the centres of two voxels a mask rises from 0 to 1. At different levels, the outlines of regions that
# share an edge lie apart, three regions by 0.4 of a voxel, and none hides another.
OUTLINE_LEVELS = dict(zip(REGIONS, np.linspace(0.1, 0.9, len(REGIONS)), strict=True))


class View(NamedTuple):
    """What a panel shows of a slice, in pixels; pixel k reaches from k - 0.5 to k + 0.5."""

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
    """Slice `index` of an image (Z, H, W) of raw values as grey levels (H, W) from 0 to 1; background is 0.

    One window serves the whole crop, so that slices of one case compare.
    """
    inside = intensity.is_brain(image)
    low, high = np.percentile(intensity.slope * image[inside] + intensity.inter, WINDOW_PERCENTILES)
    values = intensity.slope * image[index] + intensity.inter
    levels = np.clip((values - low) / max(high - low, np.finfo(np.float64).tiny), 0, 1)
    return np.where(inside[index], levels, 0)


def whole_view(shape: tuple[int, ...], row_mm: float, column_mm: float) -> View:
    """All of a slice of this shape (rows, columns), with room for the letters of the directions around it."""
    across, down = LETTER_ROOM_MM / column_mm, LETTER_ROOM_MM / row_mm
    return View(-0.5 - across, shape[1] - 0.5 + across, shape[0] - 0.5 + down, -0.5 - down)


def tumour_view(tumour: Mask, row_mm: float, column_mm: float) -> View:
    """A square, in mm, around the tumour (rows, columns), or around everything where there is none.

    It is kept inside the slice where it fits.
    """
    shown = tumour if tumour.any() else np.ones_like(tumour)
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    extent_mm = max(np.ptp(rows) * row_mm + row_mm, np.ptp(columns) * column_mm + column_mm)
    side_mm = max(extent_mm + 2 * VIEW_MARGIN_MM, MIN_VIEW_MM)
    top, bottom = _edges_around(rows, side_mm / row_mm, tumour.shape[0])
    left, right = _edges_around(columns, side_mm / column_mm, tumour.shape[1])
    return View(left, right, bottom, top)


def _edges_around(used: npt.NDArray[np.intp], length: float, n_pixels: int) -> tuple[float, float]:
    """The edges of a stretch of `length` pixels around the used ones, moved inside the `n_pixels` where it fits."""
    room = n_pixels - length
    start = min(max((used[0] + used[-1] + 1 - length) / 2, 0), room) if room > 0 else room / 2
    return start - 0.5, start - 0.5 + length


def plot_case(case: Case, predicted: Labels, scores: pd.DataFrame, heading: str) -> Figure:
    """One slice of a case in every modality: the whole crop, and the tumour enlarged with its outlines.

    predicted: (Z, H, W), the crop of the case
    scores:    dice and hd95_mm of the case, by region; a region without Dice is not outlined
    """
    assert case.labels is not None, f"{case.case_id} was scored, but has no reference"
    index = choose_slice(case.labels, predicted)
    reference, prediction = to_display(case.labels[index]), to_display(predicted[index])
    _, column_mm, row_mm = case.spacing_zhw_mm
    regions = [name for name in REGIONS if pd.notna(scores["dice"].get(name))]
    whole = whole_view(reference.shape, row_mm, column_mm)
    enlarged = tumour_view((reference > 0) | (prediction > 0), row_mm, column_mm)
    figure, panels = _case_panels(len(case.images), whole.height * row_mm / (whole.width * column_mm))
    for name, overview, detail in zip(case.images, *panels, strict=True):
        levels = to_display(grey_levels(case.images[name], case.intensities[name], index))
        for axes, view in ((overview, whole), (detail, enlarged)):
            axes.imshow(levels, cmap="gray", vmin=0, vmax=1, aspect=row_mm / column_mm)
            axes.set(xlim=view[:2], ylim=view[2:])
            axes.set_axis_off()
            _draw_directions(axes)
        overview.set_title(MODALITY_NAMES.get(name, name), color="white")
        frame = (enlarged.left, enlarged.top), enlarged.width, enlarged.height
        overview.add_patch(Rectangle(*frame, fill=False, edgecolor="#AAAAAA"))
        draw_outlines(detail, reference, prediction, regions)
    _draw_scale_bar(panels[0, 0], 50, whole.width * column_mm)
    _draw_scale_bar(panels[1, 0], 10, enlarged.width * column_mm)
    title = f"{heading}: {case.case_id}, axial slice {case.box.start[2] + index}\n{_list_scores(scores)}"
    figure.suptitle(title, color="white", fontsize=8)
    _draw_outline_legend(figure, regions)
    return figure


def draw_outlines(axes: Axes, reference: Labels, predicted: Labels, regions: Iterable[str] = REGIONS) -> None:
    """Outline these regions of two label maps (rows, columns): the reference solid, the prediction dashed.

    Each has a dark line beneath. The dashes are narrower, so that they show on a solid line that they follow.
    """
    rim = {**REFERENCE_LINE, "linewidth": REFERENCE_LINE["linewidth"] + 0.5}
    gaps = {**PREDICTION_LINE, "linestyle": "solid"}
    layers = (
        (reference, "black", rim),
        (reference, None, REFERENCE_LINE),
        (predicted, "black", gaps),
        (predicted, None, PREDICTION_LINE),
    )
    for labels, colour, line in layers:
        for name in regions:
            mask = np.pad(region_mask(labels, name), 1)  # closes outlines at the border of the crop
            if mask.any():
                rows, columns = (np.arange(n_pixels) - 1 for n_pixels in mask.shape)
                outline = axes.contour(
                    columns, rows, mask, [OUTLINE_LEVELS[name]], colors=colour or REGIONS[name].colour
                )
                outline.set(**line)


def format_score(value: float, n_decimals: int) -> str:
    """A score as the pictures write it; NaN is "n/a"."""
    return "n/a" if math.isnan(value) else f"{value:.{n_decimals}f}"


def _case_panels(n_modalities: int, height_to_width: float) -> tuple[Figure, npt.NDArray[np.object_]]:
    """A black figure and its panels (2, n_modalities): overviews of this proportion, and square details."""
    panel_in = WIDTH_IN / max(n_modalities, 3)
    figure = blank_figure(panel_in * (height_to_width + 1) + 0.94, "black")
    return figure, figure.subplots(2, n_modalities, squeeze=False, height_ratios=(height_to_width, 1))


def _draw_directions(axes: Axes) -> None:
    """The letters of the patient's right, left, front and back, at the edges of a panel."""
    for letter, x, y in (("R", 0.03, 0.5), ("L", 0.97, 0.5), ("A", 0.5, 0.97), ("P", 0.5, 0.03)):
        _write_on_image(axes, x, y, letter)


def _draw_scale_bar(axes: Axes, length_mm: int, panel_mm: float) -> None:
    """A bar of this length near the lower left corner of a panel that shows `panel_mm` from left to right."""
    start, height = 0.03, 0.03
    bar = [start, start + length_mm / panel_mm]
    axes.plot(bar, [height, height], color="white", linewidth=1.4, transform=axes.transAxes)
    _write_on_image(axes, start, 2 * height, f"{length_mm} mm", ha="left")


def _write_on_image(axes: Axes, x: float, y: float, text: str, ha: str = "center") -> None:
    stroke = [withStroke(linewidth=1.1, foreground="black")]
    axes.text(
        x, y, text, color="white", fontsize=6, ha=ha, va="center", transform=axes.transAxes, path_effects=stroke
    )


def _draw_outline_legend(figure: Figure, regions: Iterable[str]) -> None:
    handles = [
        Line2D([], [], color=REGIONS[name].colour, label=f"{name} {REGIONS[name].full_name}") for name in regions
    ]
    handles.append(Line2D([], [], color="white", label="reference", **REFERENCE_LINE))
    handles.append(Line2D([], [], color="white", label="prediction", **PREDICTION_LINE))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, labelcolor="white"
    )


def _list_scores(scores: pd.DataFrame) -> str:
    """Dice and HD95 of each region in one line."""
    scores = scores.reindex(list(REGIONS))
    dice_texts = (f"{name} {format_score(value, 3)}" for name, value in scores["dice"].items())
    hd95_texts = (f"{name} {format_score(value, 1)}" for name, value in scores["hd95_mm"].items())
    return "  ".join(["Dice", *dice_texts, "    HD95 (mm)", *hd95_texts])
