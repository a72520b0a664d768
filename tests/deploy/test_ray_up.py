"""The lines of the README on two hosts: `ray up cluster-local.yaml`, `ray job submit` by the tunnel, `ray down`."""

import functools
import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.support import ROOT
from tests.support.ray_cli import (
    RAY,
    asked,
    await_true,
    checkout,
    finish,
    free_port,
    job_log,
    job_status,
    nodes_of_tasks,
    python_without_brats,
    ray,
    submission,
    user,
)
from tests.support.synthetic import write_cases
from tests.support.training import OPTIONS
from tests.support.two_hosts import Host, TwoHosts, ssh, two_hosts, why_not

REASON = why_not()
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up, the user who started it, and the tunnel to its dashboard."""

    hosts: tuple[Host, Host]
    key_file: Path
    env: dict[str, str]
    address: str
    checkout: Path
    shared: Path


def edited(hosts: TwoHosts, python: Path, shared: Path) -> dict[str, Any]:
    """cluster-local.yaml with its marked block filled in, as a user does, before YAML's references are resolved.

    Only the installation differs: the environment is linked instead of filled with gigabytes from a registry.
    """
    head, worker = hosts.hosts
    text = (ROOT / "cluster-local.yaml").read_text()
    for there, here in {
        "192.168.1.10": head.address,
        "192.168.1.11": worker.address,
        "&user brats": "&user root",
        "~/.ssh/id_ed25519": str(hosts.key_file),
        "/shared/BraTS2021": f"{shared}/cases",
        "/shared/runs": f"{shared}/runs",
    }.items():
        assert text.count(there) == 1, f"{there} is written more than once"
        text = text.replace(there, here)
    config: dict[str, Any] = yaml.safe_load(text)
    commands = config["setup_commands"]
    install = [command for command in commands if "pip" in command]
    assert commands[-len(install) :] == install
    config["setup_commands"] = [*commands[: -len(install)], f"ln -sfn {python} ~/venv"]
    return config


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    root = tmp_path_factory.mktemp("up")
    env = user(root / "laptop", TMPDIR=str(root / "laptop"))  # where `ray up` remembers a cluster
    (root / "laptop").mkdir()
    tree = checkout(root / "checkout")
    write_cases(root / "shared" / "cases", 14, shape=(32, 30, 14))
    python = python_without_brats(root / "python")
    with two_hosts(root) as hosts:
        assert ray("get-auth-token", "--generate", env=env).returncode == 0
        config = tree / "cluster-local.yaml"
        config.write_text(yaml.safe_dump(edited(hosts, python, root / "shared")))
        started = time.monotonic()
        up = ray("up", "-y", str(config), env=env, cwd=tree)
        assert up.returncode == 0, up.stdout + up.stderr
        print(f"ray up: {time.monotonic() - started:.0f} s")
        port = free_port()
        tunnel = subprocess.Popen(
            [RAY, "dashboard", str(config), "-p", str(port)],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        address = f"http://127.0.0.1:{port}"
        env = {**env, "RAY_API_SERVER_ADDRESS": address}
        try:
            await_true(lambda: n_nodes(env) == 2, 120, "two nodes")
            yield Cluster(hosts.hosts, hosts.key_file, env, address, tree, root / "shared")
            down = ray("down", "-y", str(config), env=env, cwd=tree)
            assert down.returncode == 0, down.stdout + down.stderr
            for host in hosts.hosts:
                await_true(functools.partial(ray_is_gone, host, hosts.key_file), 60, f"Ray gone from {host.name}")
        finally:
            tunnel.terminate()
            tunnel.wait()


def n_nodes(env: dict[str, str]) -> int:
    return json.dumps(asked("/api/v0/nodes", env)).count('"ALIVE"')


def ray_is_gone(host: Host, key_file: Path) -> bool:
    """True when pgrep finds no raylet (status 1), not when SSH fails (255)."""
    return ssh(host, key_file, "pgrep -f raylet/raylet").returncode == 1


def test_training_runs_on_both_hosts_and_leaves_its_results_on_shared_storage(cluster: Cluster) -> None:
    """No path is given: BRATS_DATA and BRATS_STORAGE of the cluster's settings reach the job."""
    started = time.monotonic()
    command = submission("jobs/train.py", *OPTIONS, "--epochs", "2", job="training")
    done = finish(command, env=cluster.env, cwd=cluster.checkout)
    print(f"submitted training: {time.monotonic() - started:.0f} s")
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert job_status("training", cluster.env) == "succeeded"
    assert "epoch 2/2" in done.stdout
    run = cluster.shared / "runs" / "brats"
    assert list(pd.read_parquet(run / "history.parquet").epoch) == [1, 2]
    assert (run / "model" / "model.safetensors").exists()
    tested = set(pd.read_parquet(run / "test" / "metrics" / "cases.parquet").case_id)
    assert tested == {path.stem for path in (run / "test" / "masks").iterdir()}
    nodes = nodes_of_tasks(cluster.address, cluster.env)
    for name in ("Map(prepare_case)", "RayTrainWorker"):
        assert len(nodes[name]) == 2, f"{name} ran on {nodes[name]} only"


def test_folder_that_the_hosts_do_not_share_is_refused_as_out(cluster: Cluster) -> None:
    """The hosts see the same files but for some folders; each has a /tmp/ray of its own."""
    own, worker = "/tmp/ray/run", cluster.hosts[1]
    command = submission("jobs/prepare.py", "--data", f"{cluster.shared}/cases", "--out", own, job="own-folder")
    done = finish(command, env=cluster.env, cwd=cluster.checkout)
    assert done.returncode == 1, done.stdout + done.stderr
    assert job_status("own-folder", cluster.env) == "failed"
    assert "failed with exit code 2" in done.stdout
    said = rf"^prepare\.py: machine {worker.name}: --out: {own} is not the folder that the job writes to; name "
    log = job_log("own-folder", cluster.env)
    assert re.search(said, log, flags=re.MULTILINE), log
    assert "Traceback" not in log
    assert not list((worker.folder / "ray").glob("run/*"))
