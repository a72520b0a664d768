"""Ray's command line as a user runs it, in processes of their own: submit a job, ask what became of it, stop it.

A `ray` command takes seconds to start. What is asked again and again is asked of the dashboard, as it does.
"""

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.support import BUSY_MACHINE, ROOT

RAY = str(Path(sys.executable).with_name("ray"))
ENDED = ("succeeded", "failed", "stopped")
COMMAND_TIMEOUT_S = 800
PAINT = re.compile(r"\x1b\[\d+m")  # colours


def user(home: Path, **more: str) -> dict[str, str]:
    """The environment of a user with a home folder and an authentication token in it."""
    others = ("RAY_", "BRATS_", "PYTHON", "COVERAGE")  # coverage is measured of no `ray` command
    own = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return {**own, **BUSY_MACHINE, "HOME": str(home), "RAY_TMPDIR": str(home), "RAY_AUTH_MODE": "token", **more}


def ray(*arguments: str, env: dict[str, str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run one `ray` command to its end."""
    return finish([RAY, *arguments], env=env, cwd=cwd)


def finish(command: list[str], *, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=env, cwd=cwd, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
    )


def submission(*entrypoint: str, job: str, wait: bool = True) -> list[str]:
    """The command line that submits a Python command line from the current folder, under a name."""
    options = ["--working-dir", ".", "--submission-id", job, *([] if wait else ["--no-wait"])]
    return [RAY, "job", "submit", *options, "--", "python", *entrypoint]


def job_status(job: str, env: dict[str, str]) -> str:
    """succeeded, failed, stopped, or what Ray says of a job that goes on, such as RUNNING."""
    said = ray("job", "status", job, env=env).stdout
    found = re.search(rf"Job '{job}' (?:was )?(\w+)|Status for job '{job}': (\w+)", PAINT.sub("", said))
    assert found, said
    return str(found[1] or found[2])


def job_log(job: str, env: dict[str, str]) -> str:
    """What the job has printed so far."""
    lines = ray("job", "logs", job, env=env).stdout.splitlines()
    return "\n".join(line for line in lines if "Job submission server address" not in line)


def asked(path: str, env: Mapping[str, str]) -> Any:
    """What the dashboard answers the user with this environment; None where it does not know, or not answer yet."""
    token = (Path(env["HOME"]) / ".ray" / "auth_token").read_text().strip()
    request = urllib.request.Request(
        f"{env['RAY_API_SERVER_ADDRESS']}{path}", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except OSError:  # a status that is not 200 among them
        return None


def status_so_far(job: str, env: Mapping[str, str]) -> str:
    """As `job_status`; "" where the job is not known yet."""
    found = asked(f"/api/jobs/{job}", env)
    return str(found["status"]) if found else ""


def has_ended(job: str, env: Mapping[str, str]) -> bool:
    return status_so_far(job, env).lower() in ENDED


def has_said(part: str, job: str, env: Mapping[str, str]) -> bool:
    """Whether the job has printed this so far."""
    found = asked(f"/api/jobs/{job}/logs", env)
    return found is not None and part in found["logs"]


def await_true(condition: Callable[[], bool], timeout_s: float, what: str, every_s: float = 0.5) -> None:
    """Return as soon as the condition holds; AssertionError with `what` when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(every_s)


def free_port() -> int:
    """A free port outside Ray's worker ports (10002 to 19999) and Linux's ephemeral ones (from 32768)."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


def kill_all_of(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it started."""
    for one in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.kill()
    process.wait()


def checkout(folder: Path) -> Path:
    """A copy of what a user's checkout holds, so that nobody edits it while it is uploaded."""
    folder.mkdir()
    for name in ("brats", "jobs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", ".rayignore", "pyproject.toml", "constraints.txt", "README.md", "Makefile"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def python_without_brats(folder: Path) -> Path:
    """An environment with every package of this one but this project: its `bin` has `python` and `ray`.

    The packages come by a path file; the path files among them, and so the editable project, are not read again.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python3*/site-packages"))
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "packages.pth").write_text(packages + "\n")
    script = folder / "bin" / "ray"
    script.write_text(f"#!{folder}/bin/python\nfrom ray.scripts.scripts import main\nmain()\n")
    script.chmod(0o755)
    found = subprocess.run(
        [folder / "bin" / "python", "-E", "-c", "import brats"], cwd=folder, capture_output=True, check=False
    )
    assert found.returncode, "brats is among the packages themselves; install it editable (make install)"
    return folder


def nodes_of_tasks(address: str, env: dict[str, str]) -> dict[str, set[str]]:
    """The ids of the nodes that ran tasks and actors, by the name of the task or the class of the actor."""
    nodes: dict[str, set[str]] = {}
    for kind, name in (("tasks", "name"), ("actors", "class_name")):
        listed = ray("list", kind, "--address", address, "--limit", "9999", "--detail", "--format", "json", env=env)
        for row in json.loads(listed.stdout):
            if row["node_id"]:
                nodes.setdefault(row[name], set()).add(row["node_id"])
    return nodes
