"""The training loop: figures, resume, early stopping, divergence. Its bounds and its clock are in
test_training_bounds, two workers in test_distributed."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from brats.config import Precision
from brats.data.batches import WorkerBatch
from brats.errors import BratsError, DivergedError
from brats.labels import REGIONS
from brats.model import learner, training
from brats.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, saved_epochs
from brats.model.feed import StepInput, StreamFeed
from brats.model.history import HISTORY, HistoryRow, read_history, train_dice_column
from brats.model.schedule import step_rate
from brats.model.training import check_finite
from tests.support.prepared import CONFIG, NO_SCALER
from tests.support.runs import Data, average_of, run_fit, weights_of, without_times, write_data

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return write_data(tmp_path_factory.mktemp("prepared"))


def with_dropout(**options: Any) -> nn.Module:
    """A network in place of `build_unet` that draws random numbers while it trains."""
    return nn.Sequential(
        nn.Conv2d(options["n_channels"], 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Conv2d(8, 3, 1)
    )


# Whole runs


def test_the_loss_falls_and_the_dice_rises(data: Data, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=8, learning_rate=1e-2)
    history = run_fit(data, tmp_path, config)
    assert [row["epoch"] for row in history] == list(range(1, 9))
    first, last = history[0], history[-1]
    assert last["train_loss"] < 0.6 * first["train_loss"]
    assert last["val_loss"] < 0.6 * first["val_loss"]
    assert last["val_dice_wt"] > 0.85 > first["val_dice_wt"]


@pytest.mark.parametrize(
    ("changes", "null"),
    [
        ({"outputs": "whole-tumour", "loss": "dice"}, {"tc", "et"}),
        ({"outputs": "classes", "loss": "cross-entropy", "optimiser": "adam", "weight_decay": 0.0}, set()),
    ],
)
def test_other_outputs_are_trained_and_the_dice_of_regions_they_lack_is_null(
    data: Data, tmp_path: Path, changes: dict[str, Any], null: set[str]
) -> None:
    config = dataclasses.replace(CONFIG, epochs=8, learning_rate=1e-2, **changes)
    history = run_fit(data, tmp_path, config)
    assert history[-1]["val_loss"] < 0.6 * history[0]["val_loss"]
    assert history[-1]["val_dice_wt"] > 0.85
    for row in read_history(str(tmp_path)).to_dict("records"):
        missing = {name for name, value in row.items() if math.isnan(value)}
        assert missing == {f"{kind}_dice_{region}" for kind in ("train", "val") for region in null}
        scored = [f"val_dice_{region.lower()}" for region in REGIONS if region.lower() not in null]
        assert row["val_dice"] == pytest.approx(sum(row[name] for name in scored) / len(scored))


def test_a_run_with_dropout_resumes_as_if_it_had_never_stopped(data: Data, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, dropout=0.5, optimiser="adam")
    straight = run_fit(data, tmp_path / "straight", config)
    assert len(run_fit(data, tmp_path / "resumed", config, ends_early=lambda: True)) == 1
    resumed = run_fit(data, tmp_path / "resumed", config)
    assert without_times(resumed) == without_times(straight)
    expected = weights_of(tmp_path / "straight")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(tmp_path / "resumed").items())


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
    assert row["n_steps"] == 4
    assert first["learning_rate"] == CONFIG.learning_rate * step_rate(3, 8, CONFIG.warmup_steps)
    assert row["learning_rate"] == CONFIG.learning_rate * step_rate(7, 8, CONFIG.warmup_steps)
    assert row["train_dice"] == pytest.approx(
        (row["train_dice_wt"] + row["train_dice_tc"] + row["train_dice_et"]) / 3, rel=1e-12
    )
    assert 0 < row["train_accuracy"] < 1
    assert 0 < row["val_accuracy"] < 1
    assert row["val_dice"] == pytest.approx(
        (row["val_dice_wt"] + row["val_dice_tc"] + row["val_dice_et"]) / 3, rel=1e-12
    )
    assert row["slices_per_s"] == pytest.approx(30 / row["train_s"])
    assert row["elapsed_s"] >= row["train_s"] >= row["data_wait_s"] > 0
    assert row["peak_memory_mb"] > 50


def test_the_figures_of_training_are_of_the_batches_as_the_network_saw_them(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that finds tumour everywhere is right where there is ET, and its Dice follows from the voxels of each."""
    monkeypatch.setattr(learner, "build_unet", lambda **_: Everywhere())
    config = dataclasses.replace(CONFIG, epochs=1, learning_rate=1e-12, weight_decay=0)
    (row,) = run_fit(data, tmp_path, config)
    labels = np.concatenate([batch.labels for batch in data.batches(config)])
    counts = np.array([np.isin(labels, region.labels).sum() for region in REGIONS.values()])
    dice = (2 * counts / (counts + labels.size)).tolist()
    assert [row[train_dice_column(region)] for region in REGIONS] == pytest.approx(dice, rel=1e-6)
    assert row["train_accuracy"] == counts[-1] / labels.size


