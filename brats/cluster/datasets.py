"""Running a Ray dataset: its rows as they are done, a status per case, and Ray's errors in one line."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from brats.console import Progress
from brats.errors import ClusterError, StorageError


def rows_of(dataset: Any) -> Iterable[dict[str, Any]]:
    """The rows of a Ray dataset as they are done; errors of its tasks as our own, in one line."""
    import ray
    from ray.data.exceptions import ExecutionTimeoutError

    try:
        yield from dataset.iter_rows()
    except (ray.exceptions.RayError, ExecutionTimeoutError) as error:
        raise ClusterError(root_cause(error)) from error


def case_statuses(dataset: Any, stage: str, n_cases: int) -> Iterator[dict[str, Any]]:
    """The rows of a dataset with one status per case, as they are done, with the progress shown.

    Raises StorageError, after all the cases, with the first `failure` that a status names.
    """
    progress = Progress(stage, n_cases, "cases")
    failure = ""
    for status in rows_of(dataset):
        progress.advance()
        failure = failure or status["failure"]
        yield status
    if failure:
        raise StorageError(failure)


def root_cause(error: BaseException) -> str:
    """The innermost reason of an error that passed through Ray, in one line: `ValueError: the message`.

    Ray carries the error of a task as the text of its traceback, innermost first.
    """
    innermost, chained, _ = str(error).partition("\n\nThe above exception was the direct cause")
    if chained:
        return re.sub(r"^[\w.]+\.(?=\w+: )", "", innermost.strip().splitlines()[-1])
    while (inner := getattr(error, "cause", None) or error.__cause__) is not None:
        error = inner
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[-1] if text else 'no further word'}"
