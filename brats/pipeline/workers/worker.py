"""One worker of Ray Train: from the slices it is brought to checkpoints and history."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from brats.cluster.placement import Placement, is_reserved, release, reserve
from brats.config import TrainConfig
from brats.data.batches import TrainingSet
from brats.model.history import HistoryRow
from brats.pipeline.workers.stream import stream_name, volumes_name, worker_batches, worker_volumes


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """What the workers do, whoever and however many they are."""

    config: TrainConfig
    data: TrainingSet
    val_paths: Sequence[str]

    def epochs_after(self, history: Sequence[HistoryRow]) -> range:
        """The epochs that one start may train after this history."""
        from brats.model.schedule import Schedule

        n_steps = self.data.plan.steps_per_epoch
        return Schedule.of(self.config, n_steps, history).epochs(history, n_steps)


class MissingGpus:
    """Reservations of the GPUs that a placement lacks, so that training can tell when one has come."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._groups: list[Any] = []

    def one_is_here(self) -> bool:
        """Whether a missing GPU has come. Reserved from the first call on: earlier it might be a worker's own."""
        if self._placement.use_gpu and not self._groups:
            self._groups.extend(reserve([self._placement.bundle]) for _ in range(self._placement.missing))
        return any(is_reserved(group) for group in self._groups)

    def release(self) -> None:
        for group in self._groups:
            release(group)


def train_worker(spec: dict[str, Any]) -> None:
    """The training loop that Ray Train runs in every worker.

    spec: task, placement, and the queue for messages, for the hardware that each trains on and, from rank 0, for
          the history after an epoch and for progress within one
    """
    import ray
    import ray.train
    import ray.train.torch
    import torch

    from brats.model.distributed import Worker, check_same_precision
    from brats.model.feed import choose_feed
    from brats.model.hardware import describe_worker
    from brats.model.precision import choose_precision
    from brats.model.training import fit

    task: TrainingTask = spec["task"]
    placement: Placement = spec["placement"]
    context = ray.train.get_context()
    if placement.threads:
        torch.set_num_threads(placement.threads)
    device = ray.train.torch.get_device()
    worker = Worker(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        device=device,
        precision=choose_precision(task.config.precision, device),
    )
    missing = MissingGpus(placement)
    tell = spec["queue"].put

    def tell_of_gpu(message: str) -> None:
        tell(f"worker {worker.rank}: {message}" if worker.world_size > 1 else message)

    tell(describe_worker(ray.get_runtime_context().get_node_id(), device))
    check_same_precision(worker)
    feed = choose_feed(
        task.config,
        task.data,
        worker,
        n_neighbours=context.get_local_world_size(),
        volumes=lambda: worker_volumes(ray.train.get_dataset_shard(volumes_name(worker.rank))),
        batches=lambda: worker_batches(ray.train.get_dataset_shard(stream_name(worker.rank))),
        say=tell if worker.rank == 0 else lambda _message: None,
    )

    try:
        fit(
            task.config,
            worker,
            data=task.data,
            feed=feed,
            val_paths=task.val_paths,
            run=task.config.out,
            on_epoch=tell,
            on_progress=tell,
            say=tell_of_gpu,
            ends_early=lambda: worker.rank == 0 and missing.one_is_here(),  # more workers can join
        )
    finally:
        missing.release()
