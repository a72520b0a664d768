"""Choose the workers from what the job asks for, what the cluster has and what its autoscaler can add."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from brats.cluster.capacity import Capacity, Machine, cluster_capacity
from brats.config import Device
from brats.console import duration, say
from brats.errors import ConfigError, NoRoomError

POLL_S = 1.0
REPORT_FIRST_S, REPORT_EVERY_S = 5.0, 30.0
RELEASE_S = 20.0  # for Ray to free what a job that has just ended held
FEEDING_CPUS = 0.5  # that a task which reads for training workers reserves, and that they leave for one of them
LEAST_CPUS = 0.5  # that a worker reserves where CPUs are few


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How many workers there are, on what, and with how many CPUs each.

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
    def device(self) -> Device:
        return "cuda" if self.use_gpu else "cpu"

    @property
    def bundle(self) -> dict[str, float]:
        """The resources of one worker, which one machine must have."""
        return {"CPU": self.cpus, **({"GPU": 1} if self.use_gpu else {})}

    def __str__(self) -> str:
        kind = (self.accelerator or "GPU") if self.use_gpu else "CPU"
        return f"{self.workers} {kind} worker{'s' if self.workers != 1 else ''}"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a job asks for.

    workers:     0 for as many as fit
    cpu_workers: the most workers on CPUs where no number is asked for: one per machine; 0 for one per CPU
    lost:        the placement that a loss of machines ended: they may come back
    """

    device: Device
    workers: int
    cpu_workers: int
    lost: Placement | None = None


class Choice(NamedTuple):
    """The placement that is possible now, and the one to wait for where more is there or can come."""

    possible: Placement | None
    better: Placement | None


def next_choice(capacity: Capacity, request: Request, held: Placement | None) -> Choice:
    """What to start with and what to wait for, of which there is one at least.

    held: a placement for which Ray holds the room: as good as free

    Raises ConfigError when the cluster cannot hold a single worker, now or later.
    """
    if request.lost:
        request = replace(request, device=request.lost.device, workers=request.lost.workers + request.lost.missing)
    if held:
        capacity = replace(capacity, free=capacity.machines)
        request = replace(request, device=held.device, workers=held.workers)
    choice = choose(
        with_lost(capacity, request.lost), request.device, request.workers, cpu_workers=request.cpu_workers
    )
    if not choice.possible and not choice.better:
        raise ConfigError(
            f"no machine has a CPU to spare for a worker, and {FEEDING_CPUS:g} of one is needed for the tasks that "
            "feed it; start Ray with more --num-cpus on the machines that are to work"
        )
    return choice


def with_lost(capacity: Capacity, lost: Placement | None) -> Capacity:
    """The capacity of a cluster to which the machines of a placement that was lost may come back."""
    if lost is None:
        return capacity
    machine = Machine(cpus=lost.cpus + FEEDING_CPUS, gpus=int(lost.use_gpu), accelerator=lost.accelerator)
    return replace(capacity, grown=[*capacity.grown, *[machine] * lost.workers])


def choose(capacity: Capacity, device: Device, wanted: int, *, cpu_workers: int) -> Choice:
    """One worker per GPU where there are any or can be, else on CPUs; enough is left to the tasks that feed them.

    wanted, cpu_workers: as of a `Request`

    Raises ConfigError when a GPU is asked for and there will be none.
    """
    n_gpus = sum(machine.gpus for machine in capacity.grown)
    if device == "cuda" and not n_gpus:
        raise ConfigError(
            "--device: cuda, but Ray sees no GPU; use --device cpu or start Ray on a machine with one"
        )
    use_gpu = device != "cpu" and n_gpus > 0
    goal = wanted or (n_gpus if use_gpu else _on_cpus(capacity, cpu_workers))
    most = _most_workers(goal, capacity.grown, use_gpu)
    now = _most_workers(most, capacity.free, use_gpu)
    return Choice(
        _place(now, use_gpu, capacity.machines, capacity.free, most - now) if now else None,
        _place(most, use_gpu, capacity.grown, capacity.grown, 0) if most > now else None,
    )


def _on_cpus(capacity: Capacity, cpu_workers: int) -> int:
    """Workers where none are asked for. Two on one machine start later than one and train no faster."""
    if cpu_workers:
        return min(cpu_workers, max(1, sum(machine.cpus > 0 for machine in capacity.grown)))
    return max(1, int(sum(machine.cpus for machine in capacity.machines)))


