"""The wrapper of every Ray step that takes one case at a time: errors stay with their case, attempts are counted.

A row of a per-case dataset is one case:

    case_id
    value    the result of the steps so far, pickled; b"" once the case is rejected or has failed
    reject   why the case cannot be used: a `Reject` as JSON, or ""
    failure  why its result could not be stored, or ""
"""

import functools
import json
import pickle
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from brats.cluster import attempts
from brats.data.rejects import Reject
from brats.errors import CaseError, StorageError

# Of a task that takes one case from file to file. Two tasks per core: one works while the result of the other is
# reported and its successor sent. With one per core, the cores were idle for a third of the time.
CASE_CPUS = 0.5
CASE_MEMORY_BYTES = 2**30  # that Ray sets aside for a task which reads a case; BraTS in int16 peaks at 0.24 GB

CaseRow = dict[str, Any]


def pack(case_id: str, value: Any) -> CaseRow:
    """The row of a case with this value."""
    return {"case_id": case_id, "value": pickle.dumps(value, protocol=5), "reject": "", "failure": ""}


def unpack(row: CaseRow) -> Any:
    """The value of a case, or its `Reject`. Raises StorageError when its result could not be stored."""
    if row["failure"]:
        raise StorageError(row["failure"])
    return Reject(**json.loads(row["reject"])) if row["reject"] else pickle.loads(row["value"])


def per_case(
    row: CaseRow,
    step: Callable[[Any], Any],
    *,
    counter: Any,
    doing: str,
    stage: str,
    remedy: str = "use machines with more memory",
) -> CaseRow:
    """The row of a case after one more step, from value to value. A case without a value passes unchanged.

    counter: the job's count of the attempts, of `attempts.start_counter`
    doing:   the step as a verb, such as `reading`, for the reason why a case that kills its process is rejected
    stage:   of the reject that a CaseError becomes; a StorageError becomes a failure
    remedy:  for a case that kills its process
    """
    if row["reject"] or row["failure"]:
        return row
    try:
        # Before the value is unpacked, which alone may take more memory than there is.
        attempts.begin(counter, row["case_id"], doing, remedy)
        return pack(row["case_id"], step(pickle.loads(row["value"])))
    except CaseError as error:
        reject = Reject.from_error(row["case_id"], stage, error)
        return {**row, "value": b"", "reject": json.dumps(asdict(reject))}
    except StorageError as error:
        return {**row, "value": b"", "failure": str(error)}


def ray_step(step: Callable[[Any], Any], *, counter: Any, doing: str, stage: str) -> Callable[[CaseRow], CaseRow]:
    """`per_case` with this step, for `Dataset.map`. Ray names its tasks and their processes after the step.

    step: a function, or a `functools.partial` of one
    """

    def guarded(row: CaseRow) -> CaseRow:
        return per_case(row, step, counter=counter, doing=doing, stage=stage)

    guarded.__name__ = (step.func if isinstance(step, functools.partial) else step).__name__
    return guarded


def file_to_file(cases: Any, step: Callable[[Any], Any], *, doing: str) -> Any:
    """A per-case dataset after one step that reads each case and leaves its result, its attempts counted.

    cases, step, doing: see `from_cases`, `ray_step` and `per_case`
    """
    guarded = ray_step(step, counter=attempts.start_counter(), doing=doing, stage="read")
    return cases.map(guarded, num_cpus=CASE_CPUS, memory=CASE_MEMORY_BYTES)
