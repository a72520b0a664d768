"""Connect to Ray: to the cluster that `RAY_ADDRESS` names, else to one embedded in this process, ending with it."""

import importlib
import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from brats.cluster.datasets import root_cause
from brats.cluster.quiet import keep_off_console, shorten_messages
from brats.cluster.ray_internals import submitted_env_vars
from brats.errors import BratsError, ConfigError

# Ray reads these when it is imported or when its processes start; what the user has set stays as it is.
QUIET = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process more to wait for, whose notices are not used
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",  # a machine that has just started reads torch from a cold disk
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
# How the processes of Ray take memory. What a case or a training step gives back is kept for the next one, not
# returned to the system and cleared anew: a quarter of the time of reading a case, 5 % of training on CPUs.
# With large pages for large tensors, a tenth more of training.
MEMORY = {
    "MALLOC_ARENA_MAX": "1",  # threads take from the arena that keeps it
    "MALLOC_MMAP_THRESHOLD_": str(2**25),  # the most that every glibc takes
    "MALLOC_TRIM_THRESHOLD_": str(2**30),  # what is kept at most
    "THP_MEM_ALLOC_ENABLE": "1",
}
# How to reach the store, without its secrets: Ray shows what is passed to the workers.
FORWARDED = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "BRATS_S3_PATIENCE_S",
)
NETWORK_MODULES = ("torch", "segmentation_models_pytorch")  # take seconds to import
REACH_TIMEOUT_S = 10  # Ray itself tries for two minutes


@contextmanager
def connected(meanwhile: Sequence[str] = ()) -> Iterator[None]:
    """Be connected to Ray inside. SIGTERM, with which Ray stops a submitted job, then acts like Ctrl-C.

    meanwhile: large modules that the job needs later, imported while Ray starts, which is mostly waiting

    Raises ConfigError, naming the setting, when the cluster cannot be reached or refuses this process.
    """
    for name, value in {**QUIET, **MEMORY}.items():
        os.environ.setdefault(name, value)
    importing = threading.Thread(target=_import, args=(meanwhile,), daemon=True)
    importing.start()
    import ray
    from ray.data import DataContext

    if ray.is_initialized():
        yield
        return
    init(os.environ.get("RAY_ADDRESS") or "local")
    importing.join()
    keep_off_console("ray", "ray.data", "ray.train")
    shorten_messages()
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # after ray.init, which installs one of its own
    try:
        yield
    finally:
        ray.shutdown()


def _import(modules: Sequence[str]) -> None:
    for name in modules:
        with suppress(Exception):  # which importing it again, where it is used, raises again
            importlib.import_module(name)


def _interrupt(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise KeyboardInterrupt


def init(address: str) -> None:
    """Connect to the cluster at an address, or start an embedded one for "local"."""
    import ray

    if address == "local":
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # the embedded Ray listens to this machine alone
        options: dict[str, Any] = {"num_cpus": local_cpus(), "include_dashboard": False}
    else:
        check_reachable(address)
        submitted = submitted_env_vars()  # they reach the workers anyway, and Ray refuses to set them twice
        names = [name for name in (*QUIET, *MEMORY, *FORWARDED) if name in os.environ and name not in submitted]
        settings = {name: os.environ[name] for name in names}
        options = {"runtime_env": {"env_vars": settings}}  # embedded workers inherit them
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except ray.exceptions.AuthenticationError as error:
        raise ConfigError(
            f"RAY_ADDRESS={address}: the cluster asks for a token that this process does not have; set "
            "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with the cluster's token"
        ) from error
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise BratsError(f"Ray did not start: {root_cause(error)}; run the same command again") from error
        versions = re.findall(r"(?:Ray|Python): (\S+)", str(error))
        raise ConfigError(
            f"RAY_ADDRESS={address}: the cluster runs Ray {versions[0]} on Python {versions[1]}, but this process "
            f"Ray {versions[2]} on Python {versions[3]}; install the same versions here, or use `ray job submit`"
        ) from error
    except (ConnectionError, SystemExit) as error:
        if address == "auto":
            raise ConfigError("RAY_ADDRESS=auto: no Ray runs on this machine; start one, or unset it") from error
        raise ConfigError(
            f"RAY_ADDRESS={address}: something answers there, but does not let this process in; check that it is "
            "Ray's own address (port 6379 unless chosen otherwise), and that RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN "
            "is the token of this cluster"
        ) from error
    except Exception as error:
        # Ray raises bare ones, such as on a machine too busy to start it in time. No `except` catches those alone;
        # any other is a mistake of ours or Ray's, and is not to be taken for a start that failed.
        if type(error) is not Exception:
            raise
        raise BratsError(f"Ray did not start: {root_cause(error)}; run the same command again") from error


def check_reachable(address: str) -> None:
    """Raise ConfigError unless something listens at a cluster's address."""
    if address == "auto":  # the cluster that was started on this machine
        return
    if "://" in address:
        raise ConfigError(
            f"RAY_ADDRESS={address}: expected host:port of the cluster's head; from elsewhere, submit the job: "
            "`ray job submit --address http://HEAD:8265 --working-dir . -- python jobs/...`"
        )
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=REACH_TIMEOUT_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"RAY_ADDRESS={address}: no Ray answers there ({error}); start one, or unset RAY_ADDRESS to run on "
            "this machine alone"
        ) from error


def local_cpus() -> int:
    """CPUs that the embedded Ray declares: the cores this process may use, and two at least.

    On a single core two CPUs are declared so that a worker and the tasks that feed it can both be placed.
    """
    return max(2, len(os.sched_getaffinity(0)))
