"""The training loop: schedule, gradients, resume, early stopping, divergence.

Two workers together are in test_distributed.py.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from brats.config import Precision, TrainConfig
from brats.data.batches import WorkerBatch
from brats.errors import BratsError, DivergedError
from brats.model import training
from brats.model.augment import draw_flips
from brats.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, saved_epochs
from brats.model.distributed import Worker
from brats.model.history import HISTORY, HistoryRow, read_history
from brats.model.losses import bce_dice_loss
from brats.model.training import (
    accumulate_gradients,
    check_finite,
    finished,
    fit,
    learning_rate,
    prepare_batch,
    train_epoch,
)
from tests.support.prepared import (
    CONFIG,
    MODALITIES,
    epochs,
    fit_arguments,
    plan,
    tiny_case,
    worker_batch,
    write_prepared,
)

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
ALONE = Worker(rank=0, world_size=1, device=CPU, precision="fp32")
NO_SCALER = torch.amp.GradScaler("cpu", enabled=False)
TIMES = ("elapsed_s", "train_s", "slices_per_s", "data_wait_s", "peak_memory_mb")


@dataclasses.dataclass(frozen=True)
class Data:
    prepared: str
    train: list[str]
    val: list[str]

    def batches(self, config: TrainConfig, first: int = 1) -> Iterator[WorkerBatch]:
        return epochs(self.prepared, self.train, config, first=first)

    def batch(self, config: TrainConfig = CONFIG) -> WorkerBatch:
        return next(self.batches(config))


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
) -> list[HistoryRow]:
    """Fit alone, from the batch after the last checkpoint."""
    done = max(saved_epochs(str(run)), default=0)
    return fit(
        config,
        dataclasses.replace(ALONE, precision=precision),
        batches=iter(data.batches(config, done + 1) if batches is None else batches),
        on_epoch=lambda _: False,
        **fit_arguments(data.train, data.val, config, str(run)),
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
        nn.Conv2d(options["n_modalities"], 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Conv2d(8, 3, 1)
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


# One step


def small_network() -> nn.Module:
    """With BatchNorm, and quick."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1))


