"""A cluster of several machines on this one, jobs as processes of their own, and the means to kill either.

The machines are raylets of `ray.cluster_utils.Cluster`: removing one kills its raylet and so all its workers, as a
spot machine that vanishes does. The head runs no tasks, as in cluster.yaml.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support import ROOT

OBJECT_STORE_BYTES = 100 * 2**20  # of each machine: the least that Ray is happy with
SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    # Ray asks each machine every 3 s, and gives it up after 5 failures: 15 s of waiting for each one removed.
    # One that is only slow still has its 10 s for each answer.
    "RAY_health_check_period_ms": "500",
    "RAY_raylet_start_wait_time_s": "120",  # Ray's own 30 are too few where other work is done beside the tests
}
PATIENCE_S = 400.0  # for anything that is waited for: these machines are slow when tests run side by side
POLL_S = 0.02

T = TypeVar("T")


def wait_for(look: Callable[[], T], what: str) -> T:
    """What `look` returns as soon as it is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:.0f} s for {what}"
        time.sleep(POLL_S)
    return found


class Machines:
    """A Ray cluster: a head without CPUs, and machines that come and go."""

    def __init__(self, n_machines: int = 2, cpus: int = 2) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
            },
        )
        self._cpus = cpus
        self.address = str(self._cluster.address)
        for _ in range(n_machines):
            self.add()

    @property
    def nodes(self) -> list[Any]:
        return list(self._cluster.worker_nodes)

    def add(self, **node: Any) -> Any:
        """Start one more machine."""
        return self._cluster.add_node(**{"num_cpus": self._cpus, "object_store_memory": OBJECT_STORE_BYTES, **node})

    def keep(self, n_machines: int) -> None:
        """Add machines until there are so many again."""
        while len(self.nodes) < n_machines:
            self.add()

    def remove(self, node: Any) -> None:
        """Kill a machine with all that runs on it, without notice."""
        self._cluster.remove_node(node, allow_graceful=False)

    def workers(self, name: str, node: Any = None) -> list[psutil.Process]:
        """The worker processes whose title begins with `ray::` and this name, of one machine or of all."""
        nodes = self.nodes if node is None else [node]
        raylets = [psutil.Process(raylet.process.pid) for item in nodes for raylet in item.all_processes["raylet"]]
        return [worker for raylet in raylets for worker in _children(raylet) if _is_called(worker, f"ray::{name}")]

    def node_of(self, worker: psutil.Process) -> Any:
        """The machine that a worker process runs on."""
        parent = worker.ppid()
        return next(node for node in self.nodes if node.all_processes["raylet"][0].process.pid == parent)

    def shutdown(self) -> None:
        self._cluster.shutdown()


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.NoSuchProcess:
        return []


def _is_called(process: psutil.Process, title: str) -> bool:
    try:
        return " ".join(process.cmdline()).startswith(title)
    except psutil.Error:
        return False


@contextmanager
def machines(
    n_machines: int = 2, environment: Mapping[str, str] | None = None, *, cpus: int = 2
) -> Iterator[Machines]:
    """A cluster that is there inside, whose processes have these variables beside those of this one."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SETTINGS, **(environment or {})}.items():
            patch.setenv(name, value)
        cluster = Machines(n_machines, cpus)
        try:
            yield cluster
        finally:
            cluster.shutdown()


class Job:
    """One of jobs/*.py at work on a cluster, in a process of its own; what it says is kept.

    folder: where the script lies, for one that is not a job as it is
    """

    def __init__(
        self,
        name: str,
        options: Sequence[str],
        address: str,
        environment: Mapping[str, str] | None = None,
        folder: Path = ROOT / "jobs",
    ) -> None:
        self._started = time.monotonic()
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, str(folder / f"{name}.py"), *options],
            env={**os.environ, **(environment or {}), "RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            self._lines.extend(lines)

    @property
    def said(self) -> str:
        return "".join(self._lines)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_for(self, look: Callable[[], T], what: str) -> T:
        """What `look` returns as soon as it is true, while the job runs."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := look()):
            assert self.running, f"the job ended before {what}:\n{self.said}"
            assert time.monotonic() < deadline, f"waited {PATIENCE_S:.0f} s for {what}:\n{self.said}"
            time.sleep(POLL_S)
        return found

    def wait_for_line(self, part: str) -> None:
        self.wait_for(lambda: part in self.said, repr(part))

    def stop(self, number: int) -> int:
        """Send the driver a signal; return its exit status."""
        self._process.send_signal(number)
        return self.end()

    def kill(self) -> None:
        """Kill the driver, and it alone."""
        assert self.stop(signal.SIGKILL) == -signal.SIGKILL

    def end(self, patience_s: float = PATIENCE_S) -> int:
        """Wait for the end; return the exit status."""
        try:
            status = self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"still running after {patience_s:.0f} s:\n{self.said}") from None
        self._reader.join(10)
        self.seconds = time.monotonic() - self._started
        return status

    def succeed(self) -> str:
        """Wait for the end, which must be a good one, without a traceback; return what was said."""
        assert self.end() == 0, self.said
        assert "Traceback" not in self.said, self.said
        return self.said


@dataclass(frozen=True)
class Struck:
    """An output folder on which one fault after another struck; of each start, by its fault, what came of it."""

    out: Path
    said: dict[str, str] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    kept: dict[str, dict[str, int]] = field(default_factory=dict)
    """The cases that were done before the start, each with the time at which its file was last changed."""

    def note(self, fault: str, job: Job, status: int) -> None:
        """Keep what came of a start, and print it for the log of the tests."""
        print(f"\n{fault}: {job.seconds:.1f} s, exit status {status}\n{job.said}")
        self.said[fault], self.status[fault] = job.said, status

    @property
    def tracebacks(self) -> list[str]:
        """The faults that left one on the console."""
        return [fault for fault, said in self.said.items() if "Traceback" in said]


class Watcher:
    """Opens every Parquet file that appears below a folder, again and again, as an impatient reader would."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._over = folder, threading.Event()
        self.opened: set[str] = set()
        self.broken: list[str] = []

    def __enter__(self) -> "Watcher":
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.is_set():
            for path in visible(self.folder):
                if path not in self.opened:
                    self._open(path)
            time.sleep(POLL_S)

    def _open(self, path: str) -> None:
        try:
            pq.read_table(path)
        except FileNotFoundError:  # removed since it was listed
            return
        except (OSError, pa.ArrowInvalid) as error:
            self.broken.append(f"{path}: {error}")
        self.opened.add(path)


def modified(folder: Path) -> dict[str, int]:
    """The files in a folder that are not hidden, by the case they are named after: when each was last changed."""
    return {path.stem: path.stat().st_mtime_ns for path in folder.glob("[!.]*")}


def done_before(said: str) -> int:
    """How many cases a start found done."""
    found = re.search(r" (\d+) done before", said)
    assert found, said
    return int(found[1])


def visible(folder: Path) -> list[str]:
    """The Parquet files below a folder that are not hidden."""
    return [str(path) for path in folder.rglob("*.parquet") if not path.name.startswith(".")]


def rows(path: Path | BinaryIO) -> pa.Table:
    """A table without its metadata, which names the paths of the run."""
    return pq.read_table(path).replace_schema_metadata(None)
