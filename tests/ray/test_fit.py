"""What training on Ray refuses; the training itself is tested in test_train."""

import dataclasses
from pathlib import Path

import pytest

from brats.config import TrainConfig
from brats.data.batches import InputSpec, TrainingSet
from brats.data.epoch import EpochPlan, TrainingCase
from brats.errors import ConfigError
from brats.pipeline.loggers.tensorboard import tensorboard_dir
from brats.pipeline.workers import fit
from brats.pipeline.workers.fit import check_batches, check_slices, follow
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


def test_a_history_is_shown_and_logged_and_other_news_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[object] = []
    monkeypatch.setattr(fit, "show", lambda _, news: shown.append(news))
    task = tiny_task(4, (64, 64))
    task = dataclasses.replace(task, config=dataclasses.replace(task.config, out=str(tmp_path)))
    history = [{"epoch": 1, "train_loss": 0.5}]
    for news in ("a message", history):
        follow(task, news)
    assert shown == ["a message", history]
    assert len(list(Path(tensorboard_dir(str(tmp_path))).iterdir())) == 1
