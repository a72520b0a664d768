"""Running Ray datasets: their settings, one outcome per case, and the errors of Ray in one line."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from brats import errors
from brats.cluster.per_case import pack, unpack
from brats.console import Progress
from brats.errors import BratsError, ClusterError, StorageError

# After how long without progress Ray ends a dataset.
NO_PROGRESS_CASES_S = 600.0  # one of cases, unless the job waits longer than this for machines
NO_PROGRESS_TRAINING_S = 3600.0  # one of training batches: while the workers validate, none is taken

OWN_ERROR = re.compile(r"^brats\.errors\.(\w+): (.+)$", re.M)  # in a traceback
NO_MESSAGE = "no message"


def configure_datasets(wait_minutes: float) -> None:
    """Configure the datasets of this process: no progress bars, and how long one may make no progress.

    wait_minutes: how long the job waits for machines
    """
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = max(NO_PROGRESS_CASES_S, 60 * wait_minutes)


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

    take: called on the driver with the id of each case, as it finishes, and its value or its `Reject`; may raise
          StorageError where it stores something

    Raises the first StorageError after all the other cases are done.
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
    """The reason of an error that passed through Ray, in one line: `ValueError: message`, ours as it is."""
    name, message = first_cause(error)
    return message if hasattr(errors, name) else f"{name}: {message}"


def first_cause(error: BaseException) -> tuple[str, str]:
    """The class of the first error behind one that passed through Ray, and its message in one line.

    One of this project stands for what it came from: it names the path. Ray carries the error of a task as the
    text of its traceback, innermost first.
    """
    if own := OWN_ERROR.findall(str(error)):
        name, message = own[-1]
        return name, message
    innermost, chained, _ = str(error).partition("\n\nThe above exception was the direct cause")
    if chained:
        name, _, message = innermost.strip().splitlines()[-1].partition(": ")
        return name.rpartition(".")[2], message or NO_MESSAGE
    while not isinstance(error, BratsError) and (inner := getattr(error, "cause", None) or error.__cause__):
        error = inner
    text = str(error).strip().splitlines()
    return type(error).__name__, text[-1] if text else NO_MESSAGE
