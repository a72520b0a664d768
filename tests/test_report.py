"""Pictures of a run: which case and slice are shown, which way up, with which lines, and the files written."""

import io
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from brats import storage
from brats.data.cases import CaseFiles
from brats.data.masks import masks_path, write_masks
from brats.data.preprocess import Case, Intensity, crop_case
from brats.data.slices import encode_case, slices_path
from brats.data.volume import Grid, Volume
from brats.errors import StorageError
from brats.labels import ED, ET, NCR, REGIONS, Labels
from brats.score.report import (
    COLOURS,
    Field,
    choose_cases,
    choose_slice,
    draw_cases,
    draw_distributions,
    draw_learning_curves,
    draw_outlines,
    grey_levels,
    plot_case,
    plot_distributions,
    plot_learning_curves,
    read_prediction,
    to_display,
    tumour_field,
)
from brats.storage import FileInfo

MODALITIES = ("flair", "t1", "t1ce", "t2")
SHAPE = (60, 50, 8)
LPS = ((-1.0, 0.0, 0.0, 59.0), (0.0, -1.0, 0.0, 49.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
NAN = float("nan")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def make_case(case_id: str = "a", modalities: Sequence[str] = MODALITIES) -> Case:
    """A case whose crop begins at (5, 4, 1), with a tumour in the patient's right front.

    The tumour is largest in slice z = 4, which is number 3 of the crop.
    """
    brain = np.zeros(SHAPE, bool)
    brain[5:55, 4:46, 1:7] = True
    labels = np.zeros(SHAPE, np.uint8)
    labels[35:48, 30:42, 4] = ED
    labels[38:45, 33:40, 3:6] = ET
    labels[40:43, 35:38, 4] = NCR
    random = np.random.default_rng(0)
    grid = Grid(shape=SHAPE, affine=LPS, header={})
    volumes = {
        name: Volume(
            voxels=np.where(brain, 100 + 50 * labels + random.integers(0, 40, SHAPE), 0).astype(np.int16),
            slope=1,
            inter=0,
            grid=grid,
        )
        for name in modalities
    }
    files = CaseFiles(
        case_id=case_id,
        patient_id=case_id,
        layout="brats2018",
        images={name: FileInfo(f"{case_id}_{name}.nii.gz", 1) for name in modalities},
        segmentation=None,
        grade="",
    )
    return crop_case(files, volumes, labels)


def reference_of(case: Case) -> Labels:
    assert case.labels is not None
    return case.labels


def metric_rows(case_id: str, dice: Sequence[float | None], split: str | None = "test") -> list[dict[str, Any]]:
    return [
        {"case_id": case_id, "split": split, "region": region, "dice": value, "hd95_mm": 2.5}
        for region, value in zip(REGIONS, dice, strict=True)
    ]


def metrics_of(dice: dict[str, Sequence[float | None]]) -> pd.DataFrame:
    return pd.DataFrame([row for case_id, values in dice.items() for row in metric_rows(case_id, values)])


def scores_of(dice: Sequence[float]) -> pd.DataFrame:
    return pd.DataFrame(metric_rows("a", dice)).set_index("region")


def write_metrics(predictions: Path, rows: list[dict[str, Any]]) -> None:
    schema = pa.schema(
        [(name, pa.string()) for name in ("case_id", "split", "region")]
        + [(name, pa.float64()) for name in ("dice", "hd95_mm")]
    )
    table = pa.Table.from_pylist(rows, schema=schema)
    storage.write_table(str(predictions / "metrics" / "cases.parquet"), table, {})


def make_history(val_dice: Sequence[float]) -> pd.DataFrame:
    n_epochs = len(val_dice)
    columns: dict[str, Any] = {
        "epoch": range(1, n_epochs + 1),
        "train_loss": np.linspace(1.5, 0.5, n_epochs),
        "val_loss": np.linspace(1.6, 0.7, n_epochs),
        "val_dice": val_dice,
    }
    regions = {
        f"val_dice_{name}": np.array(val_dice) + shift for name, shift in (("wt", 0.1), ("tc", 0), ("et", -0.1))
    }
    return pd.DataFrame(columns | regions)


def png_size(content: bytes) -> tuple[int, int]:
    """Width and height, from the first chunk of a PNG."""
    assert content.startswith(PNG_SIGNATURE)
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


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


def heights(line: Line2D) -> list[float]:
    values: list[float] = np.asarray(line.get_ydata(), float).tolist()
    return values


def places(line: Line2D) -> list[float]:
    values: list[float] = np.asarray(line.get_xdata(), float).tolist()
    return values


def dotted_lines(axes: Axes) -> list[float]:
    return [places(line)[0] for line in axes.lines if line.get_linestyle() == ":"]


# Which case, which slice


def test_cases_are_ranked_by_the_mean_dice_of_their_regions() -> None:
    metrics = metrics_of({"a": (0.9, 0.1, 0.2), "b": (0.7, 0.7, 0.7), "c": (0.5, 0.5, 0.5)})
    assert choose_cases(metrics) == {"best": "b", "median": "c", "worst": "a"}


def test_of_two_cases_in_the_middle_the_better_is_the_median() -> None:
    metrics = metrics_of({name: (dice,) * 3 for name, dice in zip("abcd", (0.2, 0.4, 0.6, 0.8), strict=True)})
    assert choose_cases(metrics) == {"best": "d", "median": "c", "worst": "a"}


@pytest.mark.parametrize(
    ("dice", "chosen"), [((0.5, 0.6), {"best": "b", "worst": "a"}), ((0.5,), {"best": "a"}), ((), {})]
)
def test_fewer_than_three_cases_are_not_chosen_twice(dice: tuple[float, ...], chosen: dict[str, str]) -> None:
    metrics = metrics_of({name: (value,) * 3 for name, value in zip("ab", dice, strict=False)})
    assert choose_cases(metrics.reindex(columns=["case_id", "dice"])) == chosen


def test_equal_cases_are_ordered_by_their_id() -> None:
    metrics = metrics_of({f"{number:02}": (0.5,) * 3 for number in reversed(range(61))})
    assert choose_cases(metrics) == {"best": "00", "median": "30", "worst": "60"}


def test_a_null_dice_is_left_out_of_the_mean() -> None:
    metrics = metrics_of({"a": (0.9, 0.9, None), "b": (0.8, 0.8, 0.8), "c": (None, None, None)})
    assert choose_cases(metrics) == {"best": "a", "worst": "b"}


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


def test_the_enlarged_field_is_a_square_with_10_mm_around_the_tumour() -> None:
    tumour = np.zeros((200, 100), bool)
    tumour[60:100, 40:45] = True  # 40 mm by 10 mm; its centre is at row 79.5, column 42
    field = tumour_field(tumour, row_mm=1, column_mm=2)
    assert field == Field(left=42 - 15, right=42 + 15, bottom=79.5 + 30, top=79.5 - 30)


def test_the_enlarged_field_shows_30_mm_of_a_tiny_tumour() -> None:
    tumour = np.zeros((100, 100), bool)
    tumour[50, 50] = True
    assert tumour_field(tumour, 1, 1) == Field(left=35, right=65, bottom=65, top=35)


def test_the_enlarged_field_stays_inside_the_slice() -> None:
    tumour = np.zeros((100, 100), bool)
    tumour[0, 99] = True
    assert tumour_field(tumour, 1, 1) == Field(left=69.5, right=99.5, bottom=29.5, top=-0.5)


def test_without_tumour_the_enlarged_field_holds_the_whole_slice_centred() -> None:
    field = tumour_field(np.zeros((100, 50), bool), 1, 1)
    assert field == Field(left=-35.5, right=84.5, bottom=109.5, top=-10.5)


# Outlines


def test_the_reference_is_solid_and_the_prediction_dashed_in_the_colours_of_the_regions() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[2:18, 2:18], labels[5:15, 5:15], labels[8:12, 8:12] = ED, NCR, ET
    axes = Figure().subplots()
    draw_outlines(axes, labels, labels)
    drawn = [(colour, dashed) for colour, dashed, _ in outlines(axes)]
    colours = [COLOURS[region] for region in REGIONS]
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


# The pictures


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


def test_voxels_keep_their_proportions() -> None:
    case = make_case(modalities=("t1",))
    affine = tuple(tuple(value * (3 if row == 1 else 1) for value in values) for row, values in enumerate(LPS))
    case = replace(case, grid=replace(case.grid, affine=affine))
    overview, _ = plot_case(case, reference_of(case), scores_of((1, 1, 1)), "Best").axes
    assert overview.get_aspect() == 3  # rows are 3 mm apart, columns 1 mm


def test_learning_curves_show_the_history_and_mark_the_best_epoch() -> None:
    history = make_history([0.2, 0.7, 0.7, 0.6])
    loss, dice = plot_learning_curves(history).axes
    assert [heights(line) for line in loss.lines[:2]] == [list(history["train_loss"]), list(history["val_loss"])]
    assert [heights(line) for line in dice.lines[:3]] == [
        list(history[f"val_dice_{name}"]) for name in ("wt", "tc", "et")
    ]
    assert dotted_lines(loss) == dotted_lines(dice) == [2]  # the first of equals
    assert dice.lines[3].get_label() == "best epoch: 2, mean Dice 0.700"


def test_learning_curves_of_one_epoch_have_whole_epochs_on_their_axis() -> None:
    figure = plot_learning_curves(make_history([0.4]))
    assert [float(tick) for tick in figure.axes[0].get_xticks()] == [0, 1, 2]


def test_without_validation_no_epoch_is_best() -> None:
    history = make_history([NAN, NAN]).assign(val_loss=NAN)
    loss, dice = plot_learning_curves(history).axes
    assert dotted_lines(loss) == dotted_lines(dice) == []
    assert loss.get_ylim() == (0, 1.05 * 1.5)


def test_distributions_show_every_case_at_one_place_in_each_region() -> None:
    metrics = metrics_of({"a": (0.9, 0.8, 0.0), "b": (0.7, 0.6, 1.0)})
    figure = plot_distributions(metrics)
    points = [line for line in figure.axes[0].lines if line.get_linestyle() == "None"]
    assert [heights(line) for line in points] == [[0.9, 0.7], [0.8, 0.6], [0.0, 1.0]]
    assert [places(line) for line in points] == [[-0.125, 0.125], [0.875, 1.125], [1.875, 2.125]]
    assert figure.get_suptitle().startswith("2 test cases")


def test_distributions_say_the_median_of_each_region() -> None:
    metrics = metrics_of({"a": (0.9, 0.8, None), "b": (0.7, 0.6, None), "c": (0.1, 0.6, None)})
    dice, hd95 = plot_distributions(metrics).axes
    labels = [text.get_text() for axes in (dice, hd95) for text in axes.get_xticklabels()]
    assert labels[:4] == ["WT\nmedian 0.700", "TC\nmedian 0.600", "ET\nmedian n/a", "WT\nmedian 2.5 mm"]


# The files


def write_predictions(tmp_path: Path, dice: dict[str, float]) -> tuple[str, str]:
    """A prepared dataset and perfect predictions of its cases, which the metrics score otherwise."""
    prepared, predictions = tmp_path / "prepared", tmp_path / "predictions"
    for case_id in dice:
        case = make_case(case_id, ("t1", "t2"))
        storage.write_bytes(slices_path(str(prepared), case_id), encode_case(case)[0])
        write_masks(str(predictions), case, reference_of(case))
    write_metrics(
        predictions, [row for case_id, value in dice.items() for row in metric_rows(case_id, [value] * 3)]
    )
    return str(predictions), str(prepared)


def test_best_median_and_worst_case_are_drawn_from_the_files(tmp_path: Path) -> None:
    predictions, prepared = write_predictions(tmp_path, {"a": 0.3, "b": 0.9, "c": 0.6})
    paths = draw_cases(predictions, str(tmp_path / "figures"), prepared)
    assert paths == [f"{tmp_path}/figures/case_{role}.png" for role in ("best", "median", "worst")]
    for path in paths:
        content = storage.read_bytes(path)
        assert png_size(content)[0] == 1600
        assert matplotlib.image.imread(io.BytesIO(content))[..., :3].std() > 0.1  # not one colour
    assert len({storage.read_bytes(path) for path in paths}) == 3


def test_drawing_again_gives_the_same_file(tmp_path: Path) -> None:
    predictions, prepared = write_predictions(tmp_path, {"a": 0.5})
    (path,) = draw_cases(predictions, str(tmp_path / "figures"), prepared)
    content = storage.read_bytes(path)
    assert draw_cases(predictions, str(tmp_path / "figures"), prepared) == [path]
    assert storage.read_bytes(path) == content


def test_a_prediction_comes_back_from_the_source_axes_as_the_crop(tmp_path: Path) -> None:
    case = make_case()
    write_masks(str(tmp_path), case, reference_of(case))
    np.testing.assert_array_equal(read_prediction(str(tmp_path), case), reference_of(case))


def test_a_missing_mask_is_not_drawn_over(tmp_path: Path) -> None:
    predictions, prepared = write_predictions(tmp_path, {"a": 0.5})
    storage.remove(masks_path(predictions, "a"))
    with pytest.raises(FileNotFoundError):
        draw_cases(predictions, str(tmp_path / "figures"), prepared)
    assert not (tmp_path / "figures").exists()


def test_learning_curves_are_drawn_from_the_history(tmp_path: Path) -> None:
    table = pa.Table.from_pandas(make_history([0.2, 0.5]), preserve_index=False)
    storage.write_table(str(tmp_path / "run" / "history.parquet"), table, {})
    path = draw_learning_curves(str(tmp_path / "run"), str(tmp_path / "figures"))
    assert path == f"{tmp_path}/figures/learning_curves.png"
    assert png_size(storage.read_bytes(path)) == (1600, 672)


def test_distributions_are_drawn_from_the_metrics_also_of_cases_without_a_split(tmp_path: Path) -> None:
    write_metrics(tmp_path, metric_rows("a", (0.5, 0.6, None), split=None))
    path = draw_distributions(str(tmp_path), str(tmp_path / "figures"))
    assert path == f"{tmp_path}/figures/distributions.png"
    assert png_size(storage.read_bytes(path)) == (1600, 768)


def test_without_scored_cases_nothing_is_drawn(tmp_path: Path) -> None:
    write_metrics(tmp_path, [])
    assert draw_cases(str(tmp_path), str(tmp_path / "figures"), str(tmp_path)) == []
    assert draw_distributions(str(tmp_path), str(tmp_path / "figures")) is None
    assert not (tmp_path / "figures").exists()


def test_a_table_of_another_program_is_refused(tmp_path: Path) -> None:
    make_history([0.5]).to_parquet(tmp_path / "history.parquet")
    with pytest.raises(StorageError, match=r"history\.parquet: not written by brats-ray"):
        draw_learning_curves(str(tmp_path), str(tmp_path / "figures"))


def test_drawing_leaves_the_global_state_of_matplotlib_alone(tmp_path: Path) -> None:
    write_metrics(tmp_path, metric_rows("a", (0.5, 0.6, 0.7)))
    program = (
        "import sys; from brats.score.report import draw_distributions; "
        f"draw_distributions({str(tmp_path)!r}, {str(tmp_path)!r}); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
