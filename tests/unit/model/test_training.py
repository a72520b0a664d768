"""The training loop: schedule, figures, resume, early stopping, divergence. Two workers are in test_distributed."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from brats.config import Precision, TrainConfig
from brats.data.batches import SliceBatch, WorkerBatch
from brats.errors import BratsError, DivergedError
from brats.model import learner, training
from brats.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, saved_epochs
from brats.model.history import HISTORY, HistoryRow, read_history
from brats.model.training import check_finite, finished, fit, learning_rate
from tests.support.prepared import (
    ALONE,
    CONFIG,
    NO_SCALER,
    epochs,
    stream_feed,
    tiny_case,
    training_set,
    write_prepared,
)

pytestmark = pytest.mark.usefixtures("one_thread")

TIMES = ("elapsed_s", "train_s", "slices_per_s", "data_wait_s", "peak_memory_mb")


@dataclasses.dataclass(frozen=True)
class Data:
    prepared: str
    train: list[str]
    val: list[str]

    def batches(self, config: TrainConfig, first: int = 1) -> Iterator[WorkerBatch]:
        return epochs(self.prepared, self.train, config, first=first)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Three cases to train on and one to validate on: 30 slices, 4 steps an epoch."""
    prepared = str(tmp_path_factory.mktemp("prepared"))
    train = write_prepared(prepared, [tiny_case(f"train{seed}", seed=seed) for seed in range(3)])
    return Data(prepared, train, write_prepared(prepared, [tiny_case("val", seed=9)]))


def run_fit(
    data: Data,
    run: Path,
    config: TrainConfig = CONFIG,
    *,
    batches: Iterable[WorkerBatch] | None = None,
    precision: Precision = "fp32",
    on_epoch: Callable[[HistoryRow], bool] = lambda _: False,
) -> list[HistoryRow]:
    """Fit alone, from the batch after the last checkpoint."""
    done = max(saved_epochs(str(run)), default=0)
    return fit(
        config,
        dataclasses.replace(ALONE, precision=precision),
        data=training_set(data.prepared, data.train, config),
        feed=stream_feed(
            data.prepared, data.train, config, first=done + 1, batches=None if batches is None else iter(batches)
        ),
        val_paths=data.val,
        run=str(run),
        on_epoch=on_epoch,
    )


def weights_of(run: Path) -> dict[str, Tensor]:
    checkpoint = load_checkpoint(str(run))
    assert checkpoint is not None
    return checkpoint.weights


def without_times(history: list[HistoryRow]) -> list[HistoryRow]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in history]


