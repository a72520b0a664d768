"""The hardware that a run trained on, in RUN/hardware.json: what each start that trained epochs had.

A resumed run may go on elsewhere. A start on other hardware than the one before it has an entry of its own; a run
of an earlier version has no file.
"""

import os
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from brats import storage
from brats.errors import StorageError
from brats.model.memory import ROOT, read_text, total_bytes
from brats.storage.documents import check_types

GIB = 2**30
NOT_RECORDED = "not recorded"


@dataclass(frozen=True, kw_only=True)
class WorkerHardware:
    """What a worker trains on.

    machine:        tells the machines of a start apart: a number, or where that is asked, any name
    cpu:            its model, or its architecture where the system does not say
    n_cpus:         that the worker may use, as others on its machine
    memory_gib:     of the machine or, where less, of its container
    gpu:            its name; None where the worker trains on CPUs, as is `gpu_memory_gib`
    """

    machine: str
    system: str
    cpu: str
    n_cpus: int
    memory_gib: int
    gpu: str | None
    gpu_memory_gib: int | None
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Start:
    """A start of a run, or several with the same hardware: from which epoch on its workers trained."""

    first_epoch: int
    workers: tuple[WorkerHardware, ...]


def hardware_path(run: str) -> str:
    return storage.join(run, "hardware.json")


def describe_worker(machine: str, device: torch.device, root: Path = ROOT) -> WorkerHardware:
    """What this process trains on.

    machine: a name that the workers on it share, and no others
    root:    where /proc and /sys are
    """
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    versions = {"Python": platform.python_version(), "Ray": version("ray"), "torch": str(torch.__version__)}
    return WorkerHardware(
        machine=machine,
        system=f"{platform.system()} {platform.machine()}",
        cpu=_cpu_model(root),
        n_cpus=len(os.sched_getaffinity(0)),
        memory_gib=round(total_bytes(root) / GIB),
        gpu=gpu.name if gpu else None,
        gpu_memory_gib=round(gpu.total_memory / GIB) if gpu else None,
        versions={**versions, **({"CUDA": str(torch.version.cuda)} if gpu else {})},
    )


def _cpu_model(root: Path) -> str:
    for line in read_text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.split())
    return platform.machine()


def record_start(run: str, first_epoch: int, workers: Sequence[WorkerHardware]) -> None:
    """Add a start that has trained an epoch; epochs that are trained again are its own. Raises StorageError.

    Machines are numbered: their names are nobody's business.
    """
    start = Start(first_epoch=first_epoch, workers=_numbered(workers))
    before = [each for each in read_hardware(run) if each.first_epoch < first_epoch]
    if not before or before[-1].workers != start.workers:
        before.append(start)
    storage.write_json(hardware_path(run), {"starts": [asdict(each) for each in before]})


def _numbered(workers: Sequence[WorkerHardware]) -> tuple[WorkerHardware, ...]:
    """The workers in an order that does not depend on who came first, on machines by number."""
    ordered = sorted(workers, key=lambda worker: (str(asdict(worker) | {"machine": ""}), worker.machine))
    numbers = {name: str(number) for number, name in enumerate(dict.fromkeys(each.machine for each in ordered))}
    return tuple(WorkerHardware(**{**asdict(each), "machine": numbers[each.machine]}) for each in ordered)


def read_hardware(run: str) -> list[Start]:
    """The starts of a run, the first one first; none of a run of an earlier version. Raises StorageError."""
    path = hardware_path(run)
    try:
        return [_start(entry) for entry in storage.read_json(path)["starts"]]
    except FileNotFoundError:
        return []
    except (LookupError, TypeError, ValueError) as error:
        raise StorageError(f"{path}: damaged ({error}); remove it, and the hardware is {NOT_RECORDED}") from error


def _start(entry: Any) -> Start:
    workers = tuple(WorkerHardware(**worker) for worker in entry["workers"])
    start = Start(first_epoch=entry["first_epoch"], workers=workers)
    check_types(start)
    if not workers:
        raise ValueError("a start without workers")
    return start


def hardware_of(runs: Iterable[str]) -> list[str]:
    """The hardware of several runs in words, each once; without those that do not say."""
    return list(dict.fromkeys(filter(None, (in_words(read_hardware(run)) for run in runs))))


def in_words(starts: Sequence[Start]) -> str:
    """The hardware of a run; where it has changed, from which epoch on each was used. "" where nothing says."""
    if not starts:
        return ""
    unknown = [(1, NOT_RECORDED)] if starts[0].first_epoch > 1 else []
    parts = [*unknown, *((each.first_epoch, _of_workers(each.workers)) for each in starts)]
    if len(parts) == 1:
        return parts[0][1]
    return "; ".join(f"from epoch {first}: {words}" for first, words in parts)


def _of_workers(workers: Sequence[WorkerHardware]) -> str:
    """As in "2 workers on 2 machines, each Tesla T4 of 15 GiB, 4 CPUs (Xeon), 15 GiB; Python 3.12, torch 2.15"."""
    by_machine: dict[str, list[WorkerHardware]] = {}
    for worker in workers:
        by_machine.setdefault(worker.machine, []).append(worker)
    kinds = Counter(_of_machine(each) for each in by_machine.values())
    places = [f"{n} machines, each {words}" if n > 1 else f"1 machine, {words}" for words, n in kinds.items()]
    n_workers = f"{len(workers)} worker{'' if len(workers) == 1 else 's'}"
    return f"{n_workers} on {' and '.join(places)}; {_versions(workers)}"


def _of_machine(workers: Sequence[WorkerHardware]) -> str:
    gpus = Counter(f"{each.gpu} of {each.gpu_memory_gib} GiB" for each in workers if each.gpu)
    cards = [f"{n} x {name}" if n > 1 else name for name, n in gpus.items()]
    host = workers[0]
    return ", ".join([*cards, f"{host.n_cpus} CPUs ({host.cpu}), {host.memory_gib} GiB of memory, {host.system}"])


def _versions(workers: Iterable[WorkerHardware]) -> str:
    found = dict.fromkeys(f"{name} {value}" for each in workers for name, value in each.versions.items())
    return ", ".join(found)
