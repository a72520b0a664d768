"""What loggers have logged, read back: by the client of MLflow, and from the files that Weights & Biases writes.

Those are logs in the form of LevelDB, each record a protocol buffer.
"""

import importlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from brats.config import TrainConfig
from brats.pipeline.loggers import mlflow
from brats.pipeline.loggers.logger import Epochs, Logger
from brats.saved_config import SavedConfig

Point = tuple[int, str, float]
"""A figure at an epoch: its number, the name and the value."""

EPOCHS = [(1, {"loss/train": 0.5, "dice/val": 0.25}), (2, {"loss/train": 0.25}), (3, {"loss/train": 0.125})]
ALL_POINTS = [(1, "dice/val", 0.25), (1, "loss/train", 0.5), (2, "loss/train", 0.25), (3, "loss/train", 0.125)]

BLOCK, FILE_HEADER, RECORD_HEADER = 2**15, 7, 7  # bytes
FULL, LAST = 1, 4  # kinds of a piece that end a record


def saved_run(folder: Path, **options: Any) -> str:
    """A run of which nothing is there but its configuration."""
    SavedConfig.of("train", TrainConfig(out=str(folder), **options)).write(str(folder))
    return str(folder)


def log_start(logger: Logger, epochs: Epochs, *, finished: bool = True) -> None:
    """What a start of a run logs: its history as it begins, and after its epochs."""
    logger.log(epochs[:1])
    logger.log(epochs)
    logger.close(finished=finished)


def clear_settings(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Leave no variable of the loggers' packages set but those that the loggers set, and those only in a test."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    own = {
        **mlflow.SETTINGS,
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_CACHE_DIR": str(cache),
    }
    for name, value in own.items():
        monkeypatch.setenv(name, value)


def mlflow_run(store: str) -> Any:
    """The only run in a store of MLflow."""
    client = mlflow.load().MlflowClient(store)
    (found,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return found


def mlflow_points(store: str) -> list[Point]:
    """All points of the only run in a store of MLflow, sorted."""
    client, run = mlflow.load().MlflowClient(store), mlflow_run(store)
    found = [point for name in run.data.metrics for point in client.get_metric_history(run.info.run_id, name)]
    return sorted((point.step, point.key, point.value) for point in found)


def wandb_file(folder: Path) -> Path:
    """The file of the only run that W&B has written below a folder."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    return file


def read_records(path: Path) -> list[Any]:
    """The records of a `.wandb` file."""
    record: Any = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
    content, position, pieces, records = path.read_bytes(), FILE_HEADER, b"", []
    while position + RECORD_HEADER <= len(content):
        if BLOCK - position % BLOCK < RECORD_HEADER:  # the rest of a block has no room for a header
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += RECORD_HEADER
        pieces += content[position : position + length]
        position += length
        if kind in (FULL, LAST):
            records.append(record.FromString(pieces))
            pieces = b""
    return records


def wandb_points(path: Path) -> list[Point]:
    """All points of a file of W&B, sorted."""
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in read_records(path)
        if record.HasField("history")
    ]
    return sorted(
        (row["_step"], name, value) for row in rows for name, value in row.items() if not name.startswith("_")
    )


def wandb_config(path: Path) -> dict[str, Any]:
    """The configuration that the run was opened with."""
    (run,) = [record.run for record in read_records(path) if record.HasField("run")]
    return {item.key: json.loads(item.value_json) for item in run.config.update}
