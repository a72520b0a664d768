"""The project's training loop without Ray: plain torch.distributed, all slices of a run already in memory.

It is what Ray Data and Ray Train are held against: the same plan, batches, loop, threads and history. Recipes are
screened with it too, in one process.
"""

import functools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
import torch.distributed

from benchmarks.harness import BenchmarkError
from brats.cluster.connect import COMPUTE
from brats.config import TrainConfig
from brats.data.batches import TrainingSet, WorkerBatch
from brats.data.dataset import read_case_table, slices_path
from brats.data.run_split import SplitRow
from brats.model.checkpoint import load_checkpoint
from brats.model.distributed import Worker
from brats.model.feed import Feed, StreamFeed, choose_feed
from brats.model.history import HistoryRow
from brats.model.precision import choose_precision
from brats.model.schedule import Schedule
from brats.model.training import fit

History = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training run, as every one of its workers gets it.

    config: with a local `out`, which must be empty
    """

    config: TrainConfig
    data: TrainingSet
    val_paths: tuple[str, ...]
    device: str

    @classmethod
    def of(cls, config: TrainConfig, device: str = "cpu") -> "Job":
        """Of a configuration whose data is a prepared dataset; its validation split is validated on."""
        assert config.data is not None
        return cls.of_split(config, read_case_table(config.data), device)

    @classmethod
    def of_split(cls, config: TrainConfig, split: Sequence[SplitRow], device: str) -> "Job":
        """Of a configuration with a prepared dataset, trained and validated by the rows of another split."""
        assert config.data is not None
        val = tuple(slices_path(config.data, row["case_id"]) for row in split if row["split"] == "val")
        return cls(config=config, data=TrainingSet.of(config, config.data, split), val_paths=val, device=device)


def train_plainly(job: Job, workers: int) -> History:
    """Train with so many processes; return the history. The cores are dealt out evenly."""
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    # As the jobs set for their workers.
    with TemporaryDirectory() as meeting_point, patch.dict(os.environ, COMPUTE):
        spawn(
            [
                functools.partial(train_rank, rank, job, workers, threads, f"file://{meeting_point}/group")
                for rank in range(workers)
            ]
        )
    return read_history(job.config.out)


def train_here(job: Job) -> History:
    """Train in this process alone, on slices that stay on its device where they fit; goes on where it stopped."""
    device = worker_device(job.device, 0)
    precision = choose_precision(job.config.precision, device)
    worker = Worker(rank=0, world_size=1, device=device, precision=precision)
    before = load_checkpoint(job.config.out)
    feed = choose_feed(
        job.config,
        job.data,
        worker,
        n_neighbours=1,
        volumes=lambda: (job.data.read_volume(case.case_id) for case in job.data.plan.cases),
        batches=lambda: _batches(job, 0, 1, before.history if before else ()),
        say=lambda _message: None,
    )
    return _fit(job, worker, feed)


def _fit(job: Job, worker: Worker, feed: Feed) -> History:
    return fit(
        job.config,
        worker,
        data=job.data,
        feed=feed,
        val_paths=job.val_paths,
        run=job.config.out,
        on_epoch=lambda _history: None,
        on_progress=lambda _progress: None,
        ends_early=lambda: False,
    )


def spawn(runs: Sequence[Callable[[], None]]) -> None:
    """Run these at the same time, each in a new process. Raises BenchmarkError when one fails; it has said why."""
    processes = [multiprocessing.get_context("spawn").Process(target=run) for run in runs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise BenchmarkError("a process of the plain loop failed; see above")


def read_history(run: str) -> History:
    rows: History = pd.read_parquet(Path(run) / "history.parquet").to_dict("records")
    return rows


def train_rank(rank: int, job: Job, world_size: int, threads: int, meeting_point: str) -> None:
    """Train as one of so many ranks, each a process of its own, that meet at a file:// URL."""
    torch.set_num_threads(threads)
    if world_size > 1:
        backend = "nccl" if job.device == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, init_method=meeting_point, rank=rank, world_size=world_size)
    device = worker_device(job.device, rank)
    precision = choose_precision(job.config.precision, device)
    worker = Worker(rank=rank, world_size=world_size, device=device, precision=precision)
    _fit(job, worker, StreamFeed(iter(in_memory(job, rank, world_size)), job.config, job.data, worker))
    if world_size > 1:
        torch.distributed.destroy_process_group()


def worker_device(kind: str, rank: int) -> torch.device:
    """The device of a rank: of GPUs one with its number, which threads and process groups ask for."""
    return torch.device(kind, rank) if kind == "cuda" else torch.device(kind)


def in_memory(job: Job, rank: int = 0, world_size: int = 1) -> Sequence[WorkerBatch]:
    """Every batch of one worker's run, read beforehand."""
    return list(_batches(job, rank, world_size))


def _batches(job: Job, rank: int, world_size: int, history: Sequence[HistoryRow] = ()) -> Iterator[WorkerBatch]:
    n_steps = job.data.plan.steps_per_epoch
    for epoch in Schedule.of(job.config, n_steps, history).epochs(history, n_steps):
        for planned in job.data.plan.epoch(epoch):
            yield job.data.read_shard(planned, rank, world_size)
