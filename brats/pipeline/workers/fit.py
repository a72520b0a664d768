"""Fitting the network on a cluster: workers are placed, run, and started again after a lost one.

There is one worker per GPU, or one or two on CPUs, each of which is brought its own slices. A lost worker costs
what the epoch had done: all workers begin again after the last finished epoch, as many as there is room for. Ray's
own restarts are not used: they wait for the lost machine, and its elastic training throws away the epoch it is in
when a machine comes back.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from brats import storage
from brats.cluster.failures import judge
from brats.cluster.placement import Placement, place_workers
from brats.cluster.preflight import check_gpus, wait_for_lost_nodes
from brats.cluster.relay import relayed
from brats.config import TrainConfig
from brats.console import say
from brats.data.batches import DIVISOR, TrainingSet
from brats.data.dataset import slices_path
from brats.data.epoch import EpochPlan
from brats.data.run_split import SplitRow
from brats.errors import BratsError, ConfigError, StorageError, WorkersLostError
from brats.model.history import HistoryRow
from brats.pipeline.loggers.log import LogHistory, opened_loggers
from brats.pipeline.workers.lines import announce, show, show_done, show_patience
from brats.pipeline.workers.stream import rank_stream, stream_name, volume_stream, volumes_name
from brats.pipeline.workers.worker import TrainingTask, train_worker

AMPLE_PIXELS = (2 * DIVISOR) ** 2  # of a slice that any network takes: not tried out, which takes a while
REGROW_MINUTES = 1.0  # for the room of a machine that has joined to be given from the reservation to the workers


def fit_on_cluster(config: TrainConfig, prepared: str, split: Sequence[SplitRow]) -> list[HistoryRow]:
    """Train to the end; return the history. After a lost worker it goes on from the last checkpoint."""
    with opened_loggers(config) as log:
        return _fit(config, prepared, split, log)


def _fit(config: TrainConfig, prepared: str, split: Sequence[SplitRow], log: LogHistory) -> list[HistoryRow]:
    from brats.model.schedule import bounded, finished

    data = TrainingSet.of(config, prepared, split)
    config = bounded(config, data.plan.steps_per_epoch)
    history = read_progress(config.out)
    log(history)
    if finished(history, config):
        show_done(config, history)
        return history
    val_paths = [slices_path(prepared, row["case_id"]) for row in split if row["split"] == "val"]
    task = TrainingTask(config=config, data=data, val_paths=val_paths)
    n_failures = 0
    placement = place_workers(config.device, config.workers, cpu_workers=2, wait_minutes=config.wait_minutes)
    while True:
        check_batches(task.data.plan, placement.workers)
        check_slices(task, placement.workers)
        announce(task, placement, history)
        lost: WorkersLostError | None = None
        try:
            check_gpus(placement)
            run_workers(task, placement, history, log)
        except WorkersLostError as error:
            lost = error
        n_before, history = len(history), read_progress(config.out)
        log(history)
        if lost:
            n_failures = n_failures + 1 if len(history) == n_before else 1
            if n_failures > config.max_failures:
                raise BratsError(f"{lost}; the same command goes on after the last finished epoch") from lost
            say("train", f"{lost}; restart {n_failures} of at most {config.max_failures} in a row")
            wait_for_lost_nodes()
        if finished(history, config):
            show_patience(config, history)
            return history
        placement = place_workers(
            "cuda" if placement.use_gpu else "cpu",  # a run does not change what it computes on
            config.workers,
            cpu_workers=2,
            wait_minutes=config.wait_minutes if lost else REGROW_MINUTES,
            lost=placement if lost else None,
        )
        history = read_progress(config.out)  # a worker that was being lost may have written until now


def read_progress(run: str) -> list[dict[str, Any]]:
    """The epochs that are done: those of the last checkpoint."""
    from brats.model.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(run)
    return checkpoint.history if checkpoint else []


def run_workers(task: TrainingTask, placement: Placement, history: Sequence[HistoryRow], log: LogHistory) -> None:
    """Train with these workers to the end, or to that of an epoch at which missing ones can join.

    Raises WorkersLostError when another start may get further, else the reason why none would.
    """
    import ray
    from ray.train import TrainingFailedError

    try:
        follower = Follower(task, first_epoch=len(history) + 1, log=log)
        with relayed(follower.follow) as queue:
            trainer = make_trainer(task, placement, history, train_worker, {"queue": queue})
            in_thread(trainer.fit)
    except (TrainingFailedError, ray.exceptions.RayError) as error:
        raise judge(error) from error
    finally:
        with suppress(StorageError):  # an unreachable store is not what ended the training
            storage.remove(ray_folder(task.config))


class Follower:
    """Takes what the workers of a start report: shown, logged and, once an epoch is done, what they train on."""

    def __init__(self, task: TrainingTask, first_epoch: int, log: LogHistory) -> None:
        self._task, self._first_epoch, self._log = task, first_epoch, log
        self._workers: list[Any] = []  # their hardware

    def follow(self, news: Any) -> None:
        """Take a message, a history with a new epoch, progress within one, or the hardware of a worker."""
        from brats.model.hardware import WorkerHardware

        if isinstance(news, WorkerHardware):
            self._workers.append(news)
            return
        show(self._task, news)
        if isinstance(news, list):
            self._record()
            self._log(news)

    def _record(self) -> None:
        """Record the hardware, once: each worker has told of its own before the first epoch."""
        from brats.model.hardware import record_start

        workers, self._workers = self._workers, []
        if workers:
            try:
                record_start(self._task.config.out, self._first_epoch, workers)
            except StorageError as error:
                say("train", f"WARNING: {error}; training goes on")


def ray_folder(config: TrainConfig) -> str:
    """Where Ray Train wants a folder that all machines share; we keep nothing there."""
    from brats.model.checkpoint import checkpoints_dir

    return storage.join(checkpoints_dir(config.out), "ray")


def make_trainer(
    task: TrainingTask,
    placement: Placement,
    history: Sequence[HistoryRow],
    loop: Callable[[dict[str, Any]], Any],
    settings: Mapping[str, Any],
    *,
    backend: str | None = None,
) -> Any:
    """A TorchTrainer that runs `loop` in every worker, with the batches that are left after this history.

    loop, settings: other than those of `train_worker` in tests that look at where workers are placed
    backend:        of `torch.distributed`; None for NCCL on GPUs and gloo on CPUs. Tests name gloo for workers that
                    are placed on GPUs which Ray sees and torch does not, where NCCL would not start
    """
    import ray.data
    from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    epochs = task.epochs_after(history)
    return TorchTrainer(
        loop,
        train_loop_config={"task": task, "placement": placement, **settings},
        torch_config=TorchConfig(backend=backend),
        scaling_config=ScalingConfig(
            num_workers=placement.workers,
            use_gpu=placement.use_gpu,
            resources_per_worker=placement.bundle,
            placement_strategy="SPREAD",
            accelerator_type=placement.accelerator,
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=ray_folder(task.config).rsplit("/", 1)[0],
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
        ),
        # Of the two of each worker one is read: it knows its memory.
        datasets={
            name: dataset
            for rank in range(placement.workers)
            for name, dataset in (
                (stream_name(rank), rank_stream(task.data, rank, placement.workers, epochs=epochs)),
                (volumes_name(rank), volume_stream(task.data)),
            )
        },
        dataset_config=DataConfig(
            datasets_to_split=[], execution_options=ray.data.ExecutionOptions(preserve_order=True)
        ),
    )


def in_thread(work: Callable[[], Any]) -> Any:
    """Do this outside the main thread, where Ray Train would take Ctrl-C for itself and exit as if it were done."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result()


