"""What the user sees: how far a stage is, and none of Ray's noise, which goes to Ray's own log files."""

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

PROGRESS_EVERY_S = 10.0
NATIVE_LOG_LINE = re.compile(
    rb"\[\d{4}-\d\d-\d\d [\d:,]+ [IWEC] \d+ \d+\] "
)  # [2026-01-31 10:20:30,400 W 17 42] a.cc:5:


class Progress:
    """One calm line that says how far a stage is: rewritten on a terminal, every ten seconds elsewhere."""

    def __init__(self, stage: str, total: int, unit: str) -> None:
        self._stage, self._total, self._unit = stage, total, unit
        self._done, self._started = 0, time.monotonic()
        self._shown = self._started
        self._terminal = sys.stdout.isatty()

    def advance(self) -> None:
        self._done += 1
        now = time.monotonic()
        last = self._done == self._total
        if not last and now - self._shown < (0.2 if self._terminal else PROGRESS_EVERY_S):
            return
        self._shown = now
        elapsed = now - self._started
        left = elapsed / self._done * (self._total - self._done)
        timing = f"{duration(elapsed)}" if last else f"{duration(left)} left"
        line = f"{self._stage:<8} {self._done}/{self._total} {self._unit}, {timing}"
        print(
            f"\r{line:<78}" if self._terminal else line,
            end="\n" if last or not self._terminal else "",
            flush=True,
        )


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes: `3:07 min`, `2:15 h`."""
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def say(stage: str, message: str) -> None:
    """Tell the user what happens, in the same columns as `Progress`."""
    print(f"{stage:<8} {message}", flush=True)


def keep_off_console(*names: str) -> None:
    """Let these loggers write to their files only; what goes wrong is said by us, in one line."""
    for name in names:
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.CRITICAL)


@contextmanager
def relayed(show: Callable[[Any], None]) -> Iterator[Any]:
    """A queue whose items, none of them None, put by any process of the cluster, are shown here as they come."""
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # On this machine: any other may be lost, and the workers that use the queue with it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})

    def drain() -> None:
        with suppress(ray.exceptions.RayError):  # the queue is lost with its machine, which is this one
            while (item := queue.get()) is not None:
                show(item)

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        with suppress(ray.exceptions.RayError):
            queue.put(None)  # the end
        thread.join(timeout=10)
        queue.shutdown(force=True)


@contextmanager
def calm() -> Iterator[None]:
    """Keep the log of Ray's native core off the console: it writes past Python, straight to descriptor 2."""
    console = os.dup(2)
    incoming, outgoing = os.pipe()
    os.dup2(outgoing, 2)
    os.close(outgoing)

    def drain() -> None:
        with os.fdopen(incoming, "rb") as lines:
            for line in lines:
                if not NATIVE_LOG_LINE.match(line):
                    os.write(console, line)

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(console, 2)
        thread.join(timeout=2)  # a process that was started inside may still hold the pipe
