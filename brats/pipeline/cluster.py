"""Connect to Ray, choose workers and devices, and keep the console calm.

`RAY_ADDRESS` names a cluster; without it Ray is embedded in this process and ends with it.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from brats.config import Device
from brats.errors import BratsError, ConfigError

# Ray reads these when it is imported or when its processes start; what the user has set stays as it is.
QUIET = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
NO_PROGRESS_TIMEOUT_S = 600  # a dataset that stands still this long ends the job instead of hanging
PROGRESS_EVERY_S = 10.0


@contextmanager
def connected() -> Iterator[None]:
    """Be connected to Ray inside: to the cluster that RAY_ADDRESS names, else to an embedded one."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray
    from ray.data import DataContext

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    local: dict[str, Any] = {} if address else {"num_cpus": local_cpus(), "include_dashboard": False}
    if not address:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # the embedded Ray listens to this machine alone
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except ConnectionError as error:
        raise ConfigError(f"RAY_ADDRESS={address}: no Ray answers there ({error})") from error
    for name in ("ray", "ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = NO_PROGRESS_TIMEOUT_S
    try:
        yield
    finally:
        ray.shutdown()


def local_cpus() -> int:
    """CPUs that the embedded Ray declares: the cores this process may use, and two at least.

    On a single core two CPUs are declared so that a worker and the tasks that feed it can both be placed.
    """
    return max(2, len(os.sched_getaffinity(0)))


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How many workers there are, on what, and with which share of a machine.

    cpus:    Ray CPUs that one worker reserves
    threads: threads that one worker computes with, 0 for as many as its library likes
    """

    workers: int
    use_gpu: bool
    cpus: float
    threads: int

    def __str__(self) -> str:
        kind = "GPU" if self.use_gpu else "CPU"
        return f"{self.workers} {kind} worker{'s' if self.workers != 1 else ''}"


def place_workers(device: Device, wanted: int, *, cpu_workers: int) -> Placement:
    """Choose the workers for a model: one per GPU where Ray has any, else on CPUs.

    wanted:      number of workers asked for, 0 for as many as fit
    cpu_workers: workers on CPUs where none are asked for

    CPU workers reserve half a CPU when there are not more CPUs than workers, so that the tasks which feed them can
    be placed too. Raises ConfigError when more GPUs are asked for than there are.
    """
    import ray

    resources = ray.cluster_resources()
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if device == "cuda" and not gpus:
        raise ConfigError(
            "--device: cuda, but Ray sees no GPU; use --device cpu or start Ray on a machine with one"
        )
    if device != "cpu" and gpus:
        if wanted > gpus:
            raise ConfigError(f"--workers: {wanted}, but Ray sees {gpus} GPU{'s' if gpus > 1 else ''}")
        return Placement(workers=wanted or gpus, use_gpu=True, cpus=1, threads=0)
    workers = wanted or cpu_workers
    share = 1.0 if cpus > workers else 0.5
    if workers * share >= cpus:
        raise ConfigError(
            f"--workers: {workers} CPU workers leave none of Ray's {cpus} CPUs to feed them; use fewer"
        )
    cores = len(os.sched_getaffinity(0))
    return Placement(workers=workers, use_gpu=False, cpus=share, threads=max(1, cores // workers))


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


@contextmanager
def relayed(show: Callable[[Any], None]) -> Iterator[Any]:
    """A queue whose items, put by any process of the cluster, are shown here in the order they come."""
    from ray.util.queue import Empty, Queue

    queue = Queue(actor_options={"num_cpus": 0})
    over = threading.Event()

    def drain() -> None:
        while not (over.is_set() and queue.empty()):
            try:
                show(queue.get(timeout=0.5))
            except Empty:
                continue

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        over.set()
        thread.join(timeout=10)
        queue.shutdown(force=True)


def rows_of(dataset: Any) -> Iterable[dict[str, Any]]:
    """The rows of a Ray dataset as they are done; errors of its tasks as our own, in one line."""
    import ray

    try:
        yield from dataset.iter_rows()
    except ray.exceptions.RayError as error:
        raise BratsError(root_cause(error)) from error


def root_cause(error: BaseException) -> str:
    """The innermost reason of an error that passed through Ray, in one line."""
    while (inner := getattr(error, "cause", None) or error.__cause__) is not None and inner is not error:
        error = inner
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[-1] if text else 'no further word'}"
