"""What training on Ray refuses; the training itself is tested in test_train."""

import dataclasses
from pathlib import Path

import pytest
import torch

from brats.config import TrainConfig
from brats.data.batches import InputSpec, TrainingSet
from brats.data.epoch import EpochPlan, TrainingCase
from brats.errors import ConfigError
from brats.model.hardware import describe_worker, hardware_path, read_hardware
from brats.pipeline.workers import fit
from brats.pipeline.workers.fit import Follower, check_batches, check_slices
from brats.pipeline.workers.worker import TrainingTask


def plan_of_slices(n: int) -> EpochPlan:
    """The plan of one case with tumour in all of its slices, 16 a step."""
    case = TrainingCase("a", (1,) * n)
    return EpochPlan(cases=(case,), seed=0, batch_size=16, tumour_free_ratio=0)


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


def test_slices_of_more_pixels_than_the_noise_that_augments_them_are_refused() -> None:
    with pytest.raises(ConfigError, match="padded to 2048 x 1024, have more than the 1,048,576 pixels"):
        check_slices(tiny_task(4, (2048, 1024)), 1)


def task_in(run: Path) -> TrainingTask:
    task = tiny_task(4, (64, 64))
    return dataclasses.replace(task, config=dataclasses.replace(task.config, out=str(run)))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is shown of the news of workers."""
    news_shown: list[object] = []
    monkeypatch.setattr(fit, "show", lambda _, news: news_shown.append(news))
    return news_shown


def test_a_history_is_shown_and_logged_and_other_news_are_shown(tmp_path: Path, shown: list[object]) -> None:
    logged: list[object] = []
    follower = Follower(task_in(tmp_path), first_epoch=1, log=logged.append)
    history = [{"epoch": 1, "train_loss": 0.5}]
    for news in ("a message", history):
        follower.follow(news)
    assert shown == ["a message", history]
    assert logged == [history]
    assert not Path(hardware_path(str(tmp_path))).exists()


def test_the_hardware_of_a_start_is_recorded_once_it_has_trained_an_epoch(
    tmp_path: Path, shown: list[object]
) -> None:
    follower = Follower(task_in(tmp_path), first_epoch=3, log=lambda _: None)
    for machine in "ab":
        follower.follow(describe_worker(machine, torch.device("cpu")))
    assert read_hardware(str(tmp_path)) == []
    follower.follow([{"epoch": 3}])
    (start,) = read_hardware(str(tmp_path))
    assert (start.first_epoch, len(start.workers)) == (3, 2)
    assert shown == [[{"epoch": 3}]]


@pytest.mark.usefixtures("shown")
def test_hardware_that_cannot_be_recorded_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(hardware_path(str(tmp_path))).write_text("{}")
    follower = Follower(task_in(tmp_path), first_epoch=1, log=lambda _: None)
    follower.follow(describe_worker("a", torch.device("cpu")))
    follower.follow([{"epoch": 1}])
    follower.follow([{"epoch": 1}, {"epoch": 2}])
    said = capsys.readouterr().out
    assert said.startswith("train    WARNING: ")
    assert said.count("\n") == 1
