"""From a prepared dataset to a run: plan the epochs, stream the slices, fit the network, score the test split."""

import functools
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from brats import storage
from brats.config import PredictConfig, PrepareConfig, SavedConfig, TrainConfig, fingerprint, resolve_train
from brats.data.slices import slices_path
from brats.errors import BratsError, ConfigError
from brats.pipeline import cluster
from brats.pipeline.cluster import Placement, duration, say
from brats.pipeline.predict import Predictions, predict
from brats.pipeline.prepare import CASES_SCHEMA, is_prepared, prepare, read_cases
from brats.pipeline.stream import plan_of, rank_stream, stream_name, worker_batches

SPLIT_COLUMNS = (
    "case_id",
    "patient_id",
    "split",
    "fold",
    "height",
    "width",
    "tumour_per_slice",
    "voxel_hash",
    "source_bytes",
)
PHANTOM_SEED = 0


@dataclass(frozen=True)
class TrainedRun:
    """A finished run: where it is, its epochs and, unless left out, the predictions on its test split."""

    out: str
    history: list[dict[str, Any]]
    predictions: Predictions | None
    figures: list[str]

    def summary(self) -> str:
        """Scores and where everything is, for the console."""
        lines = [self.predictions.summary()] if self.predictions else []
        lines.append(f"model    {storage.join(self.out, 'model')}")
        lines.append(f"history  {storage.join(self.out, 'history.parquet')}")
        if self.figures:
            lines.append(f"figures  {storage.join(self.out, 'figures')}")
        return "\n".join(lines)


def train(config: TrainConfig) -> TrainedRun:
    """Run the whole job that `TrainConfig` describes, or what is left of it."""
    config = resolve_train(config)
    assert config.out is not None
    prepared = prepare_data(config)
    split = freeze_split(config, prepared)
    _check_modalities(config, prepared)
    data = fingerprint([[row["case_id"], row["split"], row["fold"], row["source_bytes"]] for row in split])
    SavedConfig.of("train", config, data_fingerprint=data).claim(config.out)
    history = fit_on_cluster(config, prepared, split)
    export_model(config, split)
    figures = draw_history(config.out)
    predictions = None
    if config.predict and any(row["split"] == "test" for row in split):
        predictions = predict(
            PredictConfig(
                model=config.out,
                data=prepared,
                out=storage.join(config.out, "test"),
                split="test",
                nifti=config.nifti,
                device=config.device,
                precision=config.precision,
                strict=config.strict,
            )
        )
        figures += predictions.draw(prepared, storage.join(config.out, "figures"))
    return TrainedRun(config.out, history, predictions, figures)


def prepare_data(config: TrainConfig) -> str:
    """The prepared dataset to train on: the one given, or one made of the cases given or of phantoms."""
    assert config.out is not None
    if config.data is not None and is_prepared(config.data):
        return config.data
    data = config.data or make_phantoms(storage.join(config.out, "phantoms"))
    prepared = storage.join(config.out, "prepared")
    settings = PrepareConfig(
        data=data, out=prepared, modalities=config.modalities, seed=config.seed, strict=config.strict
    )
    print(prepare(settings).summary(), flush=True)
    return prepared


def freeze_split(config: TrainConfig, prepared: str) -> list[dict[str, Any]]:
    """The labelled cases of this run with their splits, as `RUN/split.parquet` keeps them from its first start.

    Cases that join the dataset later do not change a run. Raises ConfigError when there is nobody to train on or
    to validate on.
    """
    path = storage.join(config.out or "", "split.parquet")
    if storage.exists(path):
        rows: list[dict[str, Any]] = storage.read_table(path)[0].to_pylist()
        return rows
    rows = [{name: row[name] for name in SPLIT_COLUMNS} for row in read_cases(prepared) if row["split"]]
    if config.fold is not None:
        folds = sorted({row["fold"] for row in rows if row["fold"] is not None})
        if config.fold not in folds:
            raise ConfigError(f"--fold: {config.fold} is not one of the dataset's folds {folds}")
        for row in rows:
            if row["split"] != "test":
                row["split"] = "val" if row["fold"] == config.fold else "train"
    for split in ("train", "val"):
        if not any(row["split"] == split for row in rows):
            raise ConfigError(
                f"{prepared}: its {len(rows)} labelled cases leave none for the {split} split; add cases"
            )
    schema = pa.schema([CASES_SCHEMA.field(name) for name in SPLIT_COLUMNS])
    storage.write_table(path, pa.Table.from_pylist(rows, schema=schema), {"prepared": prepared})
    return rows


