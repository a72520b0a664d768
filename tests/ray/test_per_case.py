"""One case at a time on Ray: what becomes of a value, of errors, and of a case that kills its process."""

import functools
import json
import os
import pickle
import signal
from typing import Any

import pytest
import ray

from brats.cluster.attempts import MOST_ATTEMPTS, start_counter
from brats.cluster.datasets import from_cases, run_cases
from brats.cluster.per_case import CaseRow, pack, per_case, ray_step, unpack
from brats.data.rejects import Reject
from brats.errors import CaseError, StorageError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]


@pytest.fixture
def counter() -> Any:
    return start_counter()


def after(row: CaseRow, step: Any, counter: Any) -> CaseRow:
    return per_case(row, step, counter=counter, doing="doubling", stage="read", remedy="use smaller numbers")


def double(value: int) -> int:
    return 2 * value


def refuse(value: int) -> int:
    raise CaseError("a.nii", f"{value} is odd", transient=True)


def fail(value: int) -> int:
    raise StorageError(f"{value}: disk full")


def test_step_goes_from_value_to_value(counter: Any) -> None:
    assert unpack(after(pack("a", 21), double, counter)) == 42


def test_case_error_becomes_a_reject_of_its_stage(counter: Any) -> None:
    row = after(pack("a", 3), refuse, counter)
    assert unpack(row) == Reject(case_id="a", path="a.nii", stage="read", reason="3 is odd", transient=True)
    assert row["value"] == b""


def test_storage_error_becomes_a_failure(counter: Any) -> None:
    row = after(pack("a", 3), fail, counter)
    assert row["value"] == b""
    with pytest.raises(StorageError, match=r"^3: disk full$"):
        unpack(row)


def test_other_errors_are_bugs_and_end_the_job(counter: Any) -> None:
    with pytest.raises(TypeError):
        after(pack("a", None), double, counter)


@pytest.mark.parametrize("end", [{"reject": json.dumps({"case_id": "a"})}, {"failure": "disk full"}], ids=str)
def test_case_without_a_value_passes_unchanged_and_uncounted(end: dict[str, str], counter: Any) -> None:
    row = {**pack("a", 3), "value": b"", **end}
    for _ in range(MOST_ATTEMPTS + 1):
        assert after(row, double, counter) == row
    assert unpack(after(pack("a", 21), double, counter)) == 42


def test_attempt_counts_before_the_value_is_unpacked(counter: Any) -> None:
    for _ in range(MOST_ATTEMPTS):
        with pytest.raises(pickle.UnpicklingError):  # stands for the process that dies of it
            after({**pack("a", 3), "value": b"too large"}, double, counter)
    assert unpack(after(pack("a", 3), double, counter)) == Reject(
        case_id="a",
        path="",
        stage="read",
        reason="doubling it killed 3 processes, most likely out of memory; use smaller numbers",
        transient=True,
    )


def test_case_that_kills_its_process_is_rejected_while_the_others_finish(counter: Any) -> None:
    def kill_on_two(value: int) -> int:
        if value == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return 10 * value

    dataset = from_cases({str(number): number for number in range(4)}).map(
        ray_step(kill_on_two, counter=counter, doing="reading", stage="read"), num_cpus=1
    )
    outcomes: dict[str, Any] = {}
    run_cases(dataset, "read", 4, lambda case_id, outcome: outcomes.update({case_id: outcome}))
    rejected = outcomes.pop("2")
    assert outcomes == {"0": 0, "1": 10, "3": 30}
    assert rejected.transient
    assert rejected.reason == (
        "reading it killed 3 processes, most likely out of memory; use machines with more memory"
    )


def test_ray_names_the_tasks_after_the_step(counter: Any) -> None:
    for step in (double, functools.partial(double)):
        guarded = ray_step(step, counter=counter, doing="doubling", stage="read")
        assert "Map(double)" in repr(ray.data.from_items([{"id": 0}]).map(guarded))
