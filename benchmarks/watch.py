"""A command watched while it runs: wall time, CPU seconds and memory of it and of every process it starts."""

import contextlib
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from benchmarks.harness import BenchmarkError
from benchmarks.sources import job_environment

LOOK_EVERY_S = 0.2
WEIGH_EVERY_S = 1.0  # the kernel adds up a process's pages each time


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a command took, its children included.

    cpu_s:          user and system time; what a process does after it was last looked at is missed
    peak_memory_mb: the most at one time, pages that processes share counted once (PSS)
    """

    wall_s: float
    cpu_s: float
    peak_memory_mb: float


def watch(command: Sequence[str], on_line: Callable[[float, str], None] = lambda _s, _line: None) -> Usage:
    """Run a command to its end. Raises BenchmarkError when it fails.

    on_line: called, after the run, with each line of standard output and the seconds from the start to it
    """
    started = time.monotonic()
    cpu_s: dict[tuple[int, float], float] = {}
    peak, weighed = 0.0, 0.0
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env={**job_environment(), "PYTHONUNBUFFERED": "1"}
        )
        assert process.stdout is not None
        lines = _Lines(process.stdout.fileno(), started)
        root = psutil.Process(process.pid)
        while process.poll() is None:
            tree = _tree(root)
            for member in tree:
                with contextlib.suppress(psutil.Error):
                    times = member.cpu_times()
                    cpu_s[member.pid, member.create_time()] = times.user + times.system
            if time.monotonic() - weighed > WEIGH_EVERY_S:
                peak, weighed = max(peak, sum(map(_memory_mb, tree))), time.monotonic()
            lines.wait(LOOK_EVERY_S)
        wall_s = time.monotonic() - started
        lines.wait(0)
        process.stdout.close()
        if process.returncode:
            errors.seek(0)
            last = errors.read().strip().splitlines() or ["no further word"]
            raise BenchmarkError(f"{os.path.basename(command[1])} ended with {process.returncode}: {last[-1]}")
    for seconds, line in lines.found:
        on_line(seconds, line)
    return Usage(wall_s=wall_s, cpu_s=sum(cpu_s.values()), peak_memory_mb=peak)


class _Lines:
    """The lines that come out of a pipe, with the times at which they came."""

    def __init__(self, descriptor: int, started: float) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor, self._started, self._rest = descriptor, started, b""
        self.found: list[tuple[float, str]] = []

    def wait(self, seconds: float) -> None:
        """Take what comes within this time; return as soon as something came."""
        if not select.select([self._descriptor], [], [], seconds)[0]:
            return
        content = os.read(self._descriptor, 2**16)
        if not content:  # closed: the process is about to end
            time.sleep(min(seconds, 0.05))
            return
        *whole, self._rest = (self._rest + content).split(b"\n")
        now = time.monotonic() - self._started
        self.found += [(now, line.decode(errors="replace")) for line in whole]


def _tree(root: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return [root, *root.children(recursive=True)]
    return []


def _memory_mb(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        return float(process.memory_full_info().pss) / 2**20
    return 0.0
