"""Figures of volumes, uncertainty and reliability: the values that they draw."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from brats.report.score_figures import (
    count_cases,
    plot_reliability,
    plot_uncertainty,
    plot_volumes,
    with_volumes,
)

NAN = float("nan")
COLUMNS = ("case_id", "split", "region", "dice", "reference_ml", "predicted_ml")


def case_rows(*rows: Sequence[object]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS))


CASES = case_rows(
    ("a", "test", "WT", 0.9, 40.0, 44.0),
    ("b", "test", "WT", 0.0, 0.0, 2.0),
    ("a", "test", "ET", NAN, 5.0, NAN),  # which the model does not predict
    ("b", "test", "TC", 1.0, 0.0, 0.0),
)


def points(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """What is drawn below each name of the legend."""
    lines = {str(line.get_label()): np.asarray(line.get_xydata(), float) for line in axes.lines}
    return {
        name: [(x, y) for x, y in values.tolist()] for name, values in lines.items() if not name.startswith("_")
    }


def test_volumes_have_a_point_for_each_case_and_predicted_region() -> None:
    dice, volumes = plot_volumes(CASES).axes
    assert points(dice) == {"WT whole tumour": [(40, 0.9), (0, 0)], "TC tumour core": [(0, 1)]}
    assert points(volumes) == {"WT whole tumour": [(40, 44), (0, 2)], "TC tumour core": [(0, 0)]}


def test_empty_masks_have_a_place_on_the_axes_of_volumes_and_equal_volumes_a_line() -> None:
    figure = plot_volumes(CASES)
    dice, volumes = figure.axes
    for low, high in (dice.get_xlim(), volumes.get_xlim(), volumes.get_ylim()):
        assert low < 0
        assert high == 88
    dashed = [np.asarray(line.get_xydata()).tolist() for line in volumes.lines if line.get_linestyle() == "--"]
    assert dashed == [[[0, 0], [88, 88]]]
    assert figure.get_suptitle().startswith("2 test cases: ")


def test_volumes_of_empty_masks_alone_can_be_drawn() -> None:
    empty = case_rows(("a", None, "WT", 1.0, 0.0, 0.0))
    figure = plot_volumes(empty)
    figure.draw_without_rendering()
    assert points(figure.axes[1]) == {"WT whole tumour": [(0, 0)]}


def test_rows_without_a_dice_or_a_volume_are_not_of_the_figure() -> None:
    assert with_volumes(CASES)["region"].tolist() == ["WT", "WT", "TC"]
    assert len(with_volumes(pd.DataFrame(columns=list(COLUMNS)))) == 0


def test_the_curves_of_uncertainty_are_means_over_cases() -> None:
    rows = [
        {"case_id": case, "region": "ET", "threshold": tau, "dice": dice, "ftp": 0.5, "ftn": 0.25}
        for case, dice in (("a", 0.5), ("b", 1.0))
        for tau in (0.0, 100.0)
    ]
    figure = plot_uncertainty(pd.DataFrame(rows))
    assert [points(axes) for axes in figure.axes] == [
        {"ET enhancing tumour": [(0, value), (100, value)]} for value in (0.75, 0.5, 0.25)
    ]
    assert figure.get_suptitle().startswith("2 cases: ")


def test_reliability_has_the_share_of_the_reference_and_the_voxels_of_each_bin() -> None:
    counts = np.zeros((256, 2), np.int64)
    counts[51] = 80, 20  # of p = 0.2 a fifth
    counts[102] = 10, 30
    counts[204] = 1, 1  # too few to be drawn
    figure = plot_reliability({"WT": counts}, 1)
    share, voxels = figure.axes
    assert points(share) == {"WT whole tumour": [(0.2, 0.2), (0.4, 0.75)]}
    assert points(voxels) == {"WT whole tumour": [(0.2, 100), (0.4, 40)]}
    assert figure.get_suptitle().startswith("1 case: ")


def test_reliability_without_a_bin_of_enough_voxels_can_be_drawn() -> None:
    figure = plot_reliability({"WT": np.zeros((256, 2), np.int64)}, 1)
    figure.draw_without_rendering()
    assert points(figure.axes[0]) == {"WT whole tumour": []}


def test_cases_are_counted_with_their_splits() -> None:
    assert count_cases(CASES) == "2 test cases"
    assert count_cases(CASES.assign(case_id="a", split=None)) == "1 case"
    assert count_cases(CASES.assign(split=["test", "val", "test", None])) == "2 test/val cases"
