"""Connecting to Ray: addresses that are refused, and what Ray's errors at the start become."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import ray
from ray.exceptions import AuthenticationError

from brats.cluster import connect as cluster
from brats.cluster.connect import check_reachable, explain_start, local_cpus
from brats.errors import BratsError, ConfigError
from tests.support import ROOT


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
    with pytest.raises(ConfigError, match="ray job submit --address http://HEAD:8265"):
        check_reachable("http://127.0.0.1:8265")


def test_auto_without_a_ray_on_this_machine_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise ConnectionError("Could not find any running Ray instance")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(ConfigError, match=r"^RAY_ADDRESS=auto: no Ray runs on this machine"):
        cluster.init("auto")


def test_address_where_somebody_listens_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_reachable(f"127.0.0.1:{server.getsockname()[1]}")


VERSIONS = """Version mismatch: The cluster was started with:
    Ray: 2.59.0
    Python: 3.12.1
This process on node was started with:
    Ray: 2.60.0
    Python: 3.11.7
"""


@pytest.mark.parametrize(
    ("raised", "message", "kind"),
    [
        (
            RuntimeError(VERSIONS),
            "the cluster runs Ray 2.59.0 on Python 3.12.1, but this process Ray 2.60.0",
            ConfigError,
        ),
        (AuthenticationError("no token"), "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH", ConfigError),
        (
            ConnectionError("refused"),
            "that RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN is the token of this",
            ConfigError,
        ),
        (SystemExit(15), "answers there, but refuses this process", ConfigError),  # what Ray does after two minutes
        (Exception("The current node timed out"), "Ray did not start: Exception: The current node", BratsError),
    ],
)
def test_cluster_that_refuses_this_process_is_explained_in_one_line(
    raised: BaseException, message: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise raised

    monkeypatch.setattr(ray, "init", fail)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(kind) as caught:
        cluster.init(f"127.0.0.1:{server.getsockname()[1]}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raised", [TypeError("unexpected keyword argument"), KeyError("node")], ids=repr)
def test_a_bug_behind_ray_s_start_is_not_masked(raised: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise raised

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(type(raised)) as caught:
        cluster.init("auto")
    assert caught.value is raised


def test_a_bare_exception_of_ray_s_start_is_explained_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise Exception("The current node timed out\nduring startup")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(
        BratsError, match=r"^Ray did not start: Exception: during startup; run the same command again$"
    ):
        cluster.init("auto")


def test_variable_submitted_for_the_workers_is_not_set_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray refuses to merge two values of one variable."""
    passed: dict[str, dict[str, str]] = {}
    monkeypatch.setattr("ray.init", lambda **options: passed.update(options["runtime_env"]))
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    submitted = {"runtime_env": {"env_vars": {"MALLOC_ARENA_MAX": "4"}}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(submitted))
    cluster.init("auto")
    assert passed["env_vars"]["AWS_REGION"] == "eu-west-1"
    assert "MALLOC_ARENA_MAX" not in passed["env_vars"]


def test_folder_that_fails_ray_s_start_is_one_line_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/r")
    with pytest.raises(
        BratsError, match=r"^Ray did not start: OSError: .*No space left.* in /tmp/r: set RAY_TMPDIR"
    ):
        cluster.init("local")


@pytest.mark.ray
def test_ray_starts_where_tmpdir_is_longer_than_its_sockets_allow(tmp_path: Path) -> None:
    """A job of its own; it looks at its folders once Ray runs."""
    long = tmp_path / ("x" * 120)
    long.mkdir()
    (tmp_path / "cases").mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_TMPDIR", "RAY_ADDRESS")}
    command = [sys.executable, str(ROOT / "jobs" / "evaluate.py"), "--predictions", str(tmp_path / "cases")]
    done = subprocess.run(
        [*command, "--references", str(tmp_path / "cases"), "--out", str(tmp_path / "out")],
        env={**environment, "TMPDIR": str(long)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, f"evaluate.py: {tmp_path}/cases: the folder is empty\n")
    assert list(long.rglob("session*")) == []


def test_job_stopped_while_the_embedded_ray_starts_says_so() -> None:
    explained = explain_start(SystemExit(15), "local")
    assert isinstance(explained, BratsError)
    assert str(explained) == "stopped while Ray started; the same command keeps what is finished and does the rest"


class ImportingThread:
    """Stands for a thread: what is done with it."""

    def __init__(self, **_: object) -> None:
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def join(self) -> None:
        self.calls.append("join")


def test_in_a_process_that_is_connected_the_modules_are_imported_before_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    thread = ImportingThread()
    monkeypatch.setattr(threading, "Thread", lambda **_: thread)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(cluster, "configure_datasets", lambda _: None)
    for name in (*cluster.QUIET, *cluster.COMPUTE):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    with cluster.connected(["json"]):
        assert thread.calls == ["start", "join"]


def test_at_least_two_cpus_are_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert local_cpus() == 2


@pytest.mark.ray
@pytest.mark.usefixtures("embedded_ray")
def test_modules_are_imported_whole_where_ray_runs_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large_module.py").write_text("TOTAL = sum(range(10_000_000))")
    monkeypatch.syspath_prepend(tmp_path)
    with cluster.connected(["large_module"]):
        assert sys.modules["large_module"].TOTAL == 49_999_995_000_000