class Everywhere(nn.Module):
    """Finds every region in every voxel."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        return self.bias.expand(len(images), 3, *images.shape[-2:])


def test_each_epoch_is_reported_when_its_checkpoint_is_written(data: Data, tmp_path: Path) -> None:
    reported: list[tuple[int, int, int]] = []

    def report(history: Sequence[HistoryRow]) -> None:
        written = read_history(str(tmp_path))["epoch"].tolist()
        reported.append((history[-1]["epoch"], saved_epochs(str(tmp_path))[-1], written[-1]))

    run_fit(data, tmp_path, on_epoch=report)
    assert reported == [(1, 1, 1), (2, 2, 2)]


def test_training_ends_after_an_epoch_at_which_it_is_to_with_its_checkpoint_written(
    data: Data, tmp_path: Path
) -> None:
    history = run_fit(data, tmp_path, ends_early=lambda: True, cadence=lambda _trained, _cost: False)
    assert [row["epoch"] for row in history] == saved_epochs(str(tmp_path)) == [1]
    assert history[0]["val_dice"] is not None


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
    averages = average_of(tmp_path / "whole")
    assert all(torch.equal(tensor, averages[name]) for name, tensor in average_of(tmp_path / "parts").items())
    assert any(not torch.equal(tensor, expected[name]) for name, tensor in averages.items())
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
    """It begins to count when the learning rate is down to a quarter, in the seventh epoch of nine."""
    dice = [0.4, 0.5, 0.3, 0.5, 0.1, 0.1, 0.1, 0.1]
    scripted_validation(monkeypatch, *dice, 0.9)
    config = dataclasses.replace(CONFIG, epochs=9, patience=2)
    stopped = run_fit(data, tmp_path, config)
    assert [row["val_dice"] for row in stopped] == dice
    assert saved_epochs(str(tmp_path)) == [2, 8]
    assert run_fit(data, tmp_path, config, batches=[]) == stopped


def test_patience_counts_the_epochs_before_a_resume(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_validation(monkeypatch, 0.5, *[0.4] * 8)
    config = dataclasses.replace(CONFIG, epochs=9, patience=2)
    with pytest.raises(BratsError, match="the batches end"):
        run_fit(data, tmp_path, config, batches=itertools.islice(data.batches(config), 7 * 4))
    assert len(run_fit(data, tmp_path, config)) == 8


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
    message = (
        r"^epoch 2, step [1-3]: the loss is no longer finite \(\d of the last \d gradients are not\).*learning-rate"
    )
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


def scaler(scale: float) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=scale)


def test_one_gradient_that_is_not_finite_is_one_too_many() -> None:
    check_finite(0, 3, NO_SCALER, 1, 2)
    with pytest.raises(DivergedError, match=r"epoch 1, step 2: .*\(1 of the last 3 gradients"):
        check_finite(1, 3, NO_SCALER, 1, 2)


def test_fp16_overflows_are_borne_until_no_scale_is_left() -> None:
    check_finite(1, 2, scaler(65536), 1, 2)
    check_finite(1, 2, scaler(1), 1, 2)
    check_finite(0, 2, scaler(0.5), 1, 2)
    with pytest.raises(DivergedError, match="1 of the last 2 gradients"):
        check_finite(1, 2, scaler(0.5), 1, 2)


def test_an_epoch_with_other_than_the_planned_slices_is_an_error(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = StreamFeed.epoch

    def shortened(feed: StreamFeed, number: int) -> Iterator[StepInput]:
        first, *others = whole(feed, number)
        yield dataclasses.replace(first, tensors={name: tensor[1:] for name, tensor in first.tensors.items()})
        yield from others

    monkeypatch.setattr(StreamFeed, "epoch", shortened)
    with pytest.raises(BratsError, match="epoch 1: 29 slices came of 30 planned"):
        run_fit(data, tmp_path)
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
