"""Failures of training workers: which are worth another start, and their reason in one line."""

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train import WorkerGroupError

from brats.cluster.failures import judge
from brats.errors import (
    BratsError,
    ConfigError,
    DivergedError,
    SettingError,
    StorageError,
    UnreachableError,
    WorkersLostError,
)


def raised(*failures: BaseException) -> BratsError:
    """What is made of the failures of ranks 0, 1 and so on."""
    return judge(WorkerGroupError("", dict(enumerate(failures))))


class DistBackendError(RuntimeError):
    """As torch names what NCCL raises."""


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


def of_task(kind: str, message: str) -> RayTaskError:
    """The error of a reading task as a worker meets it: the text of a traceback."""
    text = f"ray::read()\nTraceback ...\n{kind}: {message}"
    link = "\n\nThe above exception was the direct cause of the following exception:\n\n"
    return RayTaskError("read", f"{text}{link}ray.exceptions.UserCodeException: UDF failed", RuntimeError("UDF"))


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (ActorDiedError(), "training worker 0 died, and its process or its machine with it"),
        (
            RuntimeError("[pair.cc:534] Connection closed by peer"),
            "training worker 0 lost the connection to another, most likely with its machine",
        ),
        (DistBackendError("ncclRemoteError"), "training worker 0 failed: DistBackendError: ncclRemoteError"),
        (
            RuntimeError("CUDA error: unspecified launch failure"),
            "training worker 0 failed: RuntimeError: CUDA error: unspecified launch failure",
        ),
        (TimeoutError("no answer"), "training worker 0 failed: TimeoutError: no answer"),
        (OSError("disk gone"), "training worker 0 failed: OSError: disk gone"),
        (of_task("ray.exceptions.OwnerDiedError", "gone"), "training worker 0 failed: OwnerDiedError: gone"),
        (
            of_task("ray.data.exceptions.ExecutionTimeoutError", "no progress"),
            "training worker 0 failed: ExecutionTimeoutError: no progress",
        ),
        (UnreachableError("s3://b/k: no answer"), "training worker 0 failed: s3://b/k: no answer"),
        (
            of_task("brats.errors.UnreachableError", "s3://b/k: no answer"),
            "training worker 0 failed: s3://b/k: no answer",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_failure_that_may_pass_is_worth_another_start(failure: BaseException, message: str) -> None:
    error = raised(failure)
    assert (type(error), str(error)) == (WorkersLostError, message)


AGAIN = "; another start would meet it again (--debug shows where)"


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (TypeError("unsupported operand"), f"training worker 0 failed: TypeError: unsupported operand{AGAIN}"),
        (FileNotFoundError("a.parquet"), f"training worker 0 failed: FileNotFoundError: a.parquet{AGAIN}"),
        (of_task("KeyError", "'flair'"), f"training worker 0 failed: KeyError: 'flair'{AGAIN}"),
        (
            OutOfMemoryError("CUDA out of memory. Tried 2 GiB"),
            "training worker 0 failed: OutOfMemoryError: CUDA out of memory. Tried 2 GiB; lower --micro-batch-size "
            "(--debug shows where)",
        ),
        (of_task("brats.errors.StorageError", "a.parquet: cannot read"), "a.parquet: cannot read"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_failure_that_would_come_again_ends_the_job(failure: BaseException, message: str) -> None:
    error = raised(failure)
    assert (type(error), str(error)) == (BratsError, message)


@pytest.mark.parametrize(
    "own",
    [ConfigError("--x"), DivergedError("nan"), SettingError("no bucket"), StorageError("disk full")],
    ids=repr,
)
def test_our_own_error_is_raised_as_it_is(own: BratsError) -> None:
    assert raised(ActorDiedError(), own) is own


def test_wrong_setting_that_a_task_finds_is_a_wrong_configuration() -> None:
    error = raised(of_task("brats.errors.SettingError", "s3://b: no such bucket"))
    assert (type(error), str(error)) == (ConfigError, "s3://b: no such bucket")


def test_failed_worker_of_the_lowest_rank_is_named() -> None:
    error = judge(WorkerGroupError("", {1: RuntimeError("later"), 0: OSError("disk gone")}))
    assert str(error).startswith("training worker 1 failed: RuntimeError: later; another")
    error = judge(WorkerGroupError("", {1: OSError("later"), 0: OSError("disk gone")}))
    assert str(error) == "training worker 0 failed: OSError: disk gone"


def test_worker_that_died_is_the_reason_not_those_that_waited_for_it() -> None:
    for waited in (RuntimeError("connection reset"), ValueError("nothing came")):
        error = raised(waited, ActorDiedError())
        assert (type(error), str(error)) == (
            WorkersLostError,
            "training worker 1 died, and its process or its machine with it",
        )


def test_workers_that_were_not_started_are_worth_another_start() -> None:
    error = judge(RuntimeError("no resources"))
    assert (type(error), str(error)) == (
        WorkersLostError,
        "the workers could not be started or kept: RuntimeError: no resources",
    )
