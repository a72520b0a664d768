"""How many workers, on what: what a job wants, beside what the cluster has and what an autoscaler can bring."""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from brats.cluster.ray_internals import bootstrap_config, free_resources
from brats.config import Device
from brats.console import duration, say
from brats.errors import BratsError, ConfigError

POLL_S = 1.0
SAY_FIRST_S, SAY_EVERY_S = 5.0, 30.0
RELEASE_S = 20.0  # within which Ray gives back what a job that has just ended held
FEEDING_CPUS = 0.5  # that workers leave at least to the tasks that read for them
ACCELERATOR = "accelerator_type:"  # Ray's name for a kind of GPU, among the resources of a machine


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine offers to jobs, or what of it is free."""

    cpus: float
    gpus: int = 0
    accelerator: str | None = None


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What the cluster has, what of that is free, and what it has once it has grown as far as it may."""

    machines: Sequence[Machine]
    free: Sequence[Machine]
    grown: Sequence[Machine]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How many workers there are, on what, and with which share of a machine.

    cpus:        Ray CPUs that one worker reserves
    threads:     threads that one worker computes with, 0 for as many as its library likes
    accelerator: kind of GPU that every worker gets, such as T4; None for CPUs and where kinds are mixed
    missing:     workers that there would be once all machines are there and free
    """

    workers: int
    use_gpu: bool
    cpus: float
    threads: int
    accelerator: str | None = None
    missing: int = 0

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
    cpu_workers: the most workers on CPUs where none are asked for: one per machine; 0 for one per CPU

    One worker per GPU where there are any or can be, else on CPUs; never so many that too little is left to the
    tasks that feed them. Raises ConfigError when a GPU is asked for and there will be none.
    """
    n_gpus = sum(machine.gpus for machine in capacity.grown)
    if device == "cuda" and not n_gpus:
        raise ConfigError(
            "--device: cuda, but Ray sees no GPU; use --device cpu or start Ray on a machine with one"
        )
    use_gpu = device != "cpu" and n_gpus > 0
    goal = wanted or (n_gpus if use_gpu else _on_cpus(capacity, cpu_workers))
    aim = _most_workers(goal, capacity.grown, use_gpu)
    now = _most_workers(aim, capacity.free, use_gpu)
    possible = _place(now, use_gpu, capacity.machines, capacity.free, aim - now) if now else None
    better = _place(aim, use_gpu, capacity.grown, capacity.grown, 0) if aim > now else None
    return possible, better


def _on_cpus(capacity: Capacity, cpu_workers: int) -> int:
    """Workers where none are asked for. Two on one machine start later than one and train no faster."""
    if cpu_workers:
        return min(cpu_workers, max(1, sum(machine.cpus > 0 for machine in capacity.grown)))
    return max(1, int(sum(machine.cpus for machine in capacity.machines)))


