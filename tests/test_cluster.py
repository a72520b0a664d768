"""Choosing workers, and errors that pass through Ray."""

import os
import socket

import pytest

from brats.errors import BratsError, ConfigError
from brats.pipeline.cluster import check_reachable, local_cpus, root_cause, rows_of


def test_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but not listening
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"^RAY_ADDRESS={address}: no Ray answers there .*unset RAY_ADDRESS"):
            check_reachable(address)


def test_address_without_a_port_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^RAY_ADDRESS=head: no Ray answers there"):
        check_reachable("head")


def test_address_of_the_dashboard_is_told_from_the_cluster_s_own() -> None:
    with pytest.raises(ConfigError, match=r"ray job submit --address http://127\.0\.0\.1:8265"):
        check_reachable("http://127.0.0.1:8265")


def test_address_where_somebody_listens_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_reachable(f"127.0.0.1:{server.getsockname()[1]}")


def test_at_least_two_cpus_are_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert local_cpus() == 2


def test_root_cause_is_the_innermost_reason_in_one_line() -> None:
    error = RuntimeError("wrapped")
    error.__cause__ = ValueError("two\nlines")
    assert root_cause(error) == "ValueError: lines"


def test_root_cause_is_read_from_the_traceback_that_ray_carries_as_text() -> None:
    traceback = "Traceback ...\nbrats.errors.StorageError: a.b: disk full"
    text = f"{traceback}\n\nThe above exception was the direct cause of the following exception: ..."
    assert root_cause(RuntimeError(text)) == "StorageError: a.b: disk full"


@pytest.mark.ray
@pytest.mark.usefixtures("embedded_ray")
def test_error_in_a_task_reaches_the_user_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    import ray.data

    def fail_on_three(row: dict[str, int]) -> dict[str, int]:
        if row["id"] == 3:
            raise ZeroDivisionError("three is bad")
        return row

    dataset = ray.data.range(5, override_num_blocks=5).map(fail_on_three)
    with pytest.raises(BratsError, match=r"^ZeroDivisionError: three is bad$"):
        list(rows_of(dataset))
    said = capfd.readouterr()
    assert said.out == said.err == ""
