"""The training loop and time: runs of steps and of minutes, spaced validation, checkpoints by a thread, progress.

The clock is one that moves by a fixed time per step and per validation.
"""

import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from brats.config import TrainConfig
from brats.data.batches import WorkerBatch
from brats.errors import BratsError, StorageError
from brats.model import learner, training
from brats.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, saved_epochs
from brats.model.engine import Engine
from brats.model.history import HistoryRow, read_history
from brats.model.schedule import EpochProgress, Moment, Schedule, finished
from brats.model.validation import validate
from tests.support.prepared import CONFIG
from tests.support.runs import Data, run_fit, weights_of, without_times, write_data

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return write_data(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(autouse=True)
def _small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(**options: Any) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(options["n_channels"], 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1)
        )

    monkeypatch.setattr(learner, "build_unet", build)


class Clock:
    """A clock that each step and each validation moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, step_s: float, validation_s: float) -> None:
        self.now = 1000.0
        self.validations = 0
        take_step = Engine.step

        def step(*arguments: Any) -> None:
            self.now += step_s
            take_step(*arguments)

        def validation(*arguments: Any) -> dict[str, float]:
            self.now += validation_s
            self.validations += 1
            return validate(*arguments)

        monkeypatch.setattr(Engine, "step", step)
        monkeypatch.setattr(training, "validate", validation)

    def __call__(self) -> float:
        return self.now


def bounded(**bound: Any) -> TrainConfig:
    return dataclasses.replace(CONFIG, **{"epochs": None, **bound})


def column(history: Sequence[HistoryRow], name: str) -> list[Any]:
    return [row[name] for row in history]


# Steps


def test_a_run_of_steps_ends_within_an_epoch_whose_row_has_what_was_trained(data: Data, tmp_path: Path) -> None:
    history = run_fit(data, tmp_path, bounded(steps=6))
    assert column(history, "n_steps") == [4, 2]
    assert column(history, "n_slices") == [30, sum(len(batch.labels) for batch in first(data, 2, epoch=2))]
    assert history[-1]["val_dice"] is not None
    assert saved_epochs(str(tmp_path))[-1] == 2
    assert run_fit(data, tmp_path, bounded(steps=6), batches=[]) == history


def first(data: Data, n_steps: int, *, epoch: int) -> list[WorkerBatch]:
    return list(itertools.islice(data.batches(CONFIG, epoch), n_steps))


def test_steps_within_the_first_epoch_make_a_whole_run(data: Data, tmp_path: Path) -> None:
    history = run_fit(data, tmp_path, bounded(steps=3))
    assert column(history, "n_steps") == [3]
    assert read_history(str(tmp_path))["epoch"].tolist() == saved_epochs(str(tmp_path)) == [1]


def test_as_many_steps_as_an_epoch_has_train_as_the_epochs(data: Data, tmp_path: Path) -> None:
    epochs = run_fit(data, tmp_path / "epochs", bounded(epochs=2))
    steps = run_fit(data, tmp_path / "steps", bounded(steps=8))
    assert without_times(steps) == without_times(epochs)
    expected = weights_of(tmp_path / "epochs")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(tmp_path / "steps").items())


def test_a_run_of_steps_that_was_interrupted_ends_at_the_weights_of_an_uninterrupted_one(
    data: Data, tmp_path: Path
) -> None:
    config = bounded(steps=10)
    whole = run_fit(data, tmp_path / "whole", config)
    with pytest.raises(BratsError, match="the batches end before step 2 of epoch 2"):
        run_fit(data, tmp_path / "parts", config, batches=itertools.islice(data.batches(config), 6))
    parts = run_fit(data, tmp_path / "parts", config)
    expected = weights_of(tmp_path / "whole")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(tmp_path / "parts").items())
    assert without_times(parts) == without_times(whole)


def test_more_steps_go_on_with_the_next_epoch(data: Data, tmp_path: Path) -> None:
    run_fit(data, tmp_path, bounded(steps=6))
    assert column(run_fit(data, tmp_path, bounded(steps=9)), "n_steps") == [4, 2, 3]
    assert column(run_fit(data, tmp_path, bounded(epochs=4)), "n_steps") == [4, 2, 3, 4]


# Minutes


def test_a_run_in_minutes_uses_all_of_them_and_leaves_time_for_the_last_validation(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, step_s=3, validation_s=6)
    config = bounded(minutes=70 / 60)
    history = run_fit(data, tmp_path, config, clock=clock)
    assert column(history, "n_steps") == [4, 4, 4, 3]
    assert column(history, "train_s") == pytest.approx([12, 12, 12, 9])
    assert column(history, "elapsed_s") == pytest.approx([18, 18, 18, 15])
    assert clock.validations == 4
    assert finished(history, config)
    assert run_fit(data, tmp_path, config, batches=[], clock=clock) == history


def test_in_minutes_the_learning_rate_follows_the_clock(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = bounded(minutes=1)
    history = run_fit(data, tmp_path, config, clock=Clock(monkeypatch, step_s=3, validation_s=6))
    starts = [9, 27, 45]  # of the last step of each epoch
    schedule = Schedule.of(config, 4, [])
    expected = [schedule.learning_rate(9, Moment(step=9, elapsed_s=start, step_s=3)) for start in starts]
    assert column(history, "learning_rate") == pytest.approx(expected)


def test_fewer_minutes_than_an_epoch_takes_train_a_part_of_it(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, step_s=3, validation_s=1)
    history = run_fit(data, tmp_path, bounded(minutes=0.1), clock=clock)
    assert column(history, "n_steps") == [2]
    assert history[0]["val_dice"] is not None


def test_a_budget_too_short_for_a_step_takes_one(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = run_fit(data, tmp_path, bounded(minutes=0.01), clock=Clock(monkeypatch, step_s=3, validation_s=1))
    assert column(history, "n_steps") == [1]


def test_a_resumed_run_in_minutes_uses_what_is_left(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, config = Clock(monkeypatch, step_s=3, validation_s=6), bounded(minutes=70 / 60)
    whole = run_fit(data, tmp_path / "whole", config, clock=clock)
    assert len(run_fit(data, tmp_path / "parts", config, clock=clock, ends_early=lambda: True)) == 1
    clock.now += 1e6  # between the two starts
    parts = run_fit(data, tmp_path / "parts", config, clock=clock)
    assert without_times(parts) == without_times(whole)
    assert column(parts, "elapsed_s") == pytest.approx(column(whole, "elapsed_s"))


def test_the_clock_starts_with_the_first_batch(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, config = Clock(monkeypatch, step_s=3, validation_s=6), bounded(minutes=0.5)

    def slow_start() -> Iterator[WorkerBatch]:
        clock.now += 1e6
        yield from data.batches(config)

    history = run_fit(data, tmp_path, config, batches=slow_start(), clock=clock)
    assert column(history, "elapsed_s") == pytest.approx([18, 12])


def test_more_minutes_go_on(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, step_s=3, validation_s=6)
    run_fit(data, tmp_path, bounded(minutes=0.5), clock=clock)
    history = run_fit(data, tmp_path, bounded(minutes=1), clock=clock)
    assert column(history, "n_steps") == [4, 2, 4, 2]
    assert sum(column(history, "elapsed_s")) == pytest.approx(60)


def test_a_start_ends_with_the_epochs_that_were_planned_for_it_and_the_next_goes_on(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where steps are so quick that there are more of them than one start plans."""
    monkeypatch.setattr("brats.model.schedule.FEED_STEPS", 8)
    clock, config = Clock(monkeypatch, step_s=1, validation_s=1), bounded(minutes=16.2 / 60)
    never: dict[str, Any] = {"clock": clock, "cadence": lambda trained, _: trained >= 100}
    history = run_fit(data, tmp_path, config, **never)
    assert column(history, "n_steps") == [4, 4]
    assert saved_epochs(str(tmp_path)) == [2]
    assert column(run_fit(data, tmp_path, config, **never), "n_steps") == [4, 4, 4, 2]


