"""What is said of training on Ray; the training itself is tested in test_train."""

import pytest
from ray.exceptions import ActorDiedError
from ray.train import WorkerGroupError

from brats.cluster.placement import Placement
from brats.config import TrainConfig
from brats.data.batches import TrainingSet
from brats.errors import ConfigError
from brats.pipeline.fit import TrainingTask, announce, check_batches, show_epoch, worker_failure

CONFIG = TrainConfig(modalities=("t1",), batch_size=16)
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


def task_of(n_slices: int) -> TrainingTask:
    """A training on one case with tumour in as many slices, and in no others."""
    row = {"case_id": "a", "split": "train", "height": 40, "width": 36, "tumour_per_slice": [9] * n_slices}
    return TrainingTask(config=CONFIG, data=TrainingSet.of(CONFIG, "/prepared", [row]), val_paths=())


def test_line_of_an_epoch_has_loss_dice_speed_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    show_epoch(TrainConfig(epochs=5), ROW)
    assert capsys.readouterr().out == (
        "train    epoch 2/5  loss 0.510 val 0.620  Dice WT 0.801 TC 0.700 ET 0.650  24 slices/s  1:30 min left\n"
    )


def test_announcement_names_network_workers_and_work(capsys: pytest.CaptureFixture[str]) -> None:
    placement = Placement(workers=1, use_gpu=True, cpus=1, threads=0)
    announce(task_of(640), placement, 3)
    said = capsys.readouterr().out
    assert "U-Net resnet34 on t1; 1 GPU worker; 30 epochs of 640 slices in 40 steps, resuming after epoch 3" in said


def test_failed_worker_is_named_with_its_reason() -> None:
    said = worker_failure(WorkerGroupError("", {1: RuntimeError("later"), 0: OSError("disk gone")}))
    assert said == "training worker 0 failed: OSError: disk gone"


def test_worker_that_died_is_the_reason_not_those_that_waited_for_it() -> None:
    said = worker_failure(WorkerGroupError("", {0: RuntimeError("connection reset"), 1: ActorDiedError()}))
    assert said == "training worker 1 died, and its process or its machine with it"


def test_batches_smaller_than_the_number_of_workers_are_refused() -> None:
    plan = task_of(2).data.plan
    check_batches(plan, 2)
    with pytest.raises(ConfigError, match="2 slices for 3 workers; raise --batch-size or lower --workers"):
        check_batches(plan, 3)
