"""Connect to Ray: to the cluster that `RAY_ADDRESS` names, else to one embedded in this process."""

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

from brats.cluster.datasets import configure_datasets, root_cause
from brats.cluster.folder import choose_folder
from brats.cluster.quiet import keep_off_console, shorten_messages
from brats.cluster.ray_internals import submitted_env_vars
from brats.errors import BratsError, ConfigError
from brats.storage.places import has_credentials

# Ray reads these when it is imported or when its processes start; a value that the user has set is kept.
QUIET = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one more process to wait for, whose notices are not used
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",  # a machine that has just started reads torch from a cold disk
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
# How the processes of Ray compute. What a case or a training step frees is kept for the next one, not returned to
# the system and cleared again: that took a quarter of the time of reading a case and 5 % of training on CPUs. Large
# pages for large tensors save another tenth of training. Threads that wait for each other soon sleep: spinning
# for milliseconds, they take cores from those they wait for where other processes are at work too. What that costs
# varies widely with the load (benchmarks/RESULTS.md).
COMPUTE = {
    "MALLOC_ARENA_MAX": "1",  # one arena for all threads, which keeps the memory
    "MALLOC_MMAP_THRESHOLD_": str(2**25),  # the largest that every glibc accepts
    "MALLOC_TRIM_THRESHOLD_": str(2**30),  # what is kept at most
    "THP_MEM_ALLOC_ENABLE": "1",
    "GOMP_SPINCOUNT": "10000",  # on idle cores no slower than the 300,000 of libgomp
}
# How to reach the store, but not its secrets: Ray shows in its logs what is passed to the workers.
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
def connected(imports: Sequence[str] = (), *, wait_minutes: float = 0) -> Iterator[None]:
    """Connect to Ray for the duration of the block. SIGTERM, with which Ray stops a job, then acts like Ctrl-C.

    imports:      large modules that the job needs later, imported while Ray starts, which is mostly waiting
    wait_minutes: how long the job waits for machines; its datasets may stand still as long

    Raises ConfigError, naming the setting, when the cluster cannot be reached or refuses this process.
    """
    for name, value in {**QUIET, **COMPUTE}.items():
        os.environ.setdefault(name, value)
    importing = threading.Thread(target=_import, args=(imports,), daemon=True)
    importing.start()
    import ray

    if ray.is_initialized():
        importing.join()  # importing the same modules here meanwhile would find some of them half made
        configure_datasets(wait_minutes)
        yield
        return
    init(os.environ.get("RAY_ADDRESS") or "local")
    importing.join()
    configure_datasets(wait_minutes)  # before the next line: importing ray.data gives its logger a handler
    keep_off_console("ray", "ray.data", "ray.train")
    shorten_messages()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # after ray.init, which installs one of its own
    try:
        yield
    finally:
        ray.shutdown()


def _import(modules: Sequence[str]) -> None:
    for name in modules:
        with suppress(Exception):  # raised again where the module is used
            importlib.import_module(name)


def _interrupt(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise KeyboardInterrupt


def init(address: str) -> None:
    """Connect to the cluster at an address, or start an embedded one for "local"."""
    import ray

    if address == "local":
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # the embedded Ray listens to this machine alone
        os.environ["RAY_TMPDIR"] = choose_folder()
        options: dict[str, Any] = {"num_cpus": local_cpus(), "include_dashboard": False}
    else:
        check_reachable(address)
        submitted = submitted_env_vars()  # they reach the workers anyway, and Ray refuses to set them twice
        names = [name for name in (*QUIET, *COMPUTE, *FORWARDED) if name in os.environ and name not in submitted]
        settings = {name: os.environ[name] for name in names if not has_credentials(os.environ[name])}
        options = {"runtime_env": {"env_vars": settings}}  # embedded workers inherit them
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (Exception, SystemExit) as error:
        explained = explain_start(error, address)
        if explained is None:
            raise
        raise explained from error


def explain_start(error: BaseException, address: str) -> BratsError | None:
    """The error of a failed `ray.init` in one line for the user; None for a bug of this project or of Ray."""
    from ray.exceptions import AuthenticationError

    if isinstance(error, AuthenticationError):
        return ConfigError(
            f"RAY_ADDRESS={address}: the cluster asks for a token that this process does not have; set "
            "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with the cluster's token"
        )
    if isinstance(error, RuntimeError) and "Version mismatch" in str(error):
        versions = re.findall(r"(?:Ray|Python): (\S+)", str(error))
        return ConfigError(
            f"RAY_ADDRESS={address}: the cluster runs Ray {versions[0]} on Python {versions[1]}, but this process "
            f"Ray {versions[2]} on Python {versions[3]}; install the same versions here, or use `ray job submit`"
        )
    if isinstance(error, SystemExit) and address == "local":  # by SIGTERM
        return BratsError("stopped while Ray started; the same command keeps what is finished and does the rest")
    if isinstance(error, ConnectionError | SystemExit):
        if address == "auto":
            return ConfigError("RAY_ADDRESS=auto: no Ray runs on this machine; start one, or unset RAY_ADDRESS")
        return ConfigError(
            f"RAY_ADDRESS={address}: something answers there, but refuses this process; check that it is Ray's own "
            "address (port 6379 unless chosen otherwise), and that RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN is the "
            "token of this cluster"
        )
    if isinstance(error, OSError) and address == "local":
        return BratsError(
            f"Ray did not start: {root_cause(error)}; it keeps its sockets and logs in {os.environ['RAY_TMPDIR']}: "
            "set RAY_TMPDIR to another short folder that you can write to"
        )
    # Ray raises bare exceptions too, as on a machine too busy to start it in time. Of their kind only those: any
    # other exception is a bug, and must not be taken for a start that failed.
    if isinstance(error, RuntimeError) or type(error) is Exception:
        return BratsError(f"Ray did not start: {root_cause(error)}; run the same command again")
    return None


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
