"""Whole runs of the training loop of one worker, on tiny cases, and what they leave."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from torch import Tensor

from brats.config import Precision, TrainConfig
from brats.data.batches import WorkerBatch
from brats.model.checkpoint import load_checkpoint, saved_epochs
from brats.model.history import HistoryRow
from brats.model.schedule import Cadence, EpochProgress
from brats.model.training import fit
from tests.support.prepared import ALONE, CONFIG, epochs, stream_feed, tiny_case, training_set, write_prepared


@dataclasses.dataclass(frozen=True)
class Data:
    """A prepared dataset: the paths of its cases."""

    prepared: str
    train: list[str]
    val: list[str]

    def batches(self, config: TrainConfig, first: int = 1) -> Iterator[WorkerBatch]:
        return epochs(self.prepared, self.train, config, first=first)


def write_data(folder: Path) -> Data:
    """Three cases to train on and one to validate on: 30 slices, 4 steps an epoch."""
    prepared = str(folder)
    train = write_prepared(prepared, [tiny_case(f"train{seed}", seed=seed) for seed in range(3)])
    return Data(prepared, train, write_prepared(prepared, [tiny_case("val", seed=9)]))


def run_fit(
    data: Data,
    run: Path,
    config: TrainConfig = CONFIG,
    *,
    batches: Iterable[WorkerBatch] | None = None,
    precision: Precision = "fp32",
    on_epoch: Callable[[Sequence[HistoryRow]], None] = lambda _: None,
    on_progress: Callable[[EpochProgress], None] = lambda _: None,
    ends_early: Callable[[], bool] = lambda: False,
    cadence: Cadence | None = None,
    clock: Callable[[], float] = time.monotonic,
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
        on_progress=on_progress,
        ends_early=ends_early,
        cadence=cadence,
        clock=clock,
    )


def weights_of(run: Path) -> dict[str, Tensor]:
    """The weights of the last checkpoint."""
    checkpoint = load_checkpoint(str(run))
    assert checkpoint is not None
    return checkpoint.weights


def average_of(run: Path) -> dict[str, Tensor]:
    """The averaged weights of the last checkpoint."""
    checkpoint = load_checkpoint(str(run))
    assert checkpoint is not None
    assert checkpoint.average is not None
    return checkpoint.average


TIMES = ("elapsed_s", "train_s", "slices_per_s", "data_wait_s", "peak_memory_mb")


def without_times(history: Sequence[HistoryRow]) -> list[HistoryRow]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in history]