def check_batches(plan: EpochPlan, workers: int) -> None:
    """Raise ConfigError unless every batch has a slice for every worker."""
    if plan.smallest_batch < workers:
        raise ConfigError(
            f"a batch has {plan.smallest_batch} slices for {workers} workers; raise --batch-size or lower --workers"
        )


def check_slices(task: TrainingTask, workers: int) -> None:
    """Raise ConfigError unless the network can be trained on slices as small, and as few at once, as there are."""
    from brats.model.augment import N_NOISE
    from brats.model.unet import build_unet, training_problem

    config, data = task.config, task.data
    if math.prod(data.size) > N_NOISE:
        raise ConfigError(
            f"{data.prepared}: its slices, padded to {data.size[0]} x {data.size[1]}, have more than the "
            f"{N_NOISE:,} pixels that a slice may have; use images cropped or resampled to fewer"
        )
    if math.prod(data.size) >= AMPLE_PIXELS:
        return
    n_slices = data.plan.smallest_micro_batch(workers, config.micro_batch_size or config.batch_size)
    network = build_unet(
        encoder=config.encoder, n_channels=data.inputs.n_channels, decoder_channels=config.decoder_channels
    )
    if problem := training_problem(network, data.inputs.n_channels, n_slices, data.size):
        height, width = data.size
        raise ConfigError(
            f"{data.prepared}: its slices, padded to {height} x {width}, are too small to train {config.encoder} "
            f"on {n_slices} at a time ({problem}); use images of more than {DIVISOR} voxels along x or y, or give "
            "every worker two slices or more by --batch-size, --micro-batch-size and --workers"
        )
