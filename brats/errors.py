"""Exceptions of the project, all of them; the message of each is one line for the user.

BratsError                the job cannot go on: exit code 1
    ConfigError           the command line or the configuration is wrong: exit code 2
        SettingError      storage cannot be used until a setting or path is changed; a StorageError, too
    StorageError          a path cannot be read or written
        UnreachableError  a store or a disk did not answer; another attempt may succeed
    BundleError           a model bundle cannot be used
    ClusterError          Ray gave up
    NoRoomError           no machine had room for a worker in time; it may have once other jobs have ended
    WorkersLostError      training workers were lost; another start may succeed
    DivergedError         a training diverged
    LoggerError           a logger cannot log the epochs of a run; training goes on
    TooLargeError         training slices do not fit in memory; they are streamed then
    CaseError             one case cannot be used, the others go on
    UnknownLabelError     a segmentation holds an unknown code; becomes a CaseError where the file is known
"""

import traceback


class BratsError(Exception):
    """The job cannot go on. The message says what is wrong, where, and what to do.

    in_full: whether a notebook shows where it was raised, too
    """

    in_full = False

    def _render_traceback_(self) -> list[str]:
        """What IPython, which calls this, shows in place of a screen of code that is not the user's."""
        if self.in_full:
            return "".join(traceback.format_exception(self)).splitlines()
        return [f"{type(self).__name__}: {self}"]


class ConfigError(BratsError):
    """The command line or the configuration is wrong (exit code 2)."""


class StorageError(BratsError):
    """A path cannot be read or written: no permission, disk full, store unreachable."""


class SettingError(ConfigError, StorageError):
    """Storage cannot be used until a setting or a path is changed: exit code 2, yet caught as a StorageError."""


class UnreachableError(StorageError):
    """A store or a disk did not answer, however often it was tried; it may, later or from another machine."""


class BundleError(BratsError):
    """A model bundle that cannot be used."""


class ClusterError(BratsError):
    """Ray gave up: machines or processes were lost for good, or nothing moved for too long."""


class NoRoomError(BratsError):
    """No machine had room for a worker within --wait-minutes: none came, or other jobs held those there are."""


class WorkersLostError(BratsError):
    """Training workers died, or failed in a way that another start may not meet again."""


class DivergedError(BratsError):
    """The loss of a training, or its gradient, is not finite."""


class LoggerError(BratsError):
    """The epochs of a run that a logger cannot log: its server does not answer, or its disk is full."""


class TooLargeError(BratsError):
    """Training slices that do not fit in the memory they may take."""


class CaseError(BratsError):
    """One case cannot be used. The others go on; the reason becomes a row of `rejects.parquet`.

    path:      the file or folder at fault, or "" where it is the case as a whole
    reason:    one line with the bad value and, where there is one, the remedy
    transient: whether another attempt may succeed (a read error), so that a rerun retries it
    """

    def __init__(self, path: str, reason: str, *, transient: bool = False) -> None:
        super().__init__(path, reason)  # the arguments that unpickling calls it with
        self.path = path
        self.reason = reason
        self.transient = transient

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


class UnknownLabelError(BratsError):
    """A segmentation holds a value that its layout does not define."""
