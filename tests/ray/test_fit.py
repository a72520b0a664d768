"""What is said of training on Ray; the training itself is tested in test_train."""

import pytest

from brats.cluster.placement import Placement
from brats.config import TrainConfig
from brats.data.batches import InputSpec, TrainingSet
from brats.data.epoch import EpochPlan, TrainingCase
from brats.errors import ConfigError
from brats.pipeline.fit import announce, check_batches, check_slices, show_epoch
from brats.pipeline.worker import TrainingTask

ROW = {
    "epoch": 2,
    "train_loss": 0.51,
    "val_loss": 0.62,
    "val_dice_wt": 0.801,
    "val_dice_tc": 0.7,
    "val_dice_et": 0.65,
    "slices_per_s": 24.4,
    "elapsed_s": 30.0,
}


def plan_of_slices(n: int) -> EpochPlan:
    """The plan of one case with tumour in all of its slices, 16 a step."""
    case = TrainingCase("a", (1,) * n)
    return EpochPlan(cases=(case,), seed=0, batch_size=16, tumour_free_ratio=0)


def test_line_of_an_epoch_has_loss_dice_speed_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    show_epoch(TrainConfig(out="run", epochs=5), ROW)
    assert capsys.readouterr().out == (
        "train    epoch 2/5  loss 0.510 val 0.620  Dice WT 0.801 TC 0.700 ET 0.650  24 slices/s  1:30 min left\n"
    )


def test_announcement_names_network_workers_and_work(capsys: pytest.CaptureFixture[str]) -> None:
    placement = Placement(workers=1, use_gpu=True, cpus=1, threads=0)
    data = TrainingSet(
        prepared="",
        plan=plan_of_slices(40),
        inputs=InputSpec(modalities=("t1",)),
        size=(32, 32),
        shapes=((40, 32, 32),),
    )
    config = TrainConfig(out="run", modalities=("t1",))
    announce(TrainingTask(config=config, data=data, val_paths=[]), placement, 3)
    said = capsys.readouterr().out
    assert "U-Net resnet34 on t1; 1 GPU worker; 30 epochs of 40 slices in 3 steps, resuming after epoch 3" in said


def test_batches_smaller_than_the_number_of_workers_are_refused() -> None:
    check_batches(plan_of_slices(2), 2)
    with pytest.raises(ConfigError, match="2 slices for 3 workers; raise --batch-size or lower --workers"):
        check_batches(plan_of_slices(2), 3)


def tiny_task(n: int, size: tuple[int, int], micro_batch_size: int = 8) -> TrainingTask:
    config = TrainConfig(out="run", encoder="tu-test_resnet", micro_batch_size=micro_batch_size)
    inputs = InputSpec(modalities=config.modalities)
    data = TrainingSet(prepared="prepared", plan=plan_of_slices(n), inputs=inputs, size=size, shapes=((n, *size),))
    return TrainingTask(config=config, data=data, val_paths=[])


def test_slices_too_small_for_the_network_are_refused_by_their_size() -> None:
    with pytest.raises(ConfigError) as caught:
        check_slices(tiny_task(3, (32, 32)), 2)
    said = str(caught.value)
    assert said.startswith(
        "prepared: its slices, padded to 32 x 32, are too small to train tu-test_resnet on 1 at a time (Expected "
        "more than 1 value per channel"
    )
    assert "; use images of more than 32 voxels along x or y, or give every worker two slices or more" in said


@pytest.mark.parametrize(
    ("n", "size", "micro_batch_size", "workers"),
    [(4, (32, 32), 8, 2), (3, (32, 32), 8, 1), (3, (64, 32), 8, 2), (3, (64, 64), 1, 2)],
)
def test_small_slices_that_the_network_takes_are_trained_on(
    n: int, size: tuple[int, int], micro_batch_size: int, workers: int
) -> None:
    check_slices(tiny_task(n, size, micro_batch_size), workers)