def gradients(network: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


@pytest.mark.parametrize(("micro_batch_size", "sizes"), [(8, [8]), (7, [4, 4]), (3, [3, 3, 2]), (1, [1] * 8)])
def test_each_micro_batch_weighs_as_many_slices_as_it_has(
    data: Data, micro_batch_size: int, sizes: list[int]
) -> None:
    config, batch = dataclasses.replace(CONFIG, micro_batch_size=micro_batch_size), data.batch()
    expected, network = small_network(), small_network()
    images, targets = prepare_batch(batch, config.seed, CPU)
    loss_sum = 0.0
    for part, target in zip(images.split(sizes), targets.split(sizes), strict=True):
        loss = bce_dice_loss(expected(part), target)
        (loss * len(part) / 8).backward()
        loss_sum += loss.item() * len(part)
    found = accumulate_gradients(network, NO_SCALER, config, ALONE, batch)
    assert found.item() == pytest.approx(loss_sum, rel=1e-6)
    torch.testing.assert_close(gradients(network), gradients(expected), rtol=1e-5, atol=1e-7)


def test_the_shares_of_two_workers_are_augmented_as_that_of_one(data: Data) -> None:
    planned = plan(data.train, CONFIG, 1)[0]
    whole = prepare_batch(worker_batch(data.prepared, planned, 0, 1), CONFIG.seed, CPU)
    shares = [prepare_batch(worker_batch(data.prepared, planned, rank, 2), CONFIG.seed, CPU) for rank in (0, 1)]
    for one, two in zip(whole, zip(*shares, strict=True), strict=True):
        assert torch.equal(one, torch.cat(two))


def test_images_and_targets_of_a_batch_are_flipped_together(data: Data) -> None:
    """T1CE is brightest in ET and in WT flips or not: the two stay on top of each other."""
    batch = data.batch()
    flips = draw_flips(batch.n_global, seed=CONFIG.seed, epoch=batch.epoch, step=batch.step)
    assert flips.any(axis=0).all()
    images, targets = prepare_batch(batch, CONFIG.seed, CPU)
    et = targets[:, 2].bool()
    assert et.any()
    t1ce = images[:, MODALITIES.index("t1ce")]
    assert t1ce[et].min() > t1ce[~et].max() - 1
    plain = torch.from_numpy(batch.slices.labels == 3)
    assert not torch.equal(et, plain)
    assert torch.equal(et.sum((1, 2)), plain.sum((1, 2)))


def one_step(data: Data, config: TrainConfig) -> tuple[Tensor, dict[str, float]]:
    """The change of all weights by one step of plain gradient descent, as one vector, and the epoch's figures."""
    network = small_network()
    before = nn.utils.parameters_to_vector(network.parameters()).detach().clone()
    optimiser = torch.optim.SGD(network.parameters(), lr=123.0)
    figures = train_epoch(network, optimiser, NO_SCALER, config, ALONE, iter([data.batch()]), 1, 1)
    return nn.utils.parameters_to_vector(network.parameters()).detach() - before, figures


def test_a_long_gradient_is_scaled_down_to_the_clip_norm(data: Data) -> None:
    config = dataclasses.replace(CONFIG, epochs=1, clip_norm=1e-3, learning_rate=0.5)
    change, figures = one_step(data, config)
    assert figures["learning_rate"] == 0.5
    assert change.norm().item() == pytest.approx(0.5 * 1e-3, rel=1e-3)


def test_a_short_gradient_is_left_alone(data: Data) -> None:
    change, _ = one_step(data, dataclasses.replace(CONFIG, epochs=1, clip_norm=1e6, learning_rate=0.5))
    network = small_network()
    accumulate_gradients(network, NO_SCALER, CONFIG, ALONE, data.batch())
    expected = torch.cat([gradient.flatten() for gradient in gradients(network)])
    torch.testing.assert_close(change, -0.5 * expected, rtol=1e-4, atol=1e-7)


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

    fit(
        CONFIG,
        ALONE,
        batches=data.batches(CONFIG),
        on_epoch=tell,
        **fit_arguments(data.train, data.val, CONFIG, str(tmp_path)),
    )
    assert told == [(1, 1), (2, 2)]


def test_training_ends_after_an_epoch_at_which_it_is_told_to_stop(data: Data, tmp_path: Path) -> None:
    history = fit(
        CONFIG,
        ALONE,
        batches=data.batches(CONFIG),
        on_epoch=lambda row: bool(row["epoch"] == 1),
        **fit_arguments(data.train, data.val, CONFIG, str(tmp_path)),
    )
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
        monkeypatch.setattr(training, "build_unet", with_dropout)
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

    monkeypatch.setattr(training, "build_unet", build)
    config = dataclasses.replace(CONFIG, epochs=1, encoder_weights="imagenet")
    run_fit(data, tmp_path, config)
    run_fit(data, tmp_path, dataclasses.replace(config, epochs=2))
    assert asked == ["imagenet", None]


@pytest.mark.parametrize(("first", "then"), [("fp32", "fp16"), ("fp16", "fp32"), ("bf16", "fp16")])
def test_a_run_resumes_in_another_precision(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Precision, then: Precision
) -> None:
    monkeypatch.setattr(training, "build_unet", with_dropout)
    run_fit(data, tmp_path, dataclasses.replace(CONFIG, epochs=1), precision=first)
    history = run_fit(data, tmp_path, precision=then)
    assert len(history) == 2
    assert math.isfinite(history[-1]["train_loss"])


def test_the_scale_of_fp16_survives_a_resume(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "build_unet", with_dropout)
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
    monkeypatch.setattr(training, "build_unet", with_dropout)


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
    monkeypatch.setattr(training, "build_unet", with_dropout)
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
    monkeypatch.setattr(training, "build_unet", with_dropout)
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
    arguments = fit_arguments(data.train, data.val, CONFIG, str(tmp_path)) | {"slices_per_epoch": 31}
    with pytest.raises(BratsError, match="epoch 1: 30 slices came of 31 planned"):
        fit(CONFIG, ALONE, batches=data.batches(CONFIG), on_epoch=lambda _: False, **arguments)
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
    monkeypatch.setattr(training, "build_unet", with_dropout)
    batches = list(data.batches(CONFIG))
    with pytest.raises(BratsError, match=message):
        run_fit(data, tmp_path, batches=[batches[index] for index in order])