def _fits(workers: int, cpus_each: float, machines: Sequence[Machine], use_gpu: bool) -> bool:
    """Whether each of so many workers finds a machine with room for it, and enough is left to feed them."""
    slots = [int(machine.cpus // cpus_each) for machine in machines]
    if use_gpu:
        slots = [min(n, machine.gpus) for n, machine in zip(slots, machines, strict=True)]
    n_cpus = sum(machine.cpus for machine in machines)
    return workers <= sum(slots) and workers * cpus_each + FEEDING_CPUS <= n_cpus


def _cpus_each(workers: int, machines: Sequence[Machine], use_gpu: bool) -> float:
    """CPUs that one worker reserves: one where there are enough, else the least."""
    return 1.0 if _fits(workers, 1.0, machines, use_gpu) else LEAST_CPUS


def _most_workers(goal: int, machines: Sequence[Machine], use_gpu: bool) -> int:
    """The most workers, up to the goal, that fit, with the least CPUs each if need be."""
    return max((n for n in range(1, goal + 1) if _fits(n, LEAST_CPUS, machines, use_gpu)), default=0)


def _place(
    workers: int, use_gpu: bool, machines: Sequence[Machine], free: Sequence[Machine], missing: int
) -> Placement:
    cpus = _cpus_each(workers, free, use_gpu)
    if use_gpu:
        kinds = {machine.accelerator for machine in machines if machine.gpus}
        accelerator = next(iter(kinds)) if len(kinds) == 1 else None
        return Placement(
            workers=workers, use_gpu=True, cpus=cpus, threads=0, accelerator=accelerator, missing=missing
        )
    computing = [machine.cpus for machine in machines if machine.cpus]
    per_machine = math.ceil(workers / len(computing))
    threads = max(1, int(min(computing)) // per_machine)
    return Placement(workers=workers, use_gpu=False, cpus=cpus, threads=threads, missing=missing)


def reserve(bundles: Sequence[dict[str, float]]) -> Any:
    """Have Ray, and its autoscaler, find room for all of these; released at the latest when this process ends."""
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


@dataclass(frozen=True, kw_only=True)
class ClusterAccess:
    """What waiting for workers needs of Ray and of the time; a test gives its own."""

    capacity: Callable[[], Capacity] = cluster_capacity
    reserve: Callable[[Sequence[dict[str, float]]], Any] = reserve
    is_reserved: Callable[[Any], bool] = is_reserved
    release: Callable[[Any], None] = release
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def place_workers(
    device: Device, wanted: int, *, cpu_workers: int, wait_minutes: float, lost: Placement | None = None
) -> Placement:
    """Choose the workers for a model as `choose` does, waiting where more are still to come.

    wait_minutes: how long to wait for machines that an autoscaler brings, and for other jobs to end; then fewer
                  workers must do
    lost:         the placement that a loss of machines ended: do not wait for them to come back while any worker
                  can go on, but do while none can

    Raises ConfigError when the cluster cannot hold a single worker, NoRoomError when none came in time.
    """
    request = Request(device=device, workers=wanted, cpu_workers=cpu_workers, lost=lost)
    placement = wait_for_workers(request, 60 * wait_minutes, ClusterAccess())
    if not placement:
        raise NoRoomError(
            f"no room for a worker came up within {wait_minutes:g} minutes (--wait-minutes); see `ray status` for "
            "what holds the machines up, and run the same command again"
        )
    for line in shortfalls(placement, request):
        say("cluster", line)
    return placement


def wait_for_workers(request: Request, wait_s: float, cluster: ClusterAccess) -> Placement | None:
    """The workers there is room for once no more are to come or the time is over; None for none."""
    started, next_report_s = cluster.clock(), REPORT_FIRST_S
    asked: Placement | None = None
    group: Any = None
    try:
        while True:
            capacity = cluster.capacity()
            held = asked if asked and cluster.is_reserved(group) else None
            possible, better = next_choice(capacity, request, held)
            waited_s = cluster.clock() - started
            left_s = (RELEASE_S if request.lost and possible else wait_s) - waited_s
            if better is None or left_s <= 0:
                return possible
            if asked is None:
                asked = better
                group = cluster.reserve([better.bundle] * better.workers + [{"CPU": FEEDING_CPUS}])
            if waited_s >= next_report_s:
                next_report_s = waited_s + REPORT_EVERY_S
                room = possible.workers if possible else "none"
                say("cluster", f"waiting for {better}, room for {room} so far; {duration(left_s)} left")
            cluster.sleep(POLL_S)
    finally:
        cluster.release(group)


def shortfalls(placement: Placement, request: Request) -> list[str]:
    """What a placement lacks of the request, for the user."""
    lines = []
    wanted = request.lost.workers + request.lost.missing if request.lost else request.workers
    most = max(wanted, placement.workers + placement.missing)
    if placement.workers < most:
        lines.append(f"room for {placement.workers} of {most} workers; gradients accumulate")
    if request.device == "auto" and not placement.use_gpu and not request.lost:
        lines.append("no GPU here, and none to come: working on CPUs")
    return lines
