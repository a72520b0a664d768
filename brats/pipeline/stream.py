"""Ray Data executes the epoch plan: one ordered, unsplit stream of batches per training worker.

Ray would split a dataset into equal shards by dropping rows, and shuffles anew when it is restarted. Here every
row is one optimiser step of one worker, and which slices it holds follows from the plan alone.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brats.cluster.datasets import NO_PROGRESS_TRAINING_S
from brats.cluster.placement import FEEDING_CPUS
from brats.cluster.ray_internals import throttle
from brats.config import TrainConfig
from brats.data.batches import WorkerBatch, read_share
from brats.data.epoch import PlannedBatch, TrainingCase, plan_epoch
from brats.data.slices import SliceBatch, padded_size

BLOCK_STEPS = 8  # optimiser steps whose slices one reading task brings
PREFETCH_STEPS = 4  # steps that wait ready in the worker
SLICE_DIVISOR = 32  # what a U-Net of five halvings needs; wider padding than another network needs does no harm


@dataclass(frozen=True)
class EpochPlan:
    """All that decides which slices come when. Hashable, so that a process keeps the epoch it is reading.

    cases: of the training split
    size:  (H, W) that every slice is padded to
    """

    prepared: str
    cases: tuple[TrainingCase, ...]
    modalities: tuple[str, ...]
    size: tuple[int, int]
    seed: int
    batch_size: int
    tumour_free_ratio: float

    def epoch(self, epoch: int) -> list[PlannedBatch]:
        return plan_epoch(
            self.cases,
            seed=self.seed,
            epoch=epoch,
            batch_size=self.batch_size,
            tumour_free_ratio=self.tumour_free_ratio,
        )


def plan_of(config: TrainConfig, prepared: str, split: Sequence[Mapping[str, Any]]) -> EpochPlan:
    """The plan of a run from the rows of its split table."""
    training = [row for row in split if row["split"] == "train"]
    return EpochPlan(
        prepared=prepared,
        cases=tuple(TrainingCase(row["case_id"], tuple(row["tumour_per_slice"])) for row in training),
        modalities=config.modalities,
        size=padded_size([(row["height"], row["width"]) for row in training], SLICE_DIVISOR),
        seed=config.seed,
        batch_size=config.batch_size,
        tumour_free_ratio=config.tumour_free_ratio,
    )


def stream_name(rank: int) -> str:
    return f"train_{rank}"


def rank_stream(
    plan: EpochPlan, config: TrainConfig, rank: int, world_size: int, *, steps: int, n_done: int
) -> Any:
    """The dataset of one worker: a row per optimiser step, from the epoch after the `n_done` done to the end."""
    import ray.data

    rows = [{"id": row} for row in range(n_done * steps, config.epochs * steps)]
    # Not ray.data.range: its reading tasks take a whole CPU each, which a small machine beside a worker has not.
    dataset = ray.data.from_items(rows, override_num_blocks=max(1, -(-len(rows) // BLOCK_STEPS))).map(
        read_step,
        fn_kwargs={
            "plan": plan,
            "steps": steps,
            "rank": rank,
            "world_size": world_size,
        },
        num_cpus=FEEDING_CPUS,
    )
    throttle(dataset)
    dataset.context.execution_no_progress_timeout_s = NO_PROGRESS_TRAINING_S
    return dataset


@functools.lru_cache(maxsize=2)
def _planned(plan: EpochPlan, epoch: int) -> list[PlannedBatch]:
    return plan.epoch(epoch)


def read_step(row: dict[str, Any], plan: EpochPlan, steps: int, rank: int, world_size: int) -> dict[str, Any]:
    """Ray step: read one worker's slices of one optimiser step. Arrays travel as plain bytes with their shape."""
    epoch, step = divmod(int(row["id"]), steps)
    planned = _planned(plan, epoch + 1)[step]
    batch = read_share(plan.prepared, planned, rank, world_size, plan.modalities, plan.size)
    return {
        "epoch": batch.epoch,
        "step": batch.step,
        "first": batch.first,
        "n_global": batch.n_global,
        "dtype": batch.slices.images.dtype.str,
        **{field.name: getattr(batch.slices, field.name).tobytes() for field in dataclasses.fields(batch.slices)},
    }


def worker_batches(dataset: Any, n_modalities: int, size: tuple[int, int]) -> Iterator[WorkerBatch]:
    """The batches of `read_step` as arrays, in the worker."""
    for table in dataset.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=PREFETCH_STEPS):
        row = {name: table[name][0] for name in table.column_names}

        def array(name: str, dtype: Any, *shape: int, row: dict[str, Any] = row) -> Any:
            # A copy: torch wants arrays that it may write to, and Ray's memory must be given back soon.
            return np.frombuffer(row[name].as_buffer(), dtype).reshape(-1, *shape).copy()

        yield WorkerBatch(
            epoch=row["epoch"].as_py(),
            step=row["step"].as_py(),
            first=row["first"].as_py(),
            n_global=row["n_global"].as_py(),
            slices=SliceBatch(
                images=array("images", row["dtype"].as_py(), n_modalities, *size),
                labels=array("labels", np.uint8, *size),
                offset=array("offset", np.float32, n_modalities),
                scale=array("scale", np.float32, n_modalities),
                background=array("background", np.float32, n_modalities),
            ),
        )
