"""Ray Train fits the network: one worker per GPU, or a few on CPUs, each with its own stream of batches."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from brats import storage
from brats.config import TrainConfig
from brats.data.epoch import PlannedBatch
from brats.data.slices import slices_path
from brats.errors import BratsError, ConfigError
from brats.pipeline import cluster
from brats.pipeline.cluster import Placement
from brats.pipeline.console import duration, relayed, say
from brats.pipeline.stream import plan_of, rank_stream, stream_name, worker_batches


def fit_on_cluster(config: TrainConfig, prepared: str, split: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Run Ray Train until the last epoch; return the history. A lost worker restarts from the last checkpoint."""
    import ray.data
    from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError
    from ray.train.torch import TorchTrainer

    from brats.model.checkpoint import load_checkpoint
    from brats.model.training import finished

    assert config.out is not None
    checkpoint = load_checkpoint(config.out)
    history = checkpoint.history if checkpoint else []
    if finished(history, config):
        say("train", f"nothing to do: {len(history)} epochs are done")
        return history
    plan = plan_of(config, prepared, split)
    first_epoch = plan.epoch(1)
    n_slices = sum(len(batch.slices) for batch in first_epoch)
    placement = cluster.place_workers(config.device, config.workers, cpu_workers=2)
    check_batches(first_epoch, placement.workers)
    announce(config, placement, len(history), n_slices, len(first_epoch))
    with relayed(functools.partial(show_epoch, config)) as queue:
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={
                "config": config,
                "placement": placement,
                "steps_per_epoch": len(first_epoch),
                "slices_per_epoch": n_slices,
                "val_paths": [slices_path(prepared, row["case_id"]) for row in split if row["split"] == "val"],
                "size": plan.size,
                "queue": queue,
            },
            scaling_config=ScalingConfig(
                num_workers=placement.workers,
                use_gpu=placement.use_gpu,
                resources_per_worker={"CPU": placement.cpus, **({"GPU": 1} if placement.use_gpu else {})},
            ),
            run_config=RunConfig(
                name="ray",
                storage_path=storage.join(config.out, "checkpoints"),
                failure_config=FailureConfig(max_failures=config.max_failures, controller_failure_limit=3),
            ),
            datasets={
                stream_name(rank, placement.workers): functools.partial(
                    rank_stream, plan, config, rank, placement.workers, len(first_epoch)
                )
                for rank in range(placement.workers)
            },
            dataset_config=DataConfig(
                datasets_to_split=[], execution_options=ray.data.ExecutionOptions(preserve_order=True)
            ),
        )
        try:
            outcome = trainer.fit().return_value
        except WorkerGroupError as error:
            raise BratsError(worker_failure(error.worker_failures)) from error
        except TrainingFailedError as error:
            raise BratsError(f"training failed: {cluster.root_cause(error)}; the same command resumes") from error
    if outcome is not None:
        raise BratsError(outcome)
    checkpoint = load_checkpoint(config.out)
    assert checkpoint is not None
    return checkpoint.history


def train_worker(spec: dict[str, Any]) -> str | None:
    """What each Ray Train worker runs. Returns why training cannot succeed, None when it did.

    An error that another attempt would meet again is returned, not raised: Ray restarts workers that raise.
    """
    import ray.train
    import ray.train.torch
    import torch

    from brats.model.precision import choose_precision
    from brats.model.training import DivergedError, Worker, fit

    config, placement = spec["config"], spec["placement"]
    context = ray.train.get_context()
    if placement.threads:
        torch.set_num_threads(placement.threads)
    device = ray.train.torch.get_device()
    try:
        worker = Worker(
            rank=context.get_world_rank(),
            world_size=context.get_world_size(),
            device=device,
            precision=choose_precision(config.precision, device),
        )
        shard = ray.train.get_dataset_shard(stream_name(worker.rank, worker.world_size))

        def on_epoch(row: dict[str, Any]) -> None:
            if worker.rank == 0:
                spec["queue"].put(row)
            ray.train.report({"epoch": row["epoch"], "val_dice": row["val_dice"]})

        fit(
            config,
            worker,
            batches=worker_batches(shard, len(config.modalities), spec["size"]),
            steps_per_epoch=spec["steps_per_epoch"],
            slices_per_epoch=spec["slices_per_epoch"],
            val_paths=spec["val_paths"],
            run=config.out,
            on_epoch=on_epoch,
        )
    except (DivergedError, ConfigError) as error:
        return str(error)
    return None


def worker_failure(failures: Mapping[int, BaseException]) -> str:
    """Why the workers failed, by the first of them, in one line."""
    rank, error = min(failures.items())
    return f"training worker {rank} failed: {cluster.root_cause(error)}; the same command resumes"


def check_batches(batches: Sequence[PlannedBatch], workers: int) -> None:
    """Raise ConfigError unless every batch has a slice for every worker."""
    smallest = min(len(batch.slices) for batch in batches)
    if smallest < workers:
        raise ConfigError(
            f"a batch has {smallest} slices for {workers} workers; raise --batch-size or lower --workers"
        )


def announce(config: TrainConfig, placement: Placement, done: int, n_slices: int, n_steps: int) -> None:
    """Say what is about to be trained, on what."""
    resumed = f", resuming after epoch {done}" if done else ""
    say(
        "train",
        f"U-Net {config.encoder} on {', '.join(config.modalities)}; {placement}; "
        f"{config.epochs} epochs of {n_slices} slices in {n_steps} steps{resumed}",
    )


def show_epoch(config: TrainConfig, row: dict[str, Any]) -> None:
    """The line of one epoch."""
    left = (config.epochs - row["epoch"]) * row["elapsed_s"]
    say(
        "train",
        f"epoch {row['epoch']}/{config.epochs}  loss {row['train_loss']:.3f} val {row['val_loss']:.3f}  "
        f"Dice WT {row['val_dice_wt']:.3f} TC {row['val_dice_tc']:.3f} ET {row['val_dice_et']:.3f}  "
        f"{row['slices_per_s']:.0f} slices/s  {duration(left)} left",
    )
