"""What can go wrong, said in one line that names the case, the file and the value."""

from dataclasses import dataclass


class BratsError(Exception):
    """The job cannot go on. The message is one line for the user: what is wrong, where, what to do."""


class ConfigError(BratsError):
    """The command line or the configuration is wrong (exit code 2)."""


class StorageError(BratsError):
    """A path cannot be read or written: no permission, disk full, store not reachable."""


class ClusterError(BratsError):
    """Ray broke off what it was doing: machines or processes were lost for good, or nothing moved for too long."""


class DivergedError(BratsError):
    """The loss of a training, or its gradient, is not finite."""


class CaseError(BratsError):
    """One case cannot be used. The others go on; the reason becomes a row of `rejects.parquet`.

    path:      the file or folder at fault, or "" where it is the case as a whole
    reason:    one line with the bad value and, where there is one, the remedy
    transient: whether another attempt may succeed (a read error), so that a rerun tries again
    """

    def __init__(self, path: str, reason: str, *, transient: bool = False) -> None:
        super().__init__(path, reason)  # the arguments that unpickling calls it with
        self.path = path
        self.reason = reason
        self.transient = transient

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A case that could not be used: one row of `rejects.parquet`."""

    case_id: str
    path: str
    stage: str
    """Where it failed: find, read, prepare or predict."""
    reason: str
    transient: bool = False
    """Whether a rerun tries this case again."""

    @classmethod
    def from_error(cls, case_id: str, stage: str, error: CaseError) -> "Reject":
        return cls(case_id=case_id, path=error.path, stage=stage, reason=error.reason, transient=error.transient)

    def __str__(self) -> str:
        return f"{self.case_id}: {self.path}: {self.reason}" if self.path else f"{self.case_id}: {self.reason}"
