"""Claim 3: training slices per second through Ray Data and Ray Train, beside plain loops with all slices in memory.

Axes: `B` batch, `C` modality, `H W` slice axes.
"""

import dataclasses
import functools
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.command import run_benchmark
from benchmarks.harness import (
    LIMIT,
    BenchmarkError,
    Outcome,
    Row,
    Spread,
    compare,
    interleaved,
    peer_module,
    require,
    spreads,
)
from benchmarks.idle_ray import idle_ray
from benchmarks.plain import History, Job, in_memory, read_history, spawn, train_plainly
from benchmarks.sources import prepared, prepared_thin, run_job
from brats.config import BOUNDS, Augmentation, Preset, TrainConfig
from brats.data.stacks import SliceBatch
from brats.model.augment import augment, noise_table
from brats.model.augment_draw import draw
from brats.model.inputs import normalise
from brats.model.losses import bce_dice_loss, region_targets
from brats.model.precision import autocast, choose_precision
from brats.model.unet import build_unet
from brats.presets import PRESETS

OF_PLAIN = 0.95
MAX_WAIT, MAX_AUGMENTATION = 0.03, 0.10  # of the step time
ROUNDS = 2  # in which the sides take turns
SAME_LOSS = 0.02  # relative; bf16 sums in another order


@dataclass(frozen=True)
class Task:
    """What every side trains: a preset, for so many epochs, on a prepared dataset.

    The work is equal: all sides flip and nothing else, and none averages the weights. What augmentation takes in
    full is a row of its own.
    """

    data: Path
    preset: Preset
    epochs: int
    augmentation: Augmentation = "flips"

    @contextmanager
    def config(self) -> Iterator[TrainConfig]:
        """With an output folder that goes away."""
        with TemporaryDirectory() as out:
            yield TrainConfig(
                **{
                    **PRESETS[self.preset].settings,
                    **dict.fromkeys(BOUNDS),
                    "epochs": self.epochs,
                    "augmentation": self.augmentation,
                    "ema": 0.0,
                },
                preset=self.preset,
                data=str(self.data.resolve()),
                out=str(Path(out) / "run"),
            )


def through_ray(task: Task, workers: int) -> History:
    """`python jobs/train.py`, as users run it."""
    with task.config() as config:
        run_job(
            "train", "--data", str(config.data), "--out", config.out, "--preset", task.preset, "--no-predict",
            "--epochs", str(task.epochs), "--augmentation", task.augmentation, "--ema", "0",
            "--workers", str(workers), "--device", "cpu",
        )  # fmt: skip
        return read_history(config.out)


def plainly(task: Task, workers: int) -> History:
    with task.config() as config:
        return train_plainly(Job.of(config), workers)


def plainly_beside_ray(task: Task) -> History:
    """The plain loop while a Ray is up that does nothing: what the presence of Ray costs."""
    with idle_ray():
        return plainly(task, 1)


def with_monai(task: Task) -> History:
    """MONAI's CacheDataset and DataLoader around the same network, loss, optimiser and batch size, on all cores."""
    with task.config() as config, TemporaryDirectory() as folder:
        result = Path(folder) / "history.json"
        spawn([functools.partial(_monai_worker, Job.of(config), str(result))])
        history: History = json.loads(result.read_text())
    return history


def _monai_worker(job: Job, result: str) -> None:
    """At its best: every slice of the plan is cached, cropped, padded and normalised, as tensors in memory.

    What is left per item are the two random flips, and per batch the collation. DataLoader workers would take
    cores from the network and copy every batch once more, so there are none, as MONAI's guide to fast training has
    it for data that is cached whole (its ThreadDataLoader with no workers is this). `set_track_meta(False)`, which
    that guide recommends too, spares it the bookkeeping of MetaTensor.
    """
    data, transforms = peer_module("monai.data"), peer_module("monai.transforms")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    data.set_track_meta(False)
    config = job.config
    keys = ["image", "label"]
    transform = transforms.Compose(
        [
            transforms.EnsureTyped(keys, track_meta=False),
            transforms.RandFlipd(keys, prob=0.5, spatial_axis=0),
            transforms.RandFlipd(keys, prob=0.5, spatial_axis=1),
        ]
    )
    dataset = data.CacheDataset(_normalised_slices(job), transform, cache_rate=1.0, progress=False)
    loader = data.DataLoader(dataset, batch_size=config.batch_size, shuffle=True, num_workers=0)
    network, optimiser = _network(config)
    precision = choose_precision(config.precision, torch.device("cpu"))
    history = []
    assert config.epochs is not None
    for epoch in range(1, config.epochs + 1):
        network.train()
        n_slices, started = 0, time.monotonic()
        for batch in loader:
            images = batch["image"].contiguous(memory_format=torch.channels_last)
            targets = region_targets(batch["label"][:, 0])
            for rows in torch.arange(len(images)).split(config.micro_batch_size or len(images)):
                with autocast(precision, torch.device("cpu")):
                    logits = network(images[rows])
                (bce_dice_loss(logits, targets[rows]) * (len(rows) / len(images))).backward()
            nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            n_slices += len(images)
        history.append({"epoch": epoch, "slices_per_s": n_slices / (time.monotonic() - started)})
    Path(result).write_text(json.dumps(history))