def _fits(workers: int, share: float, machines: Sequence[Machine], use_gpu: bool) -> bool:
    """Whether each of so many workers finds a machine with room for it, and enough is left to feed them."""
    seats = [int(machine.cpus // share) for machine in machines]
    if use_gpu:
        seats = [min(n, machine.gpus) for n, machine in zip(seats, machines, strict=True)]
    return workers <= sum(seats) and workers * share + FEEDING_CPUS <= sum(machine.cpus for machine in machines)


def _share(workers: int, machines: Sequence[Machine], use_gpu: bool) -> float:
    """CPUs that one worker reserves: a whole one where there are as many."""
    return 1.0 if _fits(workers, 1.0, machines, use_gpu) else 0.5


def _most_workers(goal: int, machines: Sequence[Machine], use_gpu: bool) -> int:
    """The most workers, up to the goal, that fit, with half a CPU each if need be."""
    return max((n for n in range(1, goal + 1) if _fits(n, 0.5, machines, use_gpu)), default=0)


def _place(
    workers: int, use_gpu: bool, machines: Sequence[Machine], free: Sequence[Machine], missing: int
) -> Placement:
    share = _share(workers, free, use_gpu)
    if use_gpu:
        kinds = {machine.accelerator for machine in machines if machine.gpus}
        accelerator = next(iter(kinds)) if len(kinds) == 1 else None
        return Placement(
            workers=workers, use_gpu=True, cpus=share, threads=0, accelerator=accelerator, missing=missing
        )
    computing = [machine.cpus for machine in machines if machine.cpus]
    per_machine = math.ceil(workers / len(computing))
    threads = max(1, int(min(computing)) // per_machine)
    return Placement(workers=workers, use_gpu=False, cpus=share, threads=threads, missing=missing)


def look() -> Capacity:
    """The capacity of the cluster this process is connected to."""
    import ray

    present = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    free = free_resources()
    machines = [_machine(resources) for resources in present.values()]
    grown = autoscaler_limit() if os.environ.get("RAY_ADDRESS") else []
    larger = sum(machine.cpus for machine in grown) > sum(machine.cpus for machine in machines)
    return Capacity(
        machines=machines,
        free=[_machine(free.get(name, {})) for name in present],
        grown=grown if larger else machines,
    )


def autoscaler_limit() -> list[Machine]:
    """All the workers that the cluster may grow to; [] where no autoscaler is known of."""
    config = bootstrap_config() or {}
    try:
        most = config["max_workers"]
        machines = [
            _machine(kind["resources"])
            for name, kind in config["available_node_types"].items()
            if name != config["head_node_type"]
            for _ in range(min(kind.get("max_workers", most), most))
        ]
    except (LookupError, TypeError, AttributeError):
        return []
    return sorted(machines, key=lambda machine: (machine.gpus, machine.cpus), reverse=True)[:most]


def _machine(resources: dict[str, float]) -> Machine:
    kinds = [name.removeprefix(ACCELERATOR) for name in resources if name.startswith(ACCELERATOR)]
    return Machine(
        cpus=resources.get("CPU", 0.0),
        gpus=int(resources.get("GPU", 0)),
        accelerator=kinds[0] if len(kinds) == 1 else None,
    )


def place_workers(
    device: Device, wanted: int, *, cpu_workers: int, wait_minutes: float, lost: Placement | None = None
) -> Placement:
    """Choose the workers for a model as `choose` does, waiting where more are still to come.

    wait_minutes: how long to wait for machines that an autoscaler brings, and for other jobs to end; then fewer
                  workers must do
    lost:         the placement that was broken off: do not wait for its machines to come back while any worker can
                  go on, but do while none can

    Raises ConfigError when the cluster cannot hold a single worker, BratsError when none came in time.
    """
    started, said = time.monotonic(), -math.inf
    asked: Placement | None = None
    group: Any = None
    if lost:
        device, wanted = "cuda" if lost.use_gpu else "cpu", lost.workers + lost.missing
    try:
        while True:
            capacity = look()
            if asked and is_reserved(group):  # the room is there, and held for us: as good as free
                capacity = replace(capacity, free=capacity.machines)
                device, wanted = "cuda" if asked.use_gpu else "cpu", asked.workers
            possible, better = choose(with_lost(capacity, lost), device, wanted, cpu_workers=cpu_workers)
            if not possible and not better:
                raise ConfigError(
                    "no machine has a CPU to spare for a worker, and half a one is needed for the tasks that feed "
                    "it; start Ray with more --num-cpus on the machines that are to work"
                )
            waited = time.monotonic() - started
            left_s = (RELEASE_S if lost and possible else 60 * wait_minutes) - waited
            if better is None or left_s <= 0:
                break
            if asked is None:
                asked, group = better, reserve([better.bundle] * better.workers + [{"CPU": FEEDING_CPUS}])
            if waited >= SAY_FIRST_S and waited - said >= SAY_EVERY_S:
                said = waited
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
    if possible.workers < wanted or possible.missing:
        most = max(wanted, possible.workers + possible.missing)
        say("cluster", f"room for {possible.workers} of {most} workers; gradients accumulate")
    if device == "auto" and not possible.use_gpu and not lost:
        say("cluster", "no GPU here, and none to come: working on CPUs")
    return possible


def with_lost(capacity: Capacity, lost: Placement | None) -> Capacity:
    """The capacity of a cluster to which the machines of a placement that was broken off may come back."""
    if lost is None:
        return capacity
    machine = Machine(cpus=lost.cpus + FEEDING_CPUS, gpus=int(lost.use_gpu), accelerator=lost.accelerator)
    return replace(capacity, grown=[*capacity.grown, *[machine] * lost.workers])


def reserve(bundles: Sequence[dict[str, float]]) -> Any:
    """Have Ray, and its autoscaler, find room for all of these: a demand that ends with this process at last."""
    from ray.util.placement_group import placement_group

    return placement_group(list(bundles), strategy="SPREAD")


def is_reserved(group: Any) -> bool:
    """Whether the room that `reserve` asked for is there."""
    from ray.util.placement_group import placement_group_table

    return bool(placement_group_table(group)["state"] == "CREATED")


def release(group: Any) -> None:
    """Give back what `reserve` asked for; nothing happens for None."""
    from ray.util.placement_group import remove_placement_group

    if group is not None:
        remove_placement_group(group)
