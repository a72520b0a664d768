"""The picture of a case: which slice is shown, which way up, how much of it, with which lines."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from brats.data.case import Intensity
from brats.labels import ED, ET, NCR, REGIONS
from brats.report.overlay import (
    View,
    choose_slice,
    draw_outlines,
    grey_levels,
    plot_case,
    to_display,
    tumour_view,
)
from tests.support.drawing import LPS, make_case, reference_of

NAN = float("nan")


def scores_of(dice: Sequence[float]) -> pd.DataFrame:
    return pd.DataFrame({"dice": dice, "hd95_mm": 2.5}, index=pd.Index(list(REGIONS), name="region"))


def outlines(axes: Axes) -> list[tuple[str, bool, npt.NDArray[np.float64]]]:
    """Colour, whether dashed, and vertices (n, 2) of each outline as drawn, without the dark lines beneath."""
    found = []
    for contour in axes.collections:
        assert isinstance(contour, ContourSet)
        red, green, blue, _ = np.asarray(contour.get_edgecolor(), float)[0]
        linestyle: Any = contour.get_linestyle()
        vertices = np.asarray(contour.get_paths()[0].vertices, np.float64)
        if (red, green, blue) != (0, 0, 0):
            found.append((to_hex((red, green, blue)).upper(), linestyle != [(0, None)], vertices))
    return found


# Which slice


def test_the_slice_shown_has_most_tumour_in_the_reference() -> None:
    reference, predicted = np.zeros((3, 2, 2), np.uint8), np.full((3, 2, 2), ET, np.uint8)
    reference[0, 0, 0], reference[1, 0] = ET, NCR
    assert choose_slice(reference, predicted) == 1


def test_without_tumour_in_the_reference_the_slice_shown_has_most_predicted() -> None:
    predicted = np.zeros((3, 2, 2), np.uint8)
    predicted[2, 0, 0] = ED
    assert choose_slice(np.zeros((3, 2, 2), np.uint8), predicted) == 2


def test_without_any_tumour_the_middle_slice_is_shown() -> None:
    nothing = np.zeros((5, 2, 2), np.uint8)
    assert choose_slice(nothing, nothing) == 2


# What a panel shows


def test_the_front_is_up_and_the_patients_left_on_the_right() -> None:
    left_back, left_front, right_back, right_front = 1, 2, 3, 4
    plane = np.array([[left_back, left_front], [right_back, right_front]])  # H = X to the right, W = Y to the front
    np.testing.assert_array_equal(to_display(plane), [[right_front, left_front], [right_back, left_back]])


def test_the_window_spans_the_values_of_the_brain_and_not_the_background() -> None:
    image = np.concatenate([np.full(1000, -9), np.arange(101)]).reshape(1, 1, -1).astype(np.int16)
    intensity = Intensity(dtype="<i2", slope=1, inter=0, background=-9, mean=50, std=29)
    levels = grey_levels(image, intensity, 0)[0]
    assert levels[0] == 0  # background
    np.testing.assert_allclose(levels[[1000, 1001, 1050, 1100]], [0, 0, 49 / 98.5, 1])  # from 1 to 99.5


def test_a_negative_slope_turns_dark_to_bright() -> None:
    image = np.array([[[0, 1, 2, 3]]], np.int16)
    intensity = Intensity(dtype="<i2", slope=-2, inter=10, background=0, mean=6, std=1.6)
    levels = grey_levels(image, intensity, 0)[0]
    assert levels[0] == 0
    assert levels[1] == 1
    assert levels[3] == 0


def test_the_enlarged_view_is_a_square_with_10_mm_around_the_tumour() -> None:
    tumour = np.zeros((200, 100), bool)
    tumour[60:100, 40:45] = True  # 40 mm by 10 mm; its centre is at row 79.5, column 42
    view = tumour_view(tumour, row_mm=1, column_mm=2)
    assert view == View(left=42 - 15, right=42 + 15, bottom=79.5 + 30, top=79.5 - 30)


def test_the_enlarged_view_shows_30_mm_of_a_tiny_tumour() -> None:
    tumour = np.zeros((100, 100), bool)
    tumour[50, 50] = True
    assert tumour_view(tumour, 1, 1) == View(left=35, right=65, bottom=65, top=35)


def test_the_enlarged_view_stays_inside_the_slice() -> None:
    tumour = np.zeros((100, 100), bool)
    tumour[0, 99] = True
    assert tumour_view(tumour, 1, 1) == View(left=69.5, right=99.5, bottom=29.5, top=-0.5)


def test_without_tumour_the_enlarged_view_holds_the_whole_slice_centred() -> None:
    view = tumour_view(np.zeros((100, 50), bool), 1, 1)
    assert view == View(left=-35.5, right=84.5, bottom=109.5, top=-10.5)


# Outlines


def test_the_reference_is_solid_and_the_prediction_dashed_in_the_colours_of_the_regions() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[2:18, 2:18], labels[5:15, 5:15], labels[8:12, 8:12] = ED, NCR, ET
    axes = Figure().subplots()
    draw_outlines(axes, labels, labels)
    drawn = [(colour, dashed) for colour, dashed, _ in outlines(axes)]
    colours = [region.colour for region in REGIONS.values()]
    assert drawn == [(colour, False) for colour in colours] + [(colour, True) for colour in colours]


def test_an_outline_runs_between_the_voxels_inside_and_those_outside() -> None:
    labels = np.zeros((12, 10), np.uint8)
    labels[4:8, 0:3] = NCR  # WT and TC; it touches the border of the crop
    axes = Figure().subplots()
    draw_outlines(axes, labels, np.zeros_like(labels))
    wt, tc = (vertices for _, _, vertices in outlines(axes))
    np.testing.assert_allclose([tc.min(axis=0), tc.max(axis=0)], [[-0.5, 3.5], [2.5, 7.5]])
    np.testing.assert_allclose([wt.min(axis=0), wt.max(axis=0)], [[-0.9, 3.1], [2.9, 7.9]])


def test_without_tumour_nothing_is_outlined() -> None:
    axes = Figure().subplots()
    draw_outlines(axes, np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8))
    assert not axes.collections


# The picture


def test_a_case_shows_every_modality_whole_and_enlarged() -> None:
    case = make_case()
    figure = plot_case(case, reference_of(case), scores_of((1, 1, 1)), "Best")
    overviews, details = figure.axes[:4], figure.axes[4:]
    assert [axes.get_title() for axes in overviews] == ["FLAIR", "T1", "T1ce", "T2"]
    assert not any(axes.collections for axes in overviews)
    assert all(len(outlines(axes)) == 6 for axes in details)


@pytest.mark.parametrize("modalities", [("t1",), ("t1", "t2"), ("t1", "t2", "flair")])
def test_a_case_may_have_fewer_modalities(modalities: tuple[str, ...]) -> None:
    case = make_case(modalities=modalities)
    figure = plot_case(case, reference_of(case), scores_of((1, 1, 1)), "Best")
    assert len(figure.axes) == 2 * len(modalities)


def test_a_tumour_in_the_right_front_is_outlined_at_the_upper_left_beside_the_letter_r() -> None:
    case = make_case(modalities=("t1",))
    overview, detail = plot_case(case, reference_of(case), scores_of((1, 1, 1)), "Best").axes
    rows, columns = overview.images[0].get_size()
    (wt, *_) = (vertices for _, _, vertices in outlines(detail))
    column, row = (wt.min(axis=0) + wt.max(axis=0)) / 2
    assert column < columns / 2
    assert row < rows / 2
    letters = {text.get_text(): text.get_position() for text in overview.texts}
    assert letters["R"][0] < 0.5 < letters["L"][0]
    assert letters["P"][1] < 0.5 < letters["A"][1]


def test_outlines_lie_on_the_tumour_of_the_image() -> None:
    case = make_case(modalities=("t1",))
    reference = reference_of(case)
    detail = plot_case(case, reference, scores_of((1, 1, 1)), "Best").axes[1]
    levels = detail.images[0].get_array()
    assert levels is not None
    tumour = to_display(reference[3]) > 0
    np.testing.assert_array_equal(levels[tumour] > levels[~tumour].max(), True)
    rows, columns = np.nonzero(tumour)
    wt = outlines(detail)[0][2]
    np.testing.assert_allclose(wt.min(axis=0), [columns.min() - 0.9, rows.min() - 0.9])
    np.testing.assert_allclose(wt.max(axis=0), [columns.max() + 0.9, rows.max() + 0.9])


def test_the_title_names_role_case_slice_and_scores() -> None:
    case = make_case("BraTS-1")
    scores = scores_of((0.91234, 0.5, NAN)).assign(hd95_mm=[2.04, 373.13, NAN])
    figure = plot_case(case, reference_of(case), scores, "Worst of 9 cases")
    assert figure.get_suptitle() == (
        "Worst of 9 cases: BraTS-1, axial slice 4\n"
        "Dice  WT 0.912  TC 0.500  ET n/a      HD95 (mm)  WT 2.0  TC 373.1  ET n/a"
    )


def test_a_region_without_dice_is_neither_outlined_nor_in_the_legend() -> None:
    case = make_case(modalities=("t1",))
    figure = plot_case(case, reference_of(case), scores_of((0.9, NAN, NAN)), "Best")
    assert {colour for colour, _, _ in outlines(figure.axes[1])} == {REGIONS["WT"].colour}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["WT whole tumour", "reference", "prediction"]


def test_voxels_keep_their_proportions() -> None:
    case = make_case(modalities=("t1",))
    affine = tuple(tuple(value * (3 if row == 1 else 1) for value in values) for row, values in enumerate(LPS))
    case = replace(case, grid=replace(case.grid, affine=affine))
    overview, _ = plot_case(case, reference_of(case), scores_of((1, 1, 1)), "Best").axes
    assert overview.get_aspect() == 3  # rows are 3 mm apart, columns 1 mm
