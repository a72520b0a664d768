"""A logger: what it is given of a run, and by what it knows the run again after a resume."""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from brats import storage
from brats.saved_config import config_path

Epochs = Sequence[tuple[int, Mapping[str, float]]]
"""The epochs of a run so far, all of them: each with its number and its figures by name, as `group/name`."""

LONGEST_REASON = 200  # letters


class Logger(Protocol):
    """Logs the epochs of one run, while one start of it trains."""

    def log(self, epochs: Epochs) -> None:
        """Log what of these epochs is not logged yet. Raises BratsError, after which it may be tried again."""

    def close(self, *, finished: bool) -> None:
        """End what logging has begun. Raises BratsError.

        finished: whether the run has come to its end
        """


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """What names a run in the stores of loggers.

    identity: 16 hexadecimal digits, the same after a resume
    name:     the last two folders of its path
    settled:  the values of its configuration that shaped the result; they never change
    free:     the other ones, of its latest start
    """

    identity: str
    name: str
    settled: Mapping[str, Any]
    free: Mapping[str, Any]


def identity_path(run: str) -> str:
    return storage.join(run, "loggers.json")


def read_logged_run(run: str) -> LoggedRun:
    """What names the run in a folder. Its identity is made, and kept there, where it has none.

    Raises StorageError.
    """
    known = read_notes(run)
    if not known.get("identity"):
        known = {**known, "identity": uuid.uuid4().hex[:16]}
        storage.write_json(identity_path(run), known)
    saved = _read(config_path(run))
    return LoggedRun(
        identity=str(known["identity"]),
        name="/".join(run.rstrip("/").split("/")[-2:]),
        settled=saved.get("result", {}),
        free=saved.get("execution", {}),
    )


def read_notes(run: str) -> dict[str, Any]:
    """What the loggers of a run have noted: its identity and, by their names, more."""
    return _read(identity_path(run))


def note(run: str, name: str, value: Any) -> None:
    """Keep a note of a logger."""
    storage.write_json(identity_path(run), {**read_notes(run), name: value})


def reason_of(error: BaseException) -> str:
    """Why a package failed, in one short line: what the system said where that is behind it, and no secret."""
    innermost = error
    while inner := innermost.__cause__ or innermost.__context__:
        innermost = inner
    words = " ".join(str(innermost if isinstance(innermost, OSError) else error).split())
    words = without_secret(words)
    return words if len(words) <= LONGEST_REASON else f"{words[:LONGEST_REASON]} ..."


def without_secret(words: str) -> str:
    """Without the user and the password of a URL."""
    return re.sub(r"//\S*@", "//", words)


def _read(path: str) -> dict[str, Any]:
    try:
        return storage.read_json(path)
    except FileNotFoundError:
        return {}
