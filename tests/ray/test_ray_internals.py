"""What is used of Ray beyond its public interface, against a live Ray."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import ray
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from brats.cluster.ray_internals import (
    SCHEDULING_PAUSE_S,
    Throttle,
    bootstrap_config,
    free_resources,
    submitted_env_vars,
    throttle,
    worker_error,
)

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]

PATIENCE_S = 60.0


def test_message_of_a_live_ray_is_printed_as_one_line_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(ray.remote(num_cpus=0.5, max_retries=0)(die).remote())
    deadline, printed = time.monotonic() + PATIENCE_S, ""
    while "a process died" not in printed and time.monotonic() < deadline:  # Ray pushes it from another thread
        time.sleep(0.1)
        printed += capsys.readouterr().out
    assert printed.startswith("ray      a process died (pid ")
    assert printed.endswith("; what it was doing is done again\n")
    assert printed.count("\n") == 1


def test_free_resources_are_those_of_each_machine() -> None:
    (node,) = ray.nodes()
    free = free_resources()
    assert free.keys() == {node["NodeID"]}
    assert 0 <= free[node["NodeID"]].get("CPU", 0) <= node["Resources"]["CPU"]


def test_variables_of_a_submitted_job_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert submitted_env_vars() == set()
    submitted = {"runtime_env": {"env_vars": {"AWS_REGION": "eu-west-1"}}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(submitted))
    assert submitted_env_vars() == {"AWS_REGION"}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": None}))
    assert submitted_env_vars() == set()


@pytest.mark.parametrize(
    ("content", "config"),
    [(None, None), ("", None), ("[1, 2]", None), ("a: b: c", None), ("max_workers: 1", {"max_workers": 1})],
)
def test_configuration_of_the_autoscaler_is_that_on_the_head(
    content: str | None, config: dict[str, int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if content is not None:
        (tmp_path / "ray_bootstrap_config.yaml").write_text(content)
    assert bootstrap_config() == config


def test_throttle_has_the_methods_of_ray_s_callback_and_no_more() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(Throttle) == public(ExecutionCallback)


def test_throttled_dataset_pauses_at_each_turn_of_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = time.sleep

    def counted_sleep(seconds: float) -> None:
        pauses.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", counted_sleep)
    dataset = ray.data.from_items([{"id": number} for number in range(3)]).map(lambda row: row, num_cpus=0.5)
    throttle(dataset)
    assert len(list(dataset.iter_rows())) == 3
    assert SCHEDULING_PAUSE_S in pauses


def test_error_of_a_worker_that_does_not_answer_is_the_one_inside() -> None:
    reason = ray.exceptions.ActorDiedError()
    assert worker_error(WorkerHealthCheckFailedError("no answer", reason)) is reason
    assert worker_error(reason) is reason
