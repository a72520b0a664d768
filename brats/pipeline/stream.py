"""Ray Data executes the epoch plan: one ordered, unsplit stream of batches per training worker.

Ray would split a dataset into equal shards by dropping rows, and shuffles anew when it is restarted. Here every
row is one optimiser step of one worker, and which slices it holds follows from the plan alone.
"""

import functools
import time
from collections.abc import Iterator
from typing import Any

from brats.data.batches import TrainingSet, WorkerBatch
from brats.data.epoch import EpochPlan, PlannedBatch

BLOCK_STEPS = 8  # optimiser steps whose slices one reading task brings
PREFETCH_STEPS = 4  # steps that wait ready in the worker
NO_PROGRESS_S = 3600  # without a batch taken or made; while workers validate, none is
LOOP_PAUSE_S = 0.02


def stream_name(rank: int) -> str:
    return f"train_{rank}"


def rank_stream(data: TrainingSet, rank: int, world_size: int, *, epochs: range) -> Any:
    """The dataset of one rank: a row per optimiser step of these epochs, in order."""
    import ray.data

    rows = [{"epoch": epoch, "step": step} for epoch in epochs for step in range(data.plan.steps_per_epoch)]
    # Not ray.data.range: its tasks take a whole CPU each, which a small machine cannot spare beside a worker.
    dataset = ray.data.from_items(rows, override_num_blocks=max(1, -(-len(rows) // BLOCK_STEPS))).map(
        read_step, fn_kwargs={"data": data, "rank": rank, "world_size": world_size}, num_cpus=0.5
    )
    dataset.context.custom_execution_callback_classes = [Paced]
    dataset.context.execution_no_progress_timeout_s = NO_PROGRESS_S
    return dataset


class Paced:
    """Lets the loop that drives a dataset breathe: a callback as Ray Data's `ExecutionCallback` has it.

    The loop runs in the training process. While batches wait to be taken, which is most of the time, it would turn
    without a pause: on two cores that took half of the training speed (profiled with py-spy).
    """

    def before_execution_starts(self, executor: Any) -> None: ...

    def on_execution_step(self, executor: Any) -> None:  # noqa: ARG002
        time.sleep(LOOP_PAUSE_S)

    def after_execution_succeeds(self, executor: Any) -> None: ...

    def after_execution_fails(self, executor: Any, error: Exception) -> None: ...


@functools.lru_cache(maxsize=2)
def _planned(plan: EpochPlan, epoch: int) -> list[PlannedBatch]:
    return plan.epoch(epoch)


def read_step(row: dict[str, Any], data: TrainingSet, rank: int, world_size: int) -> dict[str, Any]:
    """Ray step: read one rank's slices of one optimiser step."""
    planned = _planned(data.plan, int(row["epoch"]))[int(row["step"])]
    return data.read_shard(planned, rank, world_size).to_row()


def worker_batches(dataset: Any) -> Iterator[WorkerBatch]:
    """The batches of `read_step` in the worker."""
    for table in dataset.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=PREFETCH_STEPS):
        yield WorkerBatch.from_row({name: table[name][0] for name in table.column_names})