# Spaced validation


def spaced(history: Sequence[HistoryRow]) -> list[bool]:
    return [row["val_dice"] is not None for row in history]


def test_epochs_between_two_validations_have_rows_without_them_and_are_not_reported(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, step_s=1, validation_s=1)
    reported: list[int] = []
    history = run_fit(
        data,
        tmp_path,
        bounded(epochs=6),
        clock=clock,
        cadence=lambda trained, cost: trained >= 8 * cost,
        on_epoch=lambda rows: reported.append(len(rows)),
    )
    assert spaced(history) == [True, False, True, False, True, True]
    assert reported == [1, 3, 5, 6]
    assert clock.validations == 4
    assert read_history(str(tmp_path))["val_dice"].notna().tolist() == spaced(history)
    assert all(row["train_dice"] >= 0 for row in history)
    assert set(saved_epochs(str(tmp_path))) <= {1, 3, 5, 6}


def test_a_run_whose_epochs_were_not_all_saved_resumes_to_the_weights_of_an_uninterrupted_one(
    data: Data, tmp_path: Path
) -> None:
    def every_second(trained_s: float, _: float) -> bool:
        return trained_s >= 7.5

    config = bounded(epochs=4)
    runs: dict[str, Any] = {"cadence": every_second}
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch, step_s=1, validation_s=1)
        whole = run_fit(data, tmp_path / "whole", config, clock=clock, **runs)
        batches = itertools.islice(data.batches(config), 13)
        with pytest.raises(BratsError, match="the batches end before step 1 of epoch 4"):
            run_fit(data, tmp_path / "parts", config, batches=batches, clock=clock, **runs)
        assert saved_epochs(str(tmp_path / "parts")) == [2]
        parts = run_fit(data, tmp_path / "parts", config, clock=clock, **runs)
    assert spaced(whole) == [False, True, False, True]
    assert without_times(parts) == without_times(whole)
    expected = weights_of(tmp_path / "whole")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(tmp_path / "parts").items())


