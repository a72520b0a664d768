"""The lines of a training on the console, for each of the three bounds of a run."""

from typing import Any

import pytest

from brats.cluster.placement import Placement
from brats.config import TrainConfig
from brats.data.batches import InputSpec, TrainingSet
from brats.data.epoch import EpochPlan, TrainingCase
from brats.model.history import HistoryRow
from brats.model.schedule import EpochProgress
from brats.pipeline.workers.lines import announce, show, show_done
from brats.pipeline.workers.worker import TrainingTask

WIDTH = 116


def row(epoch: int, n_steps: int = 3, **values: Any) -> HistoryRow:
    return {
        "epoch": epoch,
        "n_steps": n_steps,
        "train_loss": 0.51,
        "val_loss": 0.62,
        "val_dice": 0.717,
        "val_dice_wt": 0.801,
        "val_dice_tc": 0.7,
        "val_dice_et": 0.65,
        "slices_per_s": 24.4,
        "train_s": 24.0,
        "elapsed_s": 30.0,
        **values,
    }


def task(**bound: Any) -> TrainingTask:
    """Of epochs of 40 slices in 3 steps."""
    case = TrainingCase("a", (1,) * 40)
    plan = EpochPlan(cases=(case,), seed=0, batch_size=16, tumour_free_ratio=0)
    inputs = InputSpec(modalities=("t1",))
    data = TrainingSet(prepared="", plan=plan, inputs=inputs, size=(32, 32), shapes=((40, 32, 32),))
    return TrainingTask(config=TrainConfig(out="run", modalities=("t1",), **bound), data=data, val_paths=[])


def progress(**values: Any) -> EpochProgress:
    given = {"epoch": 3, "step": 120, "run_step": 780, "slices_per_s": 412.3, "elapsed_s": 730, "left_s": 45}
    return EpochProgress(**{**given, **values})


def test_the_line_of_an_epoch_names_the_regions_that_have_a_dice(capsys: pytest.CaptureFixture[str]) -> None:
    show(task(epochs=5), [row(1), row(2, val_dice_tc=None, val_dice_et=None)])
    assert "  Dice WT 0.801  24 slices/s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("bound", "line"),
    [
        ({"epochs": 5}, "train    epoch 2/5  loss 0.510 val 0.620  Dice {}  24 slices/s  1:30 min left\n"),
        ({"steps": 9}, "train    epoch 2  step 6  loss 0.510 val 0.620  Dice {}  24 slices/s  0:30 min left\n"),
        ({"minutes": 60}, "train    epoch 2  1:00 of 60:00 min  loss 0.510 val 0.620  Dice {}  24 slices/s\n"),
    ],
)
def test_the_line_of_an_epoch_has_loss_dice_speed_and_time_left(
    bound: dict[str, Any], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show(task(**bound), [row(1), row(2)])
    assert capsys.readouterr().out == line.format("WT 0.801 TC 0.700 ET 0.650")


@pytest.mark.parametrize(
    ("bound", "line"),
    [
        ({"epochs": 30}, "train    epoch 3/30  step 120/3  412 slices/s  0:45 min left\n"),
        ({"steps": 5000}, "train    epoch 3  step 780/5000  412 slices/s  0:45 min left\n"),
        ({"minutes": 60}, "train    epoch 3  12:10 of 60:00 min  step 120/3  412 slices/s\n"),
    ],
)
def test_the_line_of_a_long_epoch_has_steps_speed_and_time_left(
    bound: dict[str, Any], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show(task(**bound), progress())
    assert capsys.readouterr().out == line


@pytest.mark.parametrize("bound", [{"epochs": 9999}, {"steps": 999_999}, {"minutes": 5999}])
def test_no_line_of_a_large_run_is_too_long(bound: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    large = row(999, n_steps=99_999, slices_per_s=4321.0, train_s=24 * 3600.0, elapsed_s=24 * 3600.0)
    show(task(**bound), [large])
    show(task(**bound), progress(epoch=999, run_step=99_999, elapsed_s=24 * 3600, left_s=24 * 3600))
    assert all(len(line) <= WIDTH for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    ("bound", "amount"),
    [
        ({"epochs": 30}, "30 epochs"),
        ({"steps": 500}, "500 steps in epochs"),
        ({"minutes": 45}, "45:00 min in epochs"),
    ],
)
def test_the_announcement_names_network_workers_and_work(
    bound: dict[str, Any], amount: str, capsys: pytest.CaptureFixture[str]
) -> None:
    placement = Placement(workers=1, use_gpu=True, cpus=1, threads=0)
    announce(task(**bound), placement, [row(1), row(2), row(3)])
    work = f"{amount} of 40 slices in 3 steps, resuming after epoch 3"
    expected = f"U-Net tu-tf_efficientnet_lite0 on t1; 1 GPU worker; {work}\n"
    assert capsys.readouterr().out == f"train    {expected}"


@pytest.mark.parametrize(
    ("bound", "done"),
    [
        ({"epochs": 2}, "2 epochs are done"),
        ({"steps": 4}, "6 steps are done"),
        ({"minutes": 1}, "1:00 of 1:00 min are done"),
    ],
)
def test_a_finished_run_is_named_with_what_is_done(
    bound: dict[str, Any], done: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show_done(TrainConfig(out="run", **bound), [row(1), row(2)])
    assert capsys.readouterr().out == f"train    nothing to do: {done}\n"
