"""Figures of a run: which there are, which cases are shown, and which values are drawn."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from brats import storage
from brats.data.dataset import slices_path
from brats.data.masks import masks_path, write_masks
from brats.data.run_split import test_dir as predictions_of
from brats.data.slices import encode_case
from brats.errors import StorageError
from brats.labels import REGIONS
from brats.report.figure_files import render
from brats.report.figures import case_plots, choose_cases, plot_distributions, plot_learning_curves, plots
from brats.report.findings import Findings, Scores, read_findings, read_scores
from brats.score.tables import CASE_METRICS, metrics_path, read_case_metrics
from tests.support.drawing import make_case, reference_of
from tests.support.reports import write_run

NAN = float("nan")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def metric_rows(case_id: str, dice: Sequence[float | None], split: str | None = "test") -> list[dict[str, Any]]:
    return [
        {"case_id": case_id, "split": split, "region": region, "dice": value, "hd95_mm": 2.5}
        for region, value in zip(REGIONS, dice, strict=True)
    ]


def metrics_of(dice: dict[str, Sequence[float | None]]) -> pd.DataFrame:
    return pd.DataFrame([row for case_id, values in dice.items() for row in metric_rows(case_id, values)])


def write_metrics(predictions: Path, rows: list[dict[str, Any]]) -> None:
    schema = pa.schema(
        [(name, pa.string()) for name in ("case_id", "split", "region")]
        + [(name, pa.float64()) for name in ("dice", "hd95_mm")]
    )
    table = pa.Table.from_pylist(rows, schema=schema)
    storage.write_table(metrics_path(str(predictions), "cases"), CASE_METRICS, table)


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


def heights(line: Line2D) -> list[float]:
    values: list[float] = np.asarray(line.get_ydata(), float).tolist()
    return values


def places(line: Line2D) -> list[float]:
    values: list[float] = np.asarray(line.get_xdata(), float).tolist()
    return values


def dotted_lines(axes: Axes) -> list[float]:
    return [places(line)[0] for line in axes.lines if line.get_linestyle() == ":"]


# Which case


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


# The pictures


def test_learning_curves_show_the_history_and_mark_the_best_epoch() -> None:
    history = make_history([0.2, 0.7, 0.7, 0.6])
    loss, dice = plot_learning_curves(history).axes
    assert [heights(line) for line in loss.lines[:2]] == [list(history["train_loss"]), list(history["val_loss"])]
    assert [heights(line) for line in dice.lines[:3]] == [
        list(history[f"val_dice_{name}"]) for name in ("wt", "tc", "et")
    ]
    assert dotted_lines(loss) == dotted_lines(dice) == [2]  # the first of equals
    assert dice.lines[3].get_label() == "best epoch: 2, mean Dice 0.700"


def test_epochs_that_were_not_validated_are_left_out_of_the_curves_of_validation() -> None:
    history = make_history([0.2, NAN, NAN, 0.6])
    history.loc[[1, 2], "val_loss"] = NAN
    loss, dice = plot_learning_curves(history).axes
    assert heights(loss.lines[0]) == list(history["train_loss"])
    assert places(loss.lines[1]) == places(dice.lines[0]) == [1, 4]
    assert heights(loss.lines[1]) == [1.6, 0.7]
    assert dotted_lines(dice) == [4]


def test_learning_curves_have_no_line_of_a_region_that_is_not_predicted() -> None:
    history = make_history([0.2, 0.7]).assign(val_dice_tc=NAN, val_dice_et=NAN)
    _, dice = plot_learning_curves(history).axes
    assert [line.get_label() for line in dice.lines] == ["WT whole tumour", "best epoch: 2, mean Dice 0.700"]


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


def test_regions_without_scores_have_no_unit_either() -> None:
    metrics = metrics_of({"a": (0.9, None, None)}).assign(hd95_mm=[2.5, NAN, NAN])
    _, hd95 = plot_distributions(metrics).axes
    assert [text.get_text() for text in hd95.get_xticklabels()][1:] == ["TC\nmedian n/a", "ET\nmedian n/a"]


# The files


def write_predictions(tmp_path: Path, dice: dict[str, float]) -> tuple[str, str]:
    """A prepared dataset and perfect predictions of its cases, which the metrics score otherwise."""
    prepared, predictions = tmp_path / "prepared", tmp_path / "predictions"
    for case_id in dice:
        case = make_case(case_id, ("t1", "t2"))
        storage.write_bytes(slices_path(str(prepared), case_id), encode_case(case)[0])
        write_masks(str(predictions), case_id, case.on_source_grid(reference_of(case)))
    write_metrics(
        predictions, [row for case_id, value in dice.items() for row in metric_rows(case_id, [value] * 3)]
    )
    return str(predictions), str(prepared)


def test_best_median_and_worst_case_are_drawn_from_the_files(tmp_path: Path) -> None:
    predictions, prepared = write_predictions(tmp_path, {"a": 0.3, "b": 0.9, "c": 0.6})
    plots_of_cases = dict(case_plots(read_case_metrics(predictions), predictions, prepared))
    assert list(plots_of_cases) == ["case_best", "case_median", "case_worst"]
    contents = [render(plot, ["png"])["png"] for plot in plots_of_cases.values()]
    assert len({*contents}) == 3
    for content in contents:
        assert png_size(content)[0] == 1600
        assert matplotlib.image.imread(io.BytesIO(content))[..., :3].std() > 0.1  # not one colour


def test_a_missing_mask_is_not_drawn_over(tmp_path: Path) -> None:
    predictions, prepared = write_predictions(tmp_path, {"a": 0.5})
    storage.remove(masks_path(predictions, "a"))
    ((_, plot),) = case_plots(read_case_metrics(predictions), predictions, prepared)
    with pytest.raises(FileNotFoundError):
        plot()


def names_of(found: Findings) -> list[str]:
    return [name for name, _ in plots(found)]


def test_a_folder_has_the_figures_of_the_tables_that_it_has(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", (0, 1), probabilities=True)
    assert names_of(read_findings(run)) == [
        *("learning_curves", "distributions", "volumes", "uncertainty", "case_best", "case_worst")
    ]
    assert names_of(read_findings(predictions_of(run))) == ["distributions", "volumes", "uncertainty"]
    assert names_of(Findings(folder=run, histories={"": make_history([0.5])})) == ["learning_curves"]
    assert names_of(Findings(folder=run, histories={"fold_0": make_history([0.5])})) == []


def test_scores_without_volumes_or_probabilities_have_their_distributions_alone(tmp_path: Path) -> None:
    cases = metrics_of({"a": (0.5, 0.6, None)}).assign(reference_ml=NAN, predicted_ml=NAN)
    found = Findings(folder=str(tmp_path), scores=Scores(tables={"cases": cases}, conventions={}))
    write_metrics(tmp_path, metric_rows("a", (0.5, 0.6, None)))
    assert names_of(found) == ["distributions"]


def test_figures_of_another_program_are_not_drawn(tmp_path: Path) -> None:
    make_history([0.5]).to_parquet(tmp_path / "history.parquet")
    with pytest.raises(StorageError, match=r"history\.parquet: not written by brats-ray"):
        read_findings(str(tmp_path))


def test_distributions_have_points_of_cases_without_a_split(tmp_path: Path) -> None:
    write_metrics(tmp_path, metric_rows("a", (0.5, 0.6, None), split=None))
    metrics = read_case_metrics(str(tmp_path))
    assert plot_distributions(metrics).get_suptitle().startswith("1 case:")
    assert png_size(render(lambda: plot_distributions(metrics), ["png"])["png"]) == (1600, 768)


def test_without_scored_cases_nothing_is_drawn(tmp_path: Path) -> None:
    storage.write_table(metrics_path(str(tmp_path), "cases"), CASE_METRICS, CASE_METRICS.table([]))
    assert names_of(Findings(folder=str(tmp_path), scores=read_scores(str(tmp_path)))) == []
