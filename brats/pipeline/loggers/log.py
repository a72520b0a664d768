"""Logging a run while it trains: what a logger is given, and the one that writes for TensorBoard.

A logger is a function of the history so far, all of it, each time an epoch is done and once at either end. So it
can tell what it has logged before, and a resumed run logs nothing twice.
"""

from collections.abc import Callable, Mapping, Sequence

from brats.console import say
from brats.errors import BratsError
from brats.model.history import HistoryRow
from brats.pipeline.loggers.tensorboard import write_events

Logger = Callable[[str, Sequence[tuple[int, Mapping[str, float]]]], None]
"""Logs the epochs of the run in a folder: each with its number and its figures by name, as `group/name`."""

LOGGERS: tuple[Logger, ...] = (write_events,)
MEASURES = ("loss", "dice", "accuracy")  # that training and validation both have


def log(run: str, history: Sequence[HistoryRow]) -> None:
    """Give the history of a run to every logger. One that cannot write is reported, and training goes on."""
    epochs = [(row["epoch"], figures(row)) for row in history]
    for logger in LOGGERS:
        try:
            logger(run, epochs)
        except BratsError as error:
            say("train", f"WARNING: {error}; the epochs are in history.parquet all the same")


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
