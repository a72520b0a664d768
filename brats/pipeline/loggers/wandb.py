"""Weights & Biases: a run as a run there with the same figures, offline in RUN/wandb unless WANDB_MODE is online.

Offline, its folder is written anew, from the whole history, by each start that has epochs to add: sending it twice
(`wandb sync`) then gives what sending it once does. Online, the server tells which epochs it has.
"""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from brats import storage
from brats.errors import LoggerError
from brats.pipeline.loggers.logger import Epochs, LoggedRun, note, read_logged_run, read_notes, reason_of
from brats.storage.user_folder import user_folder

FOLDER, MODE = "WANDB_DIR", "WANDB_MODE"
OFFLINE = ("offline", "dryrun")
PROJECT = "brats"  # unless WANDB_PROJECT names one
INIT_S, FINISH_S = 20.0, 20.0  # to wait for the server; what has not been sent by then stays in the folder
NOTE = "wandb"  # of the mode and the last epoch of a start that has ended


class WandB:
    """Keeps a run of W&B open from the first epoch that it lacks to the end of this start."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._mode = os.environ.get(MODE) or "offline"
        self._opened: Any = None
        self._next = 0  # the first epoch that is not logged

    def log(self, epochs: Epochs) -> None:
        with _errors():
            if not self._opened:
                run, folder = read_logged_run(self._run), os.environ.get(FOLDER) or self._run
                if self._is_done(epochs, run, folder):
                    return
                self._opened = open_run(run, folder, self._mode)
                self._next = self._opened.step
            for number, figures in epochs:
                if number >= self._next:
                    self._opened.log(dict(figures), step=number, commit=True)
                    self._next = number + 1

    def close(self, *, finished: bool) -> None:
        if not self._opened:
            return
        opened, self._opened = self._opened, None
        with _errors():
            opened.finish(exit_code=0 if finished else 1)
        note(self._run, NOTE, [self._mode, self._next - 1])

    def _is_done(self, epochs: Epochs, run: LoggedRun, folder: str) -> bool:
        """Whether there is nothing to log, or starts that have ended have logged it all, and it is still there."""
        if not epochs:
            return True
        there = self._mode not in OFFLINE or any(offline_folders(folder, run.identity))
        return there and read_notes(self._run).get(NOTE) == [self._mode, epochs[-1][0]]


def offline_folders(folder: str, identity: str) -> Iterator[Path]:
    """Where a run was written offline."""
    return Path(folder, "wandb").glob(f"offline-run-*-{identity}")


def load() -> Any:
    """The package, which keeps off the console and out of the home folder, and reports to nobody."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    if own := user_folder():
        os.environ.setdefault("WANDB_CACHE_DIR", os.path.join(own, "wandb"))
    return importlib.import_module("wandb")


def open_run(run: LoggedRun, folder: str, mode: str) -> Any:
    """The run of W&B with this identity: offline a new one in the place of those there, online the same again.

    Raises LoggerError where W&B would ask for a key, or write to another folder.
    """
    wandb = load()
    os.makedirs(folder, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise LoggerError(f"wandb: {folder} cannot be written; set {FOLDER} to another folder")
    if mode in OFFLINE:
        for written in offline_folders(folder, run.identity):
            storage.remove(str(written))
    elif mode != "disabled" and not wandb.login(prompt=False):
        raise LoggerError(f"wandb: {MODE} is {mode}, but no key is known; set WANDB_API_KEY, or run `wandb login`")
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT") or PROJECT,
        id=run.identity,
        name=run.name,
        dir=folder,
        config={**run.free, **run.settled},
        mode=mode,
        resume=None if mode in OFFLINE else "allow",
        reinit="create_new",  # what else of W&B is open in this process stays so
        settings=quiet_settings(),
    )


def quiet_settings() -> Any:
    """Nothing on the console, nothing taken from it or from the machine, and no waiting without end."""
    return load().Settings(
        console="off",
        disable_git=True,
        finish_timeout=FINISH_S,
        finish_timeout_raises=True,
        init_timeout=INIT_S,
        save_code=False,
        silent=True,
        symlink=False,  # to the latest run, which is the only one
        use_dot_wandb=False,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )


@contextmanager
def _errors() -> Iterator[None]:
    """Turn errors of W&B, of its settings and of the disk into a LoggerError of one line."""
    failures = (load().Error, OSError, ValueError)
    try:
        yield
    except failures as error:
        raise LoggerError(f"wandb: {reason_of(error)}") from error
