"""Running datasets on Ray: outcomes per case, failures after all the others, and errors in one line."""

from typing import Any

import pytest
import ray.data
from ray.data import DataContext

from brats.cluster.attempts import start_counter
from brats.cluster.datasets import (
    NO_PROGRESS_CASES_S,
    configure_datasets,
    from_cases,
    root_cause,
    rows_of,
    run_cases,
)
from brats.cluster.per_case import ray_step
from brats.data.rejects import Reject
from brats.errors import BratsError, CaseError, StorageError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]


def one_in_four(value: int) -> int:
    """Refuses 1, cannot store 2."""
    if value == 1:
        raise CaseError("", "one is refused")
    if value == 2:
        raise StorageError("two: disk full")
    return value


def run(n_cases: int, take: Any) -> None:
    dataset = from_cases({f"case_{number}": number for number in range(n_cases)}).map(
        ray_step(one_in_four, counter=start_counter(), doing="reading", stage="read"), num_cpus=0.5
    )
    run_cases(dataset, "read", n_cases, take)


def test_every_case_is_a_block_of_its_own_so_that_a_lost_process_costs_one() -> None:
    assert from_cases({"a": 1, "b": 2, "c": 3}).num_blocks() == 3


def test_outcomes_are_values_and_rejects_by_case_id(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes: dict[str, Any] = {}
    run(2, lambda case_id, outcome: outcomes.update({case_id: outcome}))
    assert outcomes == {
        "case_0": 0,
        "case_1": Reject(case_id="case_1", path="", stage="read", reason="one is refused"),
    }
    assert "read     2/2 cases" in capsys.readouterr().out


def test_failure_is_raised_after_all_the_other_cases() -> None:
    taken: list[str] = []
    with pytest.raises(StorageError, match=r"^two: disk full$"):
        run(8, lambda case_id, _: taken.append(case_id))
    assert sorted(taken) == [f"case_{number}" for number in range(8) if number != 2]


def test_failure_to_store_an_outcome_here_waits_for_the_others_too() -> None:
    taken: list[str] = []

    def take(case_id: str, outcome: Any) -> None:
        taken.append(case_id)
        if isinstance(outcome, Reject):
            raise StorageError("the part cannot be written")

    with pytest.raises(StorageError, match="the part cannot be written"):
        run(2, take)
    assert sorted(taken) == ["case_0", "case_1"]


def test_error_in_a_task_reaches_the_user_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    def fail_on_three(row: dict[str, int]) -> dict[str, int]:
        if row["id"] == 3:
            raise ZeroDivisionError("three is bad")
        return row

    dataset = ray.data.range(5, override_num_blocks=5).map(fail_on_three)
    with pytest.raises(BratsError, match=r"^ZeroDivisionError: three is bad$"):
        list(rows_of(dataset))
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


def test_datasets_print_nothing_and_may_stand_still_as_long_as_machines_are_waited_for() -> None:
    before = DataContext.get_current()
    DataContext._set_current(before.copy())
    try:
        for wait_minutes, expected_s in ((0, NO_PROGRESS_CASES_S), (30, 1800)):
            configure_datasets(wait_minutes)
            context = DataContext.get_current()
            assert not context.enable_progress_bars
            assert not context.print_on_execution_start
            assert context.execution_no_progress_timeout_s == expected_s
    finally:
        DataContext._set_current(before)


def test_root_cause_is_the_innermost_reason_in_one_line() -> None:
    error = RuntimeError("wrapped")
    error.__cause__ = ValueError("two\nlines")
    assert root_cause(error) == "ValueError: lines"


def test_root_cause_is_read_from_the_traceback_that_ray_carries_as_text() -> None:
    traceback = "Traceback ...\nbrats.errors.StorageError: a.b: disk full"
    text = f"{traceback}\n\nThe above exception was the direct cause of the following exception: ..."
    assert root_cause(RuntimeError(text)) == "a.b: disk full"


def test_root_cause_is_our_own_error_where_there_is_one_for_it_names_the_path() -> None:
    link = "\n\nThe above exception was the direct cause of the following exception:\n\nTraceback ...\n"
    text = (
        f"OSError: bad header{link}brats.errors.StorageError: a.b: cannot read{link}UserCodeException: UDF failed"
    )
    assert root_cause(RuntimeError(text)) == "a.b: cannot read"
    error = StorageError("a.b: cannot write")
    error.__cause__ = OSError("bad")
    assert root_cause(error) == "a.b: cannot write"
