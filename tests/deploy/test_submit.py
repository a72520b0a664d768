"""`ray job submit` to a running cluster that has nothing of this project installed: logs, ends, uploads."""

import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from tests.support import ROOT
from tests.support.ray_cli import (
    asked,
    await_true,
    checkout,
    finish,
    free_port,
    has_ended,
    has_said,
    job_log,
    job_status,
    kill_all_of,
    python_without_brats,
    ray,
    status_so_far,
    submission,
    user,
)
from tests.support.synthetic import write_cases
from tests.support.training import OPTIONS

MAX_UPLOAD_BYTES = 2e6
START_TIMEOUT_S = 120
EPOCH_TIMEOUT_S = 300


@dataclass(frozen=True)
class Cluster:
    """A running cluster of one node, a user who may submit to it, and where the user's checkout and data are."""

    env: dict[str, str]
    address: str
    checkout: Path
    cases: Path
    runs: Path

    def command(self, job: str, *options: str, out: str = "run", wait: bool = True) -> list[str]:
        paths = ["--data", str(self.cases), "--out", str(self.runs / out)]
        return submission("jobs/train.py", *paths, *OPTIONS, *options, job=job, wait=wait)

    def train(
        self, job: str, *options: str, out: str = "run", wait: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return finish(self.command(job, *options, out=out, wait=wait), env=self.env, cwd=self.checkout)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """`ray start --head` with token authentication, on ports and in a folder of its own."""
    root = tmp_path_factory.mktemp("submit")
    tree = checkout(root / "checkout")
    python = python_without_brats(root / "python")
    (root / "home").mkdir()
    env = user(root / "home", PATH=f"{python}/bin:{os.environ['PATH']}")
    assert ray("get-auth-token", "--generate", env=env).returncode == 0
    write_cases(root / "cases", 14, shape=(32, 30, 14))
    port, own_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, (root / "head.log").open("wb") as log:
        command = [str(python / "bin" / "ray"), "start", "--head", "--block", "--num-cpus=4", "--temp-dir", folder]
        options = {
            "--port": own_port,
            "--dashboard-port": port,
            "--dashboard-agent-listen-port": free_port(),
            "--ray-client-server-port": free_port(),
            "--min-worker-port": 0,
            "--max-worker-port": 0,
        }
        head = subprocess.Popen(
            [*command, *(f"{name}={value}" for name, value in options.items())],
            env=env,
            cwd=root,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        env["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port}"
        try:
            await_true(lambda: asked("/api/version", env) is not None, START_TIMEOUT_S, "the dashboard")
            await_true(
                lambda: ray("job", "submit", "--", "true", env=env).returncode == 0, START_TIMEOUT_S, "a job", 1
            )
            yield Cluster(env, f"127.0.0.1:{own_port}", tree, root / "cases", root / "runs")
        finally:
            kill_all_of(head)  # asked to end, it takes half a minute


@pytest.mark.ray
def test_submit_waits_and_ends_with_0_when_the_job_is_done(cluster: Cluster) -> None:
    done = finish(submission("jobs/evaluate.py", "--help", job="help"), env=cluster.env, cwd=cluster.checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--predictions" in done.stdout


@pytest.mark.ray
def test_failed_job_ends_with_1_and_one_line_of_ours(cluster: Cluster) -> None:
    done = cluster.train("wrong", "--fold", "99")
    assert done.returncode == 1
    assert job_status("wrong", cluster.env) == "failed"
    log = job_log("wrong", cluster.env)
    assert re.search(r"^train\.py: .*", log, flags=re.MULTILINE), log
    assert "Traceback" not in log


@pytest.mark.ray
@pytest.mark.parametrize("token", ["wrong", "missing"])
def test_cluster_refuses_who_lacks_its_token_and_the_job_says_which_setting_to_change(
    cluster: Cluster, tmp_path: Path, token: str
) -> None:
    """Not submitted, but connected to the cluster by RAY_ADDRESS. Ray asks with a wrong token for 20 s."""
    env = user(tmp_path, RAY_ADDRESS=cluster.address)
    if token == "wrong":
        assert ray("get-auth-token", "--generate", env=env).returncode == 0
    paths = ["--data", str(cluster.cases), "--out", str(tmp_path / "prepared")]
    done = finish([sys.executable, "jobs/prepare.py", *paths], env=env, cwd=ROOT)
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.fullmatch(rf"prepare\.py: RAY_ADDRESS={cluster.address}: .*RAY_AUTH_TOKEN_PATH.*\n", done.stderr)
    assert done.stdout == ""
    assert not (tmp_path / "prepared" / "cases.parquet").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_training_survives_ctrl_c_at_the_log_and_goes_on_after_a_stop_in_a_calm_log(cluster: Cluster) -> None:
    """Ctrl-C at `ray job submit` ends the showing of the log; `ray job stop` ends the job, which then resumes."""
    started = time.monotonic()
    out = cluster.runs / "stopped"
    options = ("--patience", "40", "--no-predict", "--epochs")
    command = cluster.command("long", *options, "40", out="stopped")
    watching = subprocess.Popen(command, env=cluster.env, cwd=cluster.checkout, stdout=subprocess.DEVNULL)
    await_true(lambda: watching.poll() is None and running("long", cluster.env), 120, "a running job")
    watching.send_signal(signal.SIGINT)
    watching.wait(timeout=60)
    await_true(lambda: has_said("epoch 1/40", "long", cluster.env), EPOCH_TIMEOUT_S, "the first epoch")
    print(f"submit to first epoch: {time.monotonic() - started:.0f} s")
    await_true(lambda: has_said("epoch 2/40", "long", cluster.env), EPOCH_TIMEOUT_S, "the second epoch")
    assert_calm(job_log("long", cluster.env))
    assert ray("job", "stop", "long", env=cluster.env).returncode == 0
    await_true(lambda: has_ended("long", cluster.env), 60, "the end")
    assert job_status("long", cluster.env) == "stopped"
    before = list(pd.read_parquet(out / "history.parquet").epoch)
    assert before == list(range(1, len(before) + 1))
    done = cluster.train("again", *options, str(len(before) + 1), out="stopped")
    assert done.returncode == 0, done.stdout
    assert f"resuming after epoch {len(before)}" in done.stdout
    assert list(pd.read_parquet(out / "history.parquet").epoch) == list(range(1, len(before) + 2))
    assert job_status("again", cluster.env) == "succeeded"
    assert_calm(job_log("again", cluster.env))


def assert_calm(log: str) -> None:
    """No line but those of the console, and two of Ray's."""
    ours = re.compile(
        r"(prepare|prepared|train|tune|predict|model|history|figures|report|cluster|workers?|storage|  coding) "
    )
    rays = re.compile(r".*Runtime env is setting up\.|Running entrypoint for job \w+: python jobs/train\.py ")
    strange = [line for line in log.splitlines() if line.strip() and not ours.match(line) and not rays.match(line)]
    assert strange == [], log


@pytest.mark.ray
def test_submit_ends_with_0_for_a_job_that_was_stopped_and_its_status_says_so(cluster: Cluster) -> None:
    """Ray's doing, which docs/cluster.md warns of: should it change, that page must."""
    command = submission("-m", "http.server", "0", job="brief")  # any that does not end by itself
    watching = subprocess.Popen(command, env=cluster.env, cwd=cluster.checkout, stdout=subprocess.DEVNULL)
    await_true(lambda: running("brief", cluster.env), 120, "a running job")
    assert ray("job", "stop", "brief", env=cluster.env).returncode == 0
    assert watching.wait(timeout=60) == 0
    assert job_status("brief", cluster.env) == "stopped"


def running(job: str, env: dict[str, str]) -> bool:
    return status_so_far(job, env) == "RUNNING"


def packaged(folder: Path, archive: Path) -> list[str]:
    """The files that `ray job submit --working-dir` packs."""
    from ray._private.runtime_env.packaging import create_package

    create_package(str(folder), archive, include_gitignore=True, logger=logging.getLogger("test"))
    with zipfile.ZipFile(archive) as zipped:
        return zipped.namelist()


def test_only_the_jobs_and_the_library_are_uploaded(tmp_path: Path) -> None:
    tree = checkout(tmp_path / "checkout")
    ours = {
        f"{name}/{path.relative_to(tree / name)}"
        for name in ("brats", "jobs")
        for path in (tree / name).rglob("*")
        if path.is_file()
    }
    assert "brats/report/assets/viewer.js" in ours
    for clutter in (
        ".venv/lib/torch.so",
        ".git/objects/pack",
        "runs/demo/model/model.safetensors",
        "data/case/case_t1.nii.gz",
        "prepared/slices/case.parquet",
        "brats/__pycache__/cli.pyc",
        "notes.txt",
    ):
        path = tree / clutter
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(3_000_000))
    archive = tmp_path / "package.zip"
    assert set(packaged(tree, archive)) == ours
    assert archive.stat().st_size < MAX_UPLOAD_BYTES
