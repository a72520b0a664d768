"""Checks before a job starts: every machine sees the job's folders, has its code, and has room to work."""

import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from brats import storage
from brats.cluster.per_case import CASE_MEMORY_BYTES
from brats.cluster.placement import Placement, place_workers
from brats.errors import BratsError, ConfigError, StorageError

FREE_DISK_BYTES = 2**30  # where Ray keeps its logs and what does not fit into memory
ANSWER_S = 90.0  # for a machine to answer; its first Python process reads from a cold disk


@dataclass(frozen=True, kw_only=True)
class MachineReport:
    """The name of a machine, and why it cannot take part, "" when it can."""

    host: str
    complaint: str


def check_cluster(inputs: Mapping[str, str | None], out: str, *, wait_minutes: float) -> None:
    """Raise an error, one line that names the setting or the machine, unless the job can run on this cluster.

    inputs: what every machine reads, by the option that names it; None where the job makes its own
    out:    what every machine writes to
    """
    read = {option: path for option, path in inputs.items() if path is not None}
    place_workers("cpu", 1, cpu_workers=1, wait_minutes=wait_minutes)  # a cluster may have scaled to nothing
    machines = alive()
    if all(node["Resources"].get("memory", 0) < CASE_MEMORY_BYTES for node in machines):
        raise BratsError(
            f"no machine of the cluster has the {CASE_MEMORY_BYTES / 2**30:.0f} GiB that reading a case takes"
        )
    if len(machines) == 1:
        check_disk(ray_folder(), FREE_DISK_BYTES)
        return
    probe = storage.join(out, f".check-{uuid.uuid4().hex}")
    storage.write_bytes(probe, probe.encode())
    try:
        reports = ask_machines(probe, read)
    finally:
        storage.remove(probe)
    for report in reports:
        if report.complaint:
            raise ConfigError(f"machine {report.host}: {report.complaint}")


def ray_folder() -> str:
    """Where Ray keeps its logs and what does not fit into memory, on this machine."""
    return os.path.abspath(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())


def check_disk(folder: str, needed_bytes: int) -> None:
    """Raise StorageError unless the local disk has room; nothing happens for remote folders."""
    if storage.is_remote(folder):
        return
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise StorageError(
            f"{folder}: {free / 1e9:.3g} GB free on its disk, about {needed_bytes / 1e9:.3g} GB are needed; "
            "free some"
        )


def ask_machines(probe: str, inputs: Mapping[str, str]) -> list[MachineReport]:
    """A report of every machine that computes, but of those that do not answer: they may be leaving."""
    import ray

    asked = ask_each([node for node in alive() if node["Resources"].get("CPU")], report_machine, probe, inputs)
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S)
    reports = []
    for answer in answered:
        try:
            reports.append(ray.get(answer))
        except ray.exceptions.RayTaskError as error:
            if "ModuleNotFoundError" not in str(error):
                raise
            complaint = (
                "it does not have this program; submit the job with `ray job submit --working-dir . -- python "
                "jobs/...`, or install brats-ray on every machine"
            )
            reports.append(MachineReport(host=asked[answer]["NodeManagerHostname"], complaint=complaint))
        except ray.exceptions.RayError:
            continue
    return reports


def alive() -> list[dict[str, Any]]:
    """The machines of the cluster that Ray has not marked dead, as it describes them."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def ask_each(
    nodes: Sequence[dict[str, Any]], task: Callable[..., Any], *arguments: Any
) -> dict[Any, dict[str, Any]]:
    """Start a function once on each of these machines; return its pending answers, with the machine of each."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, max_retries=0)(task)
    return {
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            *arguments
        ): node
        for node in nodes
    }


def check_gpus(placement: Placement) -> None:
    """Raise ConfigError naming a machine and its driver unless torch can use the GPU of every worker.

    Checked before the workers start: joining them over GPUs that cannot be used fails with a less clear message.
    """
    import ray

    if not placement.use_gpu:
        return
    ask = ray.remote(
        num_cpus=placement.cpus,
        num_gpus=1,
        accelerator_type=placement.accelerator,
        scheduling_strategy="SPREAD",
    )(_gpu_complaint)
    answers, _ = ray.wait(
        [ask.remote() for _ in range(placement.workers)], num_returns=placement.workers, timeout=ANSWER_S
    )
    for answer in answers:  # a machine that does not answer is being lost, which the workers will find
        with suppress(ray.exceptions.RayError):
            if complaint := ray.get(answer):
                raise ConfigError(complaint)


def _gpu_complaint() -> str:
    """Ray task: why torch cannot use the GPU that Ray has given this process, "" when it can."""
    from brats.cluster.gpu import require_cuda

    try:
        require_cuda()
    except ConfigError as error:
        return f"machine {socket.gethostname()}: {error}"
    return ""


def wait_for_lost_nodes() -> None:
    """Wait until every machine has answered or Ray has marked it dead, which takes some seconds."""
    import ray

    asked = ask_each(alive(), _answer)
    waiting, deadline = list(asked), time.monotonic() + ANSWER_S
    while waiting and time.monotonic() < deadline:
        waiting = ray.wait(waiting, num_returns=len(waiting), timeout=1.0)[1]
        left = {node["NodeID"] for node in alive()}
        waiting = [answer for answer in waiting if asked[answer]["NodeID"] in left]


def _answer() -> None:
    """Ray task: nothing but an answer."""


def report_machine(probe: str, inputs: Mapping[str, str]) -> MachineReport:
    """Ray task: check that this machine sees what the driver wrote and what the job reads, and has room."""
    return MachineReport(host=socket.gethostname(), complaint=_complaint(probe, inputs))


def _complaint(probe: str, inputs: Mapping[str, str]) -> str:
    out = probe.rsplit("/", 1)[0]
    shared = "a folder that all machines share, or an s3:// URL"
    try:
        if storage.read_bytes(probe) != probe.encode():
            return f"--out: {out} holds something else here than the driver wrote there; name {shared}"
        for option, path in inputs.items():
            if not storage.exists(path):
                return f"{option}: {path} is not there; name {shared}"
        check_disk(ray_folder(), FREE_DISK_BYTES)
    except FileNotFoundError:
        return f"--out: {out} is not the folder that the job writes to; name {shared}"
    except BratsError as error:
        return str(error)
    return ""