def _check_modalities(config: TrainConfig, prepared: str) -> None:
    for row in read_cases(prepared):
        missing = [name for name in config.modalities if name not in row["modalities"]]
        if missing and row["split"]:
            raise ConfigError(
                f"--modalities: {prepared} was prepared with {', '.join(row['modalities'])}, "
                f"without {', '.join(missing)}"
            )


def make_phantoms(root: str) -> str:
    """Write the phantom dataset, the cases in parallel; those already there are kept."""
    import ray.data

    from brats.data.phantom import N_PHANTOMS, phantom_files, write_name_mapping

    todo = [index for index in range(N_PHANTOMS) if not all(map(storage.exists, phantom_files(root, index)))]
    if todo:
        say("phantoms", f"no --data given: making {len(todo)} phantom cases in {root}")
        dataset = ray.data.from_items([{"index": index} for index in todo], override_num_blocks=len(todo))
        progress = cluster.Progress("phantoms", len(todo), "cases")
        for _ in cluster.rows_of(dataset.map(_write_phantom, fn_kwargs={"root": root}, num_cpus=1)):
            progress.advance()
    write_name_mapping(root, N_PHANTOMS, PHANTOM_SEED)
    return root


def _write_phantom(row: dict[str, Any], root: str) -> dict[str, Any]:
    from brats.data.phantom import write_phantom

    return {"case_id": write_phantom(root, row["index"], PHANTOM_SEED)}


def fit_on_cluster(config: TrainConfig, prepared: str, split: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run Ray Train until the last epoch; return the history. A lost worker restarts from the last checkpoint."""
    import ray.data
    from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
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
    _announce(config, placement, len(history), n_slices, len(first_epoch))
    with cluster.relayed(functools.partial(_show_epoch, config, len(history))) as queue:
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={
                "config": config,
                "placement": placement,
                "steps_per_epoch": len(first_epoch),
                "slices_per_epoch": n_slices,
                "val_paths": [
                    slices_path(prepared, row["case_id"]) for row in split if row["split"] == "val"
                ],
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
            raise BratsError(_worker_failure(error.worker_failures)) from error
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


def _worker_failure(failures: dict[int, BaseException]) -> str:
    rank, error = min(failures.items())
    return f"training worker {rank} failed: {cluster.root_cause(error)}; the same command resumes"


def _announce(config: TrainConfig, placement: Placement, done: int, n_slices: int, n_steps: int) -> None:
    resumed = f", resuming after epoch {done}" if done else ""
    say(
        "train",
        f"U-Net {config.encoder} on {', '.join(config.modalities)}; {placement}; "
        f"{config.epochs} epochs of {n_slices} slices in {n_steps} steps{resumed}",
    )


def _show_epoch(config: TrainConfig, done_before: int, row: dict[str, Any]) -> None:
    """The line of one epoch."""
    left = (config.epochs - row["epoch"]) * row["elapsed_s"]
    say(
        "train",
        f"epoch {row['epoch']}/{config.epochs}  loss {row['train_loss']:.3f} val {row['val_loss']:.3f}  "
        f"Dice WT {row['val_dice_wt']:.3f} TC {row['val_dice_tc']:.3f} ET {row['val_dice_et']:.3f}  "
        f"{row['slices_per_s']:.0f} slices/s  {duration(left)} left",
    )


def export_model(config: TrainConfig, split: list[dict[str, Any]]) -> None:
    """Write the bundle of the best epoch to RUN/model, unless it is there."""
    from brats.model.bundle import ModelCard, read_card, save_bundle
    from brats.model.checkpoint import best_epoch, load_checkpoint

    assert config.out is not None
    last = load_checkpoint(config.out)
    assert last is not None
    epoch = best_epoch(last.history)
    folder = storage.join(config.out, "model")
    if storage.exists(storage.join(folder, "model.json")) and read_card(folder).epoch == epoch:
        return
    best = load_checkpoint(config.out, epoch)
    assert best is not None
    card = ModelCard(
        encoder=config.encoder,
        decoder_channels=config.decoder_channels,
        modalities=config.modalities,
        epoch=epoch,
        val_dice=best.history[-1]["val_dice"],
        trained_on={row["case_id"]: row["voxel_hash"] for row in split if row["split"] != "test"},
    )
    save_bundle(folder, best.weights, card)
    say("train", f"best epoch {epoch} of {len(last.history)}, validation Dice {card.val_dice:.3f}")


def draw_history(run: str) -> list[str]:
    from brats.score.report import draw_learning_curves

    return [draw_learning_curves(run, storage.join(run, "figures"))]
