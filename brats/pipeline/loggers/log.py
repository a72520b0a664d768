"""Logging a run while it trains: the loggers that are chosen, the names of the figures, failures in one line.

A logger is given the history so far, all of it, each time an epoch is done and once at either end. So a resumed run
logs nothing twice, and what a failure has left out is made up for later.
"""

import importlib.util
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from brats import storage
from brats.config import CompareConfig, LoggerName, TrainConfig
from brats.console import say
from brats.errors import BratsError, ConfigError
from brats.model.history import HistoryRow
from brats.pipeline.loggers import mlflow, wandb
from brats.pipeline.loggers.logger import Epochs, Logger
from brats.pipeline.loggers.tensorboard import TensorBoard

LogHistory = Callable[[Sequence[HistoryRow]], None]

LOGGERS: Mapping[LoggerName, Callable[[str], Logger]] = {"mlflow": mlflow.MLflow, "wandb": wandb.WandB}
"""The loggers that `--loggers` names, each made for the run in a folder; TensorBoard is always among them."""
PLACES: Mapping[LoggerName, str] = {"mlflow": mlflow.TRACKING_URI, "wandb": wandb.FOLDER}
"""The variables that say where they log, where they do not in the folder of the run."""
MEASURES = ("loss", "dice", "accuracy")  # that training and validation both have


def check_loggers(config: TrainConfig | CompareConfig) -> None:
    """Raise ConfigError for a logger that is not installed, or cannot write where --out is."""
    for name in config.loggers:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a folder of this name beside the program is found, too
            raise ConfigError(
                f"--loggers: {name} is not installed; install the extra loggers (pip install '.[loggers]'), or "
                "leave it out"
            )
        if storage.is_remote(config.out) and not os.environ.get(PLACES[name]):
            raise ConfigError(
                f"--loggers: {name} cannot write to {config.out}; set {PLACES[name]}, or leave it out"
            )


@contextmanager
def opened_loggers(config: TrainConfig) -> Iterator[LogHistory]:
    """Open the loggers of a run; yields what gives its history to all of them, from any thread.

    One that fails is reported, and training goes on.
    """
    run, lock = config.out, threading.Lock()
    loggers = [Tried(made(run)) for made in (TensorBoard, *(LOGGERS[name] for name in config.loggers))]

    def log(history: Sequence[HistoryRow]) -> None:
        epochs = [(row["epoch"], figures(row)) for row in history]
        with lock:
            for logger in loggers:
                logger.log(epochs)

    finished = False
    try:
        yield log
        finished = True
    finally:
        with lock:
            for logger in loggers:
                logger.close(finished=finished)


class Tried:
    """A logger that may fail: each reason is reported once, and it rests the longer the more often it fails.

    A server that does not answer takes seconds to find out, each time; the console waits for that.
    """

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._reported: set[str] = set()
        self._n_failures = self._n_to_skip = 0
        self._left: Epochs = ()  # the history, where some of it may not be logged

    def log(self, epochs: Epochs) -> None:
        """Log the epochs, or leave that to a later call."""
        self._left = epochs
        if self._n_to_skip:
            self._n_to_skip -= 1
            return
        if self._attempt(lambda: self._logger.log(epochs)):
            self._n_failures, self._left = 0, ()
        else:
            self._n_to_skip = 2**self._n_failures
            self._n_failures += 1

    def close(self, *, finished: bool) -> None:
        """Log what is left, and end."""
        if left := self._left:
            self._attempt(lambda: self._logger.log(left))
        self._attempt(lambda: self._logger.close(finished=finished))

    def _attempt(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except BratsError as error:
            if str(error) not in self._reported:
                say("train", f"WARNING: {error}; the epochs are in history.parquet all the same")
            self._reported.add(str(error))
            return False
        return True


def figures(row: HistoryRow) -> dict[str, float]:
    """The figures of an epoch by name, those of training and validation side by side: `loss/train`, `dice/val_wt`.

    What is null has none.
    """
    return {_name(column): float(value) for column, value in row.items() if value is not None and column != "epoch"}


def _name(column: str) -> str:
    where, _, rest = column.partition("_")
    measure, _, region = rest.partition("_")
    if where in ("train", "val") and measure in MEASURES:
        return f"{measure}/{where}_{region}" if region else f"{measure}/{where}"
    return f"run/{column}"
