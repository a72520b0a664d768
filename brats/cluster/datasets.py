"""Running Ray datasets, of cases above all: rows as they are done, and the errors of Ray in one line."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from brats.cluster.per_case import pack, unpack
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


def from_cases(values: Mapping[str, Any]) -> Any:
    """A dataset of one row and one block per case, with these values by case id; see `per_case`."""
    import ray.data

    rows = [pack(case_id, value) for case_id, value in values.items()]
    return ray.data.from_items(rows, override_num_blocks=len(rows))


def run_cases(dataset: Any, stage: str, n_cases: int, take: Callable[[str, Any], None]) -> None:
    """Run a per-case dataset to its end, showing the progress.

    take: called on the driver with the id of each case, in the order they finish, and its value or its `Reject`;
          it may store something

    Raises StorageError, the first, when a result could not be stored, after all the other cases are done.
    """
    progress = Progress(stage, n_cases, "cases")
    failure: StorageError | None = None
    for row in rows_of(dataset):
        progress.advance()
        try:
            take(row["case_id"], unpack(row))
        except StorageError as error:
            failure = failure or error
    if failure:
        raise failure


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
