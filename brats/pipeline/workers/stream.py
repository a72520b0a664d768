"""Ray Data brings the training slices: as whole cases, once, or batch by batch, in a stream for each worker.

The stream executes the epoch plan, in order and unsplit. Ray would split a dataset into equal shards by dropping
rows, and shuffles anew when it is restarted. Here every row is one optimiser step of one worker, and which slices
it holds follows from the plan alone.
"""

import functools
from collections.abc import Iterator
from typing import Any

from brats.cluster.datasets import NO_PROGRESS_TRAINING_S
from brats.cluster.placement import FEEDING_CPUS
from brats.cluster.ray_internals import throttle
from brats.data.batches import TrainingSet, WorkerBatch
from brats.data.epoch import EpochPlan, PlannedBatch
from brats.data.pool import TrainingVolume

BLOCK_STEPS = 8  # optimiser steps whose slices one reading task brings
MOST_BLOCKS = 4000  # of a dataset: of each, Ray keeps account from the start
PREFETCH_STEPS = 4  # steps that wait ready in the worker


def stream_name(rank: int) -> str:
    return f"train_{rank}"


def volumes_name(rank: int) -> str:
    return f"volumes_{rank}"


def volume_stream(data: TrainingSet) -> Any:
    """The dataset of all training cases: a row per case, in no order. Nothing is read before it is asked for."""
    import ray.data

    rows = [{"case_id": case.case_id} for case in data.plan.cases]
    dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS)).map(
        read_volume, fn_kwargs={"data": data}, num_cpus=FEEDING_CPUS
    )
    throttle(dataset)
    dataset.context.execution_no_progress_timeout_s = NO_PROGRESS_TRAINING_S
    return dataset


def read_volume(row: dict[str, Any], data: TrainingSet) -> dict[str, Any]:
    """Ray step: read a whole training case."""
    return data.read_volume(row["case_id"]).to_row()


def worker_volumes(dataset: Any) -> Iterator[TrainingVolume]:
    """The cases of `volume_stream` in the worker."""
    for table in dataset.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=1):
        yield TrainingVolume.from_row({name: table[name][0] for name in table.column_names})


def rank_stream(data: TrainingSet, rank: int, world_size: int, *, epochs: range) -> Any:
    """The dataset of one rank: a row per optimiser step of these epochs, in order."""
    import ray.data

    rows = [{"epoch": epoch, "step": step} for epoch in epochs for step in range(data.plan.steps_per_epoch)]
    # Not ray.data.range: its tasks take a whole CPU each, which a small machine cannot spare beside a worker.
    n_blocks = min(-(-len(rows) // BLOCK_STEPS), MOST_BLOCKS)
    dataset = ray.data.from_items(rows, override_num_blocks=max(1, n_blocks)).map(
        read_step, fn_kwargs={"data": data, "rank": rank, "world_size": world_size}, num_cpus=FEEDING_CPUS
    )
    throttle(dataset)
    dataset.context.execution_no_progress_timeout_s = NO_PROGRESS_TRAINING_S
    return dataset


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