def _network(config: TrainConfig) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(config.seed)
    network = build_unet(
        encoder=config.encoder, n_channels=len(config.modalities), decoder_channels=config.decoder_channels
    )
    return network, torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay or 0.0
    )


def _normalised_slices(job: Job) -> list[dict[str, Any]]:
    """The slices of the first epoch, each (C, H, W) float32 with its labels (1, H, W)."""
    items: list[dict[str, Any]] = []
    for batch in in_memory(dataclasses.replace(job, config=dataclasses.replace(job.config, epochs=1))):
        images = _normalised(batch.slices).contiguous()
        items += [
            {"image": image.clone(), "label": torch.from_numpy(label.copy())[None]}
            for image, label in zip(images, batch.labels, strict=True)
        ]
    return items


def _normalised(slices: SliceBatch) -> torch.Tensor:
    arrays = (slices.images, slices.offset, slices.scale, slices.background, slices.tolerance)
    return normalise(*(torch.from_numpy(array) for array in arrays))


def augmentation_s(task: Task, repetitions: int) -> Spread:
    """Seconds that augmentation takes of one step of a single worker."""
    with task.config() as config:
        batch = in_memory(Job.of(config))[0]
    images, labels = _normalised(batch.slices), torch.from_numpy(batch.labels)
    noise = noise_table(config.seed, images.device)
    rows = [("case", row) for row in range(len(images))]
    epochs = itertools.count(1)  # each time other draws

    def step() -> None:
        drawn = draw(
            rows, seed=config.seed, epoch=next(epochs), n_channels=images.shape[1], kind=config.augmentation
        )
        augment(images, labels, torch.from_numpy(drawn), noise, config.augmentation)

    return interleaved({"augment": step}, repetitions)["augment"]


def measure(quick: bool) -> Outcome:
    require("monai")
    task = Task(prepared_thin(), "demo", 2) if quick else Task(prepared(6), "brats", 3)
    sides: dict[str, Callable[[], History]] = {
        "Ray, 1 worker": lambda: through_ray(task, 1),
        "plain, 1 worker": lambda: plainly(task, 1),
        "plain beside an idle Ray": lambda: plainly_beside_ray(task),
        "MONAI": lambda: with_monai(task),
        "plain, 2 workers": lambda: plainly(task, 2),
        "Ray, 2 workers": lambda: through_ray(task, 2),
    }
    histories: dict[str, list[History]] = {name: [] for name in sides}
    for _ in range(1 if quick else ROUNDS):
        for name, train in sides.items():
            histories[name].append(train())
    for workers in ("1 worker", "2 workers"):
        check_same_training(workers, histories[f"Ray, {workers}"][0], histories[f"plain, {workers}"][0])
    rates = {name: Spread(_settled(found, "slices_per_s")) for name, found in histories.items()}
    rows = [
        compare(
            f"train, {workers}", rates[f"Ray, {workers}"], LIMIT + "plain torch.distributed, slices in memory",
            rates[f"plain, {workers}"], "slices/s", target=OF_PLAIN, more_is_better=True,
        )
        for workers in ("1 worker", "2 workers")
    ]  # fmt: skip
    rows += [
        compare(
            "train, 1 worker", rates["Ray, 1 worker"], LIMIT + "the same beside an idle Ray",
            rates["plain beside an idle Ray"], "slices/s", more_is_better=True,
        ),
        compare(
            "train, 1 worker", rates["Ray, 1 worker"], "MONAI CacheDataset + DataLoader", rates["MONAI"],
            "slices/s", target=1, more_is_better=True,
        ),
    ]  # fmt: skip
    rows += _shares(histories, task, rates["Ray, 1 worker"])
    return Outcome(rows=rows, details={"slices/s": spreads(rates, "slices/s")})


def check_same_training(workers: str, ours: History, plain: History) -> None:
    """The same slices in the same order give the same losses, but for the order of sums."""
    left, right = ([row["train_loss"] for row in history] for history in (ours, plain))
    difference = float(np.max(np.abs(np.array(left) / np.array(right) - 1)))
    if not difference <= SAME_LOSS:
        raise BenchmarkError(
            f"training with {workers}: the losses through Ray are {left}, those of the plain loop {right}; nothing "
            "is written"
        )


def _settled(histories: list[History], column: str) -> tuple[float, ...]:
    """A figure of every epoch but the first of each run, in which kernels are chosen and memory is taken."""
    return tuple(float(row[column]) for history in histories for row in history[1:])


def _shares(histories: dict[str, list[History]], task: Task, rate: Spread) -> list[Row]:
    """How much of the time goes to waiting for data and to augmentation."""
    rows = []
    for workers in ("1 worker", "2 workers"):
        found = histories[f"Ray, {workers}"]
        pairs = zip(_settled(found, "data_wait_s"), _settled(found, "train_s"), strict=True)
        share = Spread(tuple(waited / trained for waited, trained in pairs))
        rows.append(
            compare(f"waiting for data, {workers}", share, LIMIT + "the aim", MAX_WAIT, "of the time", target=1)
        )
    full = dataclasses.replace(task, augmentation="full")
    with full.config() as config:
        per_slice_s = augmentation_s(full, 15).median / config.batch_size
    share_augmented = per_slice_s * rate.median
    rows.append(
        compare("augmentation", share_augmented, LIMIT + "the aim", MAX_AUGMENTATION, "of the time", target=1)
    )
    return rows


if __name__ == "__main__":
    run_benchmark(measure)
