"""How many workers, on what: what a job wants, beside what the cluster has and what an autoscaler can bring."""

import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from brats.config import Device
from brats.errors import BratsError, ConfigError
from brats.pipeline.console import duration, say

POLL_S = 1.0
SAY_EVERY_S = 30.0
RELEASE_S = 20.0  # within which Ray gives back what a job that has just ended held
BOOTSTRAP_CONFIG = "~/ray_bootstrap_config.yaml"  # named in the start commands of every `ray up` configuration
ACCELERATOR = "accelerator_type:"  # Ray's name for a kind of GPU, among the resources of a machine


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine of the cluster offers to jobs."""

    cpus: float
    gpus: int = 0
    accelerator: str | None = None


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What the cluster has: its machines, how much of them is free, and all there is once it has grown."""

    machines: Sequence[Machine]
    free_cpus: float
    free_gpus: int
    most_cpus: float
    most_gpus: int


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How many workers there are, on what, and with which share of a machine.

    cpus:        Ray CPUs that one worker reserves
    threads:     threads that one worker computes with, 0 for as many as its library likes
    accelerator: kind of GPU that every worker gets, such as T4; None for CPUs and where kinds are mixed
    """

    workers: int
    use_gpu: bool
    cpus: float
    threads: int
    accelerator: str | None = None

    @property
    def bundle(self) -> dict[str, float]:
        """The resources of one worker, which one machine must have."""
        return {"CPU": self.cpus, **({"GPU": 1} if self.use_gpu else {})}

    def __str__(self) -> str:
        kind = (self.accelerator or "GPU") if self.use_gpu else "CPU"
        return f"{self.workers} {kind} worker{'s' if self.workers != 1 else ''}"


def choose(
    capacity: Capacity, device: Device, wanted: int, *, cpu_workers: int
) -> tuple[Placement | None, Placement | None]:
    """The placement that is possible now, and the one to wait for where more is there or can come, else None.

    wanted:      number of workers asked for, 0 for as many as fit
    cpu_workers: workers on CPUs where none are asked for, 0 for one per CPU

    One worker per GPU where there are any or can be, else on CPUs; never so many that nothing is left to the tasks
    that feed them. Raises ConfigError when a GPU is asked for and there will be none.
    """
    if device == "cuda" and not capacity.most_gpus:
        raise ConfigError(
            "--device: cuda, but Ray sees no GPU; use --device cpu or start Ray on a machine with one"
        )
    use_gpu = device != "cpu" and capacity.most_gpus > 0
    if use_gpu:
        aim = min(wanted or capacity.most_gpus, capacity.most_gpus)
        room = min(aim, capacity.free_gpus)
    else:
        present = sum(machine.cpus for machine in capacity.machines)
        aim = room = wanted or cpu_workers or max(1, int(present))
    aim = _most_workers(aim, capacity.most_cpus)
    now = _most_workers(min(aim, room), capacity.free_cpus)
    possible = _place(now, use_gpu, capacity, capacity.free_cpus) if now else None
    better = _place(aim, use_gpu, capacity, capacity.most_cpus) if aim > now else None
    return possible, better


def _share(workers: int, cpus: float) -> float:
    """CPUs that one worker reserves: half a one where there are not more CPUs than workers."""
    return 1.0 if cpus > workers else 0.5


def _most_workers(wanted: int, cpus: float) -> int:
    """The most workers, up to those wanted, that leave some of the CPUs to the tasks that feed them."""
    return max((n for n in range(1, wanted + 1) if n * _share(n, cpus) < cpus), default=0)


def _place(workers: int, use_gpu: bool, capacity: Capacity, cpus: float) -> Placement:
    share = _share(workers, cpus)
    if use_gpu:
        kinds = Counter(machine.accelerator for machine in capacity.machines if machine.gpus)
        accelerator = next(iter(kinds)) if len(kinds) == 1 else None
        return Placement(workers=workers, use_gpu=True, cpus=share, threads=0, accelerator=accelerator)
    computing = [machine.cpus for machine in capacity.machines if machine.cpus] or [1]
    per_machine = math.ceil(workers / len(computing))
    return Placement(workers=workers, use_gpu=False, cpus=share, threads=max(1, int(min(computing)) // per_machine))


def look() -> Capacity:
    """The capacity of the cluster this process is connected to."""
    import ray

    machines = [_machine(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    free = ray.available_resources()
    most = growth() if os.environ.get("RAY_ADDRESS") else {}
    return Capacity(
        machines=machines,
        free_cpus=free.get("CPU", 0.0),
        free_gpus=int(free.get("GPU", 0)),
        most_cpus=max(most.get("CPU", 0), sum(machine.cpus for machine in machines)),
        most_gpus=int(max(most.get("GPU", 0), sum(machine.gpus for machine in machines))),
    )


def growth() -> dict[str, float]:
    """All the resources that the workers of a cluster may grow to; {} where no autoscaler is known of.

    Ray has no call for it. `ray up` leaves the configuration on the head, where submitted jobs run.
    """
    try:
        with open(os.path.expanduser(BOOTSTRAP_CONFIG)) as file:
            config = yaml.safe_load(file)
        kinds = [kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]]
        most: Counter[str] = Counter()
        for kind in kinds:
            count = min(kind.get("max_workers", config["max_workers"]), config["max_workers"])
            for resource, amount in kind["resources"].items():
                most[resource] += amount * count
    except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError):
        return {}
    return dict(most)


def _machine(resources: dict[str, float]) -> Machine:
    kinds = [name.removeprefix(ACCELERATOR) for name in resources if name.startswith(ACCELERATOR)]
    return Machine(
        cpus=resources.get("CPU", 0.0),
        gpus=int(resources.get("GPU", 0)),
        accelerator=kinds[0] if len(kinds) == 1 else None,
    )


def place_workers(
    device: Device, wanted: int, *, cpu_workers: int, wait_minutes: float, go_on: bool = False
) -> Placement:
    """Choose the workers for a model as `choose` does, waiting where more are still to come.

    wait_minutes: how long to wait for machines that an autoscaler brings, and for other jobs to end; then fewer
                  workers must do
    go_on:        a job that lost a machine: do not wait for a new one while any worker can go on

    Raises ConfigError when the cluster cannot hold a single worker, BratsError when none came in time.
    """
    started, said = time.monotonic(), -math.inf
    asked, group = None, None
    try:
        while True:
            possible, better = choose(look(), device, wanted, cpu_workers=cpu_workers)
            if group is not None and is_reserved(group):
                possible, better = asked, None
            if not possible and not better:
                raise ConfigError(
                    "the cluster has no CPU to spare for a worker and half a one for the tasks that feed it; start "
                    "Ray with more --num-cpus"
                )
            now = time.monotonic()
            left_s = started + (RELEASE_S if go_on and possible else 60 * wait_minutes) - now
            if better is None or left_s <= 0:
                break
            if group is None:
                asked, group = better, reserve(better, better.workers)
            if now - said >= SAY_EVERY_S and now - started >= RELEASE_S / 4:
                said = now
                here = f"room for {possible.workers if possible else 'none'} so far"
                say("cluster", f"waiting for {better}, {here}; {duration(left_s)} left")
            time.sleep(POLL_S)
    finally:
        release(group)
    if not possible:
        raise BratsError(
            f"no room for a worker came up within {wait_minutes:g} minutes (--wait-minutes); see `ray status` for "
            "what holds the machines up, and run the same command again"
        )
    if possible.workers < wanted:
        say("cluster", f"{wanted} workers asked for, room for {possible.workers}; gradients accumulate")
    return possible


def reserve(placement: Placement, workers: int) -> Any:
    """Have Ray, and its autoscaler, find room for so many workers: a demand that ends with this process at last."""
    from ray.util.placement_group import placement_group

    return placement_group([placement.bundle] * workers, strategy="SPREAD")


def is_reserved(group: Any) -> bool:
    """Whether the room that `reserve` asked for is there."""
    from ray.util.placement_group import placement_group_table

    return bool(placement_group_table(group)["state"] == "CREATED")


def release(group: Any) -> None:
    """Give back what `reserve` asked for; nothing happens for None."""
    from ray.util.placement_group import remove_placement_group

    if group is not None:
        remove_placement_group(group)