def test_a_budget_that_ends_between_two_validations_ends_with_one(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, step_s=1, validation_s=2)
    history = run_fit(
        data,
        tmp_path,
        bounded(minutes=25 / 60),
        clock=clock,
        cadence=lambda trained, cost: cost == 0 or trained > 99,
    )
    assert spaced(history) == [True, *[False] * 3, True]
    assert column(history, "n_steps") == [4, 4, 4, 4, 4]
    assert sum(column(history, "elapsed_s")) == pytest.approx(24)
    assert saved_epochs(str(tmp_path))[-1] == 5


# Checkpoints


def blocked(run: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Let no checkpoint be written before the second epoch is trained; return what to ask after each epoch."""
    trained, asked = threading.Event(), itertools.count(1)

    def write(folder: str, checkpoint: Checkpoint) -> None:
        trained.wait()
        save_checkpoint(folder, checkpoint)

    def ends_early() -> bool:
        if next(asked) == 2:
            assert saved_epochs(str(run)) == []
            trained.set()
        return False

    monkeypatch.setattr(training, "save_checkpoint", write)
    return ends_early


def test_a_checkpoint_written_while_the_next_epoch_trains_is_of_the_epoch_before(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_fit(data, tmp_path / "one", bounded(epochs=2), ends_early=lambda: True)
    kept: list[Checkpoint] = []

    def keep(history: Sequence[HistoryRow]) -> None:
        loaded = load_checkpoint(str(tmp_path / "two"), len(history))
        assert loaded is not None
        kept.append(loaded)

    ends_early = blocked(tmp_path / "two", monkeypatch)
    run_fit(data, tmp_path / "two", bounded(epochs=2), ends_early=ends_early, on_epoch=keep)
    expected = load_checkpoint(str(tmp_path / "one"))
    assert expected is not None
    torch.testing.assert_close(kept[0].weights, expected.weights, rtol=0, atol=0)
    torch.testing.assert_close(kept[0].optimiser, expected.optimiser, rtol=0, atol=0)
    assert [len(each.history) for each in kept] == [1, 2]


@pytest.mark.parametrize(("n_epochs", "n_trained"), [(1, 1), (3, 2)])
def test_a_checkpoint_that_cannot_be_written_ends_the_run(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_epochs: int, n_trained: int
) -> None:
    def full(_run: str, _checkpoint: Checkpoint) -> None:
        raise StorageError("the disk is full")

    trained: list[None] = []
    monkeypatch.setattr(training, "save_checkpoint", full)
    with pytest.raises(StorageError, match="the disk is full"):
        run_fit(
            data,
            tmp_path,
            bounded(epochs=n_epochs),
            ends_early=lambda: bool(trained.append(None)),  # type: ignore[func-returns-value]
        )
    assert len(trained) == n_trained


# Progress


def test_a_long_epoch_is_reported_every_twenty_seconds(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[EpochProgress] = []
    clock = Clock(monkeypatch, step_s=12, validation_s=9.6)
    history = run_fit(data, tmp_path, bounded(epochs=2), clock=clock, on_progress=reported.append)
    assert [(each.epoch, each.step, each.run_step) for each in reported] == [(1, 2, 2), (2, 2, 6)]
    assert column(history, "elapsed_s") == pytest.approx([57.6, 57.6])
    assert [each.elapsed_s for each in reported] == pytest.approx([24, 57.6 + 24])
    assert [each.left_s for each in reported] == pytest.approx([6 * 12, 2 * 12 * 57.6 / 48])
    slices = sum(len(batch.labels) for batch in first(data, 2, epoch=1))
    assert reported[0].slices_per_s == pytest.approx(slices / 24)


def test_a_short_epoch_is_reported_at_its_end_alone(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[EpochProgress] = []
    clock = Clock(monkeypatch, step_s=4.9, validation_s=100)
    run_fit(data, tmp_path, bounded(epochs=3), clock=clock, on_progress=reported.append)
    assert reported == []
