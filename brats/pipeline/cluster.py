"""Connect to Ray, and choose workers and devices.

`RAY_ADDRESS` names a cluster; without it Ray is embedded in this process and ends with it.
"""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from brats.config import Device
from brats.errors import BratsError, ConfigError, StorageError
from brats.pipeline.console import Progress, keep_off_console

# Ray reads these when it is imported or when its processes start; what the user has set stays as it is.
QUIET = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
NO_PROGRESS_TIMEOUT_S = 600  # a dataset that stands still this long ends the job instead of hanging


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
    keep_off_console("ray", "ray.data", "ray.train")
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
    cpu_workers: workers on CPUs where none are asked for, 0 for one per CPU

    Workers reserve half a CPU when there are not more CPUs than workers, so that the tasks which feed them can
    be placed too. Raises ConfigError when more GPUs are asked for than there are.
    """
    import ray

    resources = ray.cluster_resources()
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if device == "cuda" and not gpus:
        raise ConfigError(
            "--device: cuda, but Ray sees no GPU; use --device cpu or start Ray on a machine with one"
        )
    use_gpu = device != "cpu" and gpus > 0
    if use_gpu and wanted > gpus:
        raise ConfigError(f"--workers: {wanted}, but Ray sees {gpus} GPU{'s' if gpus > 1 else ''}")
    workers = wanted or (gpus if use_gpu else cpu_workers or cpus)
    share = 1.0 if cpus > workers else 0.5
    if workers * share >= cpus:
        raise ConfigError(f"--workers: {workers} workers leave none of Ray's {cpus} CPUs to feed them; use fewer")
    cores = len(os.sched_getaffinity(0))
    return Placement(
        workers=workers, use_gpu=use_gpu, cpus=share, threads=0 if use_gpu else max(1, cores // workers)
    )


def rows_of(dataset: Any) -> Iterable[dict[str, Any]]:
    """The rows of a Ray dataset as they are done; errors of its tasks as our own, in one line."""
    import ray
    from ray.data.exceptions import ExecutionTimeoutError

    try:
        yield from dataset.iter_rows()
    except (ray.exceptions.RayError, ExecutionTimeoutError) as error:
        raise BratsError(root_cause(error)) from error


def case_statuses(dataset: Any, stage: str, n_cases: int) -> Iterator[dict[str, Any]]:
    """The rows of a dataset with one status per case, as they are done, with the progress shown.

    Raises StorageError, after all the cases, with the first `failure` that a status names.
    """
    progress = Progress(stage, n_cases, "cases")
    failure = ""
    for status in rows_of(dataset):
        progress.advance()
        failure = failure or status["failure"]
        yield status
    if failure:
        raise StorageError(failure)


def root_cause(error: BaseException) -> str:
    """The innermost reason of an error that passed through Ray, in one line: `ValueError: the message`.

    Ray carries the error of a task as the text of its traceback, innermost first.
    """
    innermost, chained, _ = str(error).partition("\n\nThe above exception was the direct cause")
    if chained:
        return re.sub(r"^[\w.]+\.(?=\w+: )", "", innermost.strip().splitlines()[-1])
    while (inner := getattr(error, "cause", None) or error.__cause__) is not None:
        error = inner
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[-1] if text else 'no further word'}"