def with_dropout(**options: Any) -> nn.Module:
    """A network in place of `build_unet` that draws random numbers while it trains."""
    return nn.Sequential(
        nn.Conv2d(options["n_channels"], 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Conv2d(8, 3, 1)
    )


# The schedule


def test_the_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    config = dataclasses.replace(CONFIG, learning_rate=2.0, warmup_steps=2)
    rates = [learning_rate(config, step, 6) for step in range(6)]
    half_of_45_degrees = 1 + math.sqrt(0.5)
    assert rates == pytest.approx([1, 2, 2, half_of_45_degrees, 1, 2 - half_of_45_degrees])


def test_without_warm_up_the_first_step_has_the_full_learning_rate() -> None:
    config = dataclasses.replace(CONFIG, learning_rate=2.0, warmup_steps=0)
    assert learning_rate(config, 0, 100) == 2.0


def test_the_last_step_has_next_to_no_learning_rate_but_some() -> None:
    config = dataclasses.replace(CONFIG, learning_rate=1.0, warmup_steps=50)
    assert 0 < learning_rate(config, 999, 1000) < 1e-5


def test_the_warm_up_takes_at_most_half_of_a_short_run() -> None:
    config = dataclasses.replace(CONFIG, learning_rate=1.0, warmup_steps=50)
    assert [learning_rate(config, step, 4) for step in range(4)] == pytest.approx([0.5, 1, 1, 0.5])


# Whole runs


def test_the_loss_falls_and_the_dice_rises(data: Data, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=8, learning_rate=1e-2)
    history = run_fit(data, tmp_path, config)
    assert [row["epoch"] for row in history] == list(range(1, 9))
    first, last = history[0], history[-1]
    assert last["train_loss"] < 0.6 * first["train_loss"]
    assert last["val_loss"] < 0.6 * first["val_loss"]
    assert last["val_dice_wt"] > 0.85 > first["val_dice_wt"]


def test_the_history_file_is_the_history(data: Data, tmp_path: Path) -> None:
    history = run_fit(data, tmp_path)
    assert [set(row) for row in history] == [set(HISTORY.schema.names)] * 2
    assert read_history(str(tmp_path)).to_dict("records") == history
    checkpoint = load_checkpoint(str(tmp_path))
    assert checkpoint is not None
    assert checkpoint.history == history


def test_the_history_file_is_never_behind_the_checkpoint(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed after its last checkpoint is finished, and nothing writes its history again."""

    def killed(run: str, checkpoint: Checkpoint) -> None:
        save_checkpoint(run, checkpoint)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "save_checkpoint", killed)
    config = dataclasses.replace(CONFIG, epochs=1)
    with pytest.raises(KeyboardInterrupt):
        run_fit(data, tmp_path, config)
    assert len(run_fit(data, tmp_path, config, batches=[])) == 1
    assert read_history(str(tmp_path))["epoch"].tolist() == [1]


def test_the_figures_of_an_epoch_are_what_happened(data: Data, tmp_path: Path) -> None:
    first, row = run_fit(data, tmp_path)
    assert row["n_slices"] == 30
    assert first["learning_rate"] == learning_rate(CONFIG, 3, 8)
    assert row["learning_rate"] == learning_rate(CONFIG, 7, 8)
    assert row["val_dice"] == pytest.approx(
        (row["val_dice_wt"] + row["val_dice_tc"] + row["val_dice_et"]) / 3, rel=1e-12
    )
    assert row["slices_per_s"] == pytest.approx(30 / row["train_s"])
    assert row["elapsed_s"] >= row["train_s"] >= row["data_wait_s"] > 0
    assert row["peak_memory_mb"] > 50


def test_everyone_is_told_of_each_epoch_after_its_checkpoint_is_written(data: Data, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def tell(row: dict[str, Any]) -> bool:
        told.append((row["epoch"], saved_epochs(str(tmp_path))[-1]))
        return False

    run_fit(data, tmp_path, on_epoch=tell)
    assert told == [(1, 1), (2, 2)]


def test_training_ends_after_an_epoch_at_which_it_is_told_to_stop(data: Data, tmp_path: Path) -> None:
    history = run_fit(data, tmp_path, on_epoch=lambda row: bool(row["epoch"] == 1))
    assert [row["epoch"] for row in history] == saved_epochs(str(tmp_path)) == [1]


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(data: Data, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=1)
    for run, seed in (("a", 0), ("b", 0), ("c", 1)):
        run_fit(data, tmp_path / run, dataclasses.replace(config, seed=seed))
    a, b, c = (weights_of(tmp_path / run) for run in "abc")
    assert all(torch.equal(tensor, b[name]) for name, tensor in a.items())
    assert any(not torch.equal(tensor, c[name]) for name, tensor in a.items())


# Resume


@pytest.mark.parametrize("network", ["unet", "with dropout"])
def test_a_run_interrupted_in_an_epoch_ends_at_the_weights_of_an_uninterrupted_one(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    if network == "with dropout":
        monkeypatch.setattr(learner, "build_unet", with_dropout)
    config = dataclasses.replace(CONFIG, epochs=3)
    whole = run_fit(data, tmp_path / "whole", config)
    with pytest.raises(BratsError, match="the batches end before step 2 of epoch 2"):
        run_fit(data, tmp_path / "parts", config, batches=itertools.islice(data.batches(config), 4 + 2))
    assert saved_epochs(str(tmp_path / "parts")) == [1]
    parts = run_fit(data, tmp_path / "parts", config)
    expected = weights_of(tmp_path / "whole")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(tmp_path / "parts").items())
    assert without_times(parts) == without_times(whole)
    assert len(read_history(str(tmp_path / "parts"))) == 3


def test_the_optimiser_and_the_kept_best_epoch_survive_a_resume(data: Data, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=2)
    run_fit(data, tmp_path / "whole", config)
    with pytest.raises(BratsError):
        run_fit(data, tmp_path / "parts", config, batches=itertools.islice(data.batches(config), 4))
    run_fit(data, tmp_path / "parts", config)
    whole, parts = load_checkpoint(str(tmp_path / "whole")), load_checkpoint(str(tmp_path / "parts"))
    assert whole is not None
    assert parts is not None
    torch.testing.assert_close(parts.optimiser, whole.optimiser, rtol=0, atol=0)
    assert saved_epochs(str(tmp_path / "parts")) == saved_epochs(str(tmp_path / "whole"))


def test_a_finished_run_takes_no_further_batch(data: Data, tmp_path: Path) -> None:
    history = run_fit(data, tmp_path)
    assert run_fit(data, tmp_path, batches=[]) == history


def test_raising_the_epochs_of_a_finished_run_continues_it(data: Data, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=1)
    first = run_fit(data, tmp_path, config)
    longer = run_fit(data, tmp_path, dataclasses.replace(config, epochs=3))
    assert longer[:1] == first
    assert [row["epoch"] for row in longer] == [1, 2, 3]
    assert read_history(str(tmp_path))["epoch"].tolist() == [1, 2, 3]


def test_a_resumed_run_needs_no_pretrained_weights(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []

    def build(**options: Any) -> nn.Module:
        asked.append(options["encoder_weights"])
        return with_dropout(**options)

    monkeypatch.setattr(learner, "build_unet", build)
    config = dataclasses.replace(CONFIG, epochs=1, encoder_weights="imagenet")
    run_fit(data, tmp_path, config)
    run_fit(data, tmp_path, dataclasses.replace(config, epochs=2))
    assert asked == ["imagenet", None]


@pytest.mark.parametrize(("first", "then"), [("fp32", "fp16"), ("fp16", "fp32"), ("bf16", "fp16")])
def test_a_run_resumes_in_another_precision(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Precision, then: Precision
) -> None:
    monkeypatch.setattr(learner, "build_unet", with_dropout)
    run_fit(data, tmp_path, dataclasses.replace(CONFIG, epochs=1), precision=first)
    history = run_fit(data, tmp_path, precision=then)
    assert len(history) == 2
    assert math.isfinite(history[-1]["train_loss"])


def test_the_scale_of_fp16_survives_a_resume(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "build_unet", with_dropout)
    for n_epochs in (1, 2):
        run_fit(data, tmp_path, dataclasses.replace(CONFIG, epochs=n_epochs), precision="fp16")
    checkpoint = load_checkpoint(str(tmp_path))
    assert checkpoint is not None
    assert checkpoint.scaler["scale"] == 65536
    assert checkpoint.scaler["_growth_tracker"] == 8  # the good steps of both epochs


# The end


def rows(*dice: float) -> list[HistoryRow]:
    return [{"epoch": epoch, "val_dice": value} for epoch, value in enumerate(dice, start=1)]


@pytest.mark.parametrize(
    ("dice", "done"),
    [
        ([], False),
        ([0.5], False),
        ([0.5, 0.4], False),
        ([0.5, 0.4, 0.5], True),  # two epochs without a better one
        ([0.5, 0.4, 0.6], False),
        ([0.5, 0.6, 0.7, 0.8], False),
        ([0.1, 0.2, 0.3, 0.4, 0.5], True),  # all epochs
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], True),  # fewer epochs than there are asked for
    ],
)
def test_training_ends_after_its_epochs_or_when_patience_does(dice: list[float], done: bool) -> None:
    assert finished(rows(*dice), dataclasses.replace(CONFIG, epochs=5, patience=2)) == done


def scripted_validation(monkeypatch: pytest.MonkeyPatch, *dice: float) -> None:
    """Let the validation of epoch 1, 2, ... find these mean Dice."""
    values = iter(dice)

    def validate(*_: object) -> dict[str, float]:
        value = next(values)
        return {"val_loss": 1.0, "val_dice": value, **dict.fromkeys(("val_dice_wt", "val_dice_tc"), value)} | {
            "val_dice_et": value
        }

    monkeypatch.setattr(training, "validate", validate)
    monkeypatch.setattr(learner, "build_unet", with_dropout)


def test_early_stopping_keeps_the_best_epoch_and_stays_stopped(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_validation(monkeypatch, 0.4, 0.5, 0.3, 0.5, 0.9)
    config = dataclasses.replace(CONFIG, epochs=9, patience=2)
    stopped = run_fit(data, tmp_path, config)
    assert [row["val_dice"] for row in stopped] == [0.4, 0.5, 0.3, 0.5]
    assert saved_epochs(str(tmp_path)) == [2, 4]
    assert run_fit(data, tmp_path, config, batches=[]) == stopped


def test_patience_counts_the_epochs_before_a_resume(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_validation(monkeypatch, 0.5, 0.4, 0.3, 0.2)
    config = dataclasses.replace(CONFIG, epochs=9, patience=2)
    with pytest.raises(BratsError, match="the batches end"):
        run_fit(data, tmp_path, config, batches=itertools.islice(data.batches(config), 2 * 4))
    assert len(run_fit(data, tmp_path, config)) == 3


# What must not happen


def poisoned(batch: WorkerBatch) -> WorkerBatch:
    """With an infinite intensity."""
    offset = np.full_like(batch.slices.offset, np.inf)
    return dataclasses.replace(batch, slices=dataclasses.replace(batch.slices, offset=offset))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_epoch_before(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    monkeypatch.setattr(learner, "build_unet", with_dropout)
    batches = list(data.batches(CONFIG))
    batches[5] = poisoned(batches[5])
    message = r"^epoch 2, step 3: the loss is no longer finite \(3 of the last 4 gradients are not\).*learning-rate"
    with pytest.raises(DivergedError, match=message):
        run_fit(data, tmp_path, batches=batches, precision=precision)
    assert saved_epochs(str(tmp_path)) == [1]
    assert all(torch.isfinite(tensor).all() for tensor in weights_of(tmp_path).values())
    assert read_history(str(tmp_path))["epoch"].tolist() == [1]


def test_a_loss_that_is_not_finite_stops_fp16_too_which_only_skips_its_step(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "build_unet", with_dropout)
    batches = list(data.batches(CONFIG))
    batches[5] = poisoned(batches[5])
    with pytest.raises(DivergedError, match=r"^epoch 2: the mean loss is nan; .*--precision fp32"):
        run_fit(data, tmp_path, batches=batches, precision="fp16")
    assert saved_epochs(str(tmp_path)) == [1]


def norms(*values: float) -> list[Tensor]:
    return [torch.tensor(value) for value in values]


def scaler(scale: float) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=scale)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_gradient_that_is_not_finite_is_one_too_many(bad: float) -> None:
    check_finite(norms(1, 1e30, 0), NO_SCALER, 1, 2)
    with pytest.raises(DivergedError, match="1 of the last 3 gradients"):
        check_finite(norms(1, bad, 0), NO_SCALER, 1, 2)


def test_fp16_overflows_are_borne_until_no_scale_is_left() -> None:
    check_finite(norms(1, math.inf), scaler(65536), 1, 2)
    check_finite(norms(1, math.inf), scaler(1), 1, 2)
    check_finite(norms(1, 2), scaler(0.5), 1, 2)
    with pytest.raises(DivergedError, match="1 of the last 2 gradients"):
        check_finite(norms(1, math.inf), scaler(0.5), 1, 2)


def test_an_epoch_with_other_than_the_planned_slices_is_an_error(data: Data, tmp_path: Path) -> None:
    first, *others = data.batches(CONFIG)
    columns = {field.name: getattr(first.slices, field.name)[:-1] for field in dataclasses.fields(SliceBatch)}
    shortened = dataclasses.replace(first, slices=SliceBatch(**columns), labels=first.labels[:-1])
    with pytest.raises(BratsError, match="epoch 1: 29 slices came of 30 planned"):
        run_fit(data, tmp_path, batches=[shortened, *others])
    assert saved_epochs(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([1, 0, 2, 3], "batch 1 of epoch 1 came for 0 of 1"),
        ([0, 1, 1, 2], "batch 1 of epoch 1 came for 2 of 1"),
        ([4, 5, 6, 7], "batch 0 of epoch 2 came for 0 of 1"),
        ([0, 1, 2], "the batches end before step 3 of epoch 1"),
    ],
)
def test_batches_in_another_order_are_an_error(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: list[int], message: str
) -> None:
    monkeypatch.setattr(learner, "build_unet", with_dropout)
    batches = list(data.batches(CONFIG))
    with pytest.raises(BratsError, match=message):
        run_fit(data, tmp_path, batches=[batches[index] for index in order])
