"""MLflow: a run as a run of MLflow with the same figures, in RUN/mlflow unless MLFLOW_TRACKING_URI names a store.

It is found again by a tag, in whatever store, and what is logged there stays as it is: MLflow removes no point.
"""

import importlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brats import storage
from brats.errors import LoggerError
from brats.pipeline.loggers.logger import Epochs, LoggedRun, read_logged_run, reason_of, without_secret

TRACKING_URI = "MLFLOW_TRACKING_URI"
# MLflow reads these when it is imported or asked; a value that the user has set is kept.
SETTINGS = {
    "MLFLOW_ALLOW_FILE_STORE": "true",  # a store of files, which needs no other package, is refused without it
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a later epoch tries again
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
EXPERIMENT = "brats"  # unless MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID names one
IDENTITY_TAG = "brats.identity"
# What MLflow takes at once: of metrics, of parameters and tags, and of letters in a value.
MOST_METRICS, MOST_VALUES, MOST_LETTERS = 1000, 100, 5000


@dataclass(frozen=True, kw_only=True)
class Found:
    """A run in the store, and its points there by the name of the figure and the number of the epoch."""

    client: Any
    run_id: str
    logged: set[tuple[str, int]] = field(default_factory=set)


class MLflow:
    """Logs what the store lacks; after a failure it asks the store again what it has."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._found: Found | None = None

    def log(self, epochs: Epochs) -> None:
        store = store_of(self._run)
        with _errors(store):
            found, self._found = self._found or find_run(read_logged_run(self._run), store), None
            log_epochs(found, epochs)
            self._found = found

    def close(self, *, finished: bool) -> None:
        if self._found is None:
            return
        client, run_id = self._found.client, self._found.run_id
        with _errors(store_of(self._run)):
            if client.get_run(run_id).info.status == "RUNNING":
                client.set_terminated(run_id, "FINISHED" if finished else "KILLED")


def store_of(run: str) -> str:
    """The address of the store that a run is logged in."""
    return os.environ.get(TRACKING_URI) or Path(storage.join(run, "mlflow")).as_uri()


def load() -> Any:
    """The client of MLflow, which keeps off the console and reports to nobody."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    return importlib.import_module("mlflow")


def find_run(run: LoggedRun, store: str) -> Found:
    """The run with this identity in a store, with the options of today; it is made where there is none."""
    client = load().MlflowClient(store)
    experiment = os.environ.get("MLFLOW_EXPERIMENT_ID") or _experiment(client)
    known = client.search_runs([experiment], f"tags.`{IDENTITY_TAG}` = '{run.identity}'", max_results=1)
    entry = (
        known[0] if known else client.create_run(experiment, run_name=run.name, tags={IDENTITY_TAG: run.identity})
    )
    run_id = entry.info.run_id
    logged = {
        (name, point.step) for name in entry.data.metrics for point in client.get_metric_history(run_id, name)
    }
    # Parameters never change. What may differ after a resume becomes a tag, which can.
    new = {name: value for name, value in run.settled.items() if name not in entry.data.params}
    entities = load().entities
    params = [entities.Param(name, words) for name, words in _words(new)]
    tags = [entities.RunTag(name, words) for name, words in _words(run.free)]
    for batch in _batches(params, MOST_VALUES):
        client.log_batch(run_id, params=batch)
    for batch in _batches(tags, MOST_VALUES):
        client.log_batch(run_id, tags=batch)
    return Found(client=client, run_id=run_id, logged=logged)


def _experiment(client: Any) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


def _words(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        yield name, words[:MOST_LETTERS]


def log_epochs(found: Found, epochs: Epochs) -> None:
    """Log the figures that the run lacks, each at its epoch; a run that has ended is at work again then."""
    now_ms = int(time.time() * 1000)
    metrics = [
        load().entities.Metric(name, value, now_ms, number)
        for number, figures in epochs
        for name, value in figures.items()
        if (name, number) not in found.logged
    ]
    if metrics:
        found.client.update_run(found.run_id, status="RUNNING")
    for batch in _batches(metrics, MOST_METRICS):
        found.client.log_batch(found.run_id, metrics=batch)
        found.logged.update((metric.key, metric.step) for metric in batch)


def _batches(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (values[first : first + size] for first in range(0, len(values), size))


@contextmanager
def _errors(store: str) -> Iterator[None]:
    """Turn errors of MLflow, of its connection and of the disk into a LoggerError of one line."""
    failures = (load().exceptions.MlflowException, OSError)
    try:
        yield
    except failures as error:
        raise LoggerError(f"mlflow: {without_secret(store)}: {reason_of(error)}") from error
