"""How many workers are chosen, on what, for what a cluster has and may grow to, and the wait for them."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from brats.cluster import placement as placement_module
from brats.cluster.capacity import Capacity, Machine
from brats.cluster.placement import (
    FEEDING_CPUS,
    RELEASE_S,
    ClusterAccess,
    Placement,
    Request,
    choose,
    place_workers,
    shortfalls,
    wait_for_workers,
    with_lost,
)
from brats.errors import ConfigError, NoRoomError

T4 = Machine(cpus=4, gpus=1, accelerator="T4")
HEAD = Machine(cpus=0)


def capacity(
    *machines: Machine, free: Sequence[Machine] | None = None, grown: Sequence[Machine] | None = None
) -> Capacity:
    """Of these machines: all of it free, and no more to come, unless it says otherwise."""
    return Capacity(
        machines=machines, free=machines if free is None else free, grown=machines if grown is None else grown
    )


def test_one_worker_per_gpu_with_its_kind_where_all_are_of_one() -> None:
    two = Placement(workers=2, use_gpu=True, cpus=1, threads=0, accelerator="T4")
    assert choose(capacity(HEAD, T4, T4), "auto", 0, cpu_workers=2) == (two, None)
    assert str(two) == "2 T4 workers"
    assert two.bundle == {"CPU": 1, "GPU": 1}


def test_no_kind_is_asked_for_where_they_are_mixed() -> None:
    possible, _ = choose(capacity(T4, Machine(cpus=4, gpus=1, accelerator="L4")), "auto", 0, cpu_workers=2)
    assert possible == Placement(workers=2, use_gpu=True, cpus=1, threads=0, accelerator=None)


def test_one_gpu_has_one_worker_where_two_are_asked_for() -> None:
    possible, better = choose(capacity(HEAD, T4), "auto", 2, cpu_workers=2)
    assert possible is not None
    assert (possible.workers, possible.use_gpu, better) == (1, True, None)


def test_cpu_workers_leave_room_for_the_tasks_that_feed_them() -> None:
    possible, better = choose(capacity(Machine(cpus=2)), "auto", 2, cpu_workers=2)
    assert possible == Placement(workers=2, use_gpu=False, cpus=0.5, threads=1)
    assert better is None


def test_without_gpus_one_worker_has_all_the_cores_of_a_machine_or_each_core_has_one() -> None:
    possible, _ = choose(capacity(Machine(cpus=4)), "auto", 0, cpu_workers=2)
    assert possible == Placement(workers=1, use_gpu=False, cpus=1, threads=4)
    possible, _ = choose(capacity(*[Machine(cpus=4)] * 3), "auto", 0, cpu_workers=2)
    assert possible == Placement(workers=2, use_gpu=False, cpus=1, threads=4)
    possible, _ = choose(capacity(Machine(cpus=4)), "auto", 0, cpu_workers=0)
    assert possible == Placement(workers=4, use_gpu=False, cpus=0.5, threads=1)


def test_cpu_workers_share_the_cores_of_their_machine() -> None:
    possible, _ = choose(capacity(Machine(cpus=8)), "cpu", 3, cpu_workers=2)
    assert possible == Placement(workers=3, use_gpu=False, cpus=1, threads=2)


def test_cpu_workers_spread_over_machines_use_all_the_cores_of_each() -> None:
    possible, _ = choose(capacity(HEAD, Machine(cpus=4), Machine(cpus=4)), "cpu", 0, cpu_workers=2)
    assert possible == Placement(workers=2, use_gpu=False, cpus=1, threads=4)


def test_fewer_workers_where_more_would_starve_their_feeding() -> None:
    possible, better = choose(capacity(Machine(cpus=2)), "cpu", 4, cpu_workers=2)
    assert possible is not None
    assert (possible.workers, possible.cpus, better) == (3, 0.5, None)


def test_gpu_workers_leave_room_for_the_tasks_that_feed_them() -> None:
    possible, _ = choose(capacity(Machine(cpus=2, gpus=2)), "auto", 0, cpu_workers=2)
    assert possible == Placement(workers=2, use_gpu=True, cpus=0.5, threads=0)


def test_gpus_are_left_alone_when_the_cpu_is_asked_for() -> None:
    possible, _ = choose(capacity(T4, T4), "cpu", 0, cpu_workers=2)
    assert possible is not None
    assert not possible.use_gpu


def test_gpus_that_can_still_come_are_waited_for() -> None:
    possible, better = choose(capacity(HEAD, grown=[T4, T4]), "auto", 0, cpu_workers=2)
    assert possible is None
    assert better is not None
    assert (better.workers, better.use_gpu) == (2, True)


def test_gpus_held_by_other_jobs_are_waited_for_while_the_free_one_would_do() -> None:
    held = Machine(cpus=3)
    possible, better = choose(capacity(T4, T4, free=[T4, held]), "auto", 0, cpu_workers=2)
    assert possible is not None
    assert better is not None
    assert (possible.workers, possible.missing, better.workers) == (1, 1, 2)


def test_gpu_on_a_machine_without_a_cpu_has_no_seat_for_a_worker() -> None:
    assert choose(capacity(Machine(cpus=16), Machine(cpus=0, gpus=1)), "cuda", 0, cpu_workers=2) == (None, None)


def test_half_a_cpu_is_left_at_least() -> None:
    possible, better = choose(capacity(Machine(cpus=1)), "cpu", 2, cpu_workers=2)
    assert possible == Placement(workers=1, use_gpu=False, cpus=0.5, threads=1)
    assert better is None
    assert choose(capacity(Machine(cpus=2), free=[Machine(cpus=0.75)]), "cpu", 1, cpu_workers=2)[0] is None


def test_machines_that_were_lost_may_come_back() -> None:
    lost = Placement(workers=2, use_gpu=True, cpus=1, threads=0, accelerator="T4")
    possible, better = choose(with_lost(capacity(HEAD, T4), lost), "cuda", 2, cpu_workers=2)
    assert possible is not None
    assert (possible.workers, possible.missing) == (1, 1)
    possible, better = choose(with_lost(capacity(HEAD), lost), "cuda", 2, cpu_workers=2)
    assert possible is None
    assert better == lost


def test_cluster_of_a_head_alone_has_no_room_and_none_to_come() -> None:
    assert choose(capacity(HEAD), "auto", 0, cpu_workers=2) == (None, None)


def test_cuda_without_a_gpu_now_or_later_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--device: cuda, but Ray sees no GPU"):
        choose(capacity(Machine(cpus=8)), "cuda", 0, cpu_workers=2)


class PlayedCluster:
    """A cluster that changes as time passes, in a time of its own.

    stages: (from which second on, its capacity), earliest first
    """

    def __init__(self, *stages: tuple[float, Capacity], reserved_s: float = math.inf) -> None:
        self.stages, self.reserved_s = stages, reserved_s
        self.now_s = 0.0
        self.asked: list[list[dict[str, float]]] = []
        self.released: list[object] = []

    def capacity(self) -> Capacity:
        return [capacity for start_s, capacity in self.stages if start_s <= self.now_s][-1]

    def reserve(self, bundles: Sequence[dict[str, float]]) -> str:
        self.asked.append(list(bundles))
        return "group"

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def wait(self, wish: Request, wait_s: float = 60.0) -> Placement | None:
        cluster = ClusterAccess(
            capacity=self.capacity,
            reserve=self.reserve,
            is_reserved=lambda group: group == "group" and self.now_s >= self.reserved_s,
            release=self.released.append,
            clock=lambda: self.now_s,
            sleep=self.sleep,
        )
        return wait_for_workers(wish, wait_s, cluster)


AUTO = Request(device="auto", workers=0, cpu_workers=2)
TO_COME = capacity(HEAD, grown=[T4, T4])


def test_room_for_all_is_taken_at_once() -> None:
    cluster = PlayedCluster((0, capacity(T4, T4)))
    placement = cluster.wait(AUTO)
    assert placement is not None
    assert placement.workers == 2
    assert cluster.now_s == 0
    assert cluster.asked == []


def test_machines_to_come_are_asked_for_once_with_room_to_feed_the_workers() -> None:
    cluster = PlayedCluster((0, TO_COME), (8, capacity(HEAD, T4, T4)))
    placement = cluster.wait(AUTO)
    assert placement is not None
    assert placement.workers == 2
    assert cluster.now_s == 8
    assert cluster.asked == [[{"CPU": 1, "GPU": 1}, {"CPU": 1, "GPU": 1}, {"CPU": FEEDING_CPUS}]]
    assert cluster.released == ["group"]


def test_no_room_in_time_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement_module, "wait_for_workers", lambda *_: None)
    with pytest.raises(NoRoomError, match=r"^no room for a worker came up within 2 minutes \(--wait-minutes\)"):
        place_workers("auto", 0, cpu_workers=2, wait_minutes=2)


def test_room_that_ray_holds_for_the_workers_counts_as_free() -> None:
    full = capacity(T4, T4, free=[HEAD, HEAD])
    cluster = PlayedCluster((0, full), reserved_s=4)
    placement = cluster.wait(AUTO)
    assert placement is not None
    assert (placement.workers, cluster.now_s) == (2, 4)


def test_time_that_is_over_gives_what_there_is_room_for() -> None:
    cluster = PlayedCluster((0, capacity(T4, grown=[T4, T4])))
    placement = cluster.wait(AUTO, wait_s=10)
    assert placement is not None
    assert (placement.workers, placement.missing, cluster.now_s) == (1, 1, 10)
    assert PlayedCluster((0, TO_COME)).wait(AUTO, wait_s=10) is None


def test_waiting_is_reported_after_five_seconds_and_then_every_thirty(capsys: pytest.CaptureFixture[str]) -> None:
    PlayedCluster((0, TO_COME)).wait(AUTO, wait_s=60)
    assert capsys.readouterr().out == (
        "cluster  waiting for 2 T4 workers, room for none so far; 0:55 min left\n"
        "cluster  waiting for 2 T4 workers, room for none so far; 0:25 min left\n"
    )


LOST = Placement(workers=2, use_gpu=True, cpus=1, threads=0, accelerator="T4")
AGAIN = replace(AUTO, lost=LOST)


def test_worker_that_is_left_goes_on_after_the_time_ray_needs_to_give_back_its_room() -> None:
    cluster = PlayedCluster((0, capacity(HEAD, T4)))
    placement = cluster.wait(AGAIN, wait_s=600)
    assert placement is not None
    assert (placement.workers, placement.missing, cluster.now_s) == (1, 1, RELEASE_S)


def test_lost_machines_are_waited_for_while_no_worker_is_left() -> None:
    cluster = PlayedCluster((0, capacity(HEAD)), (100, capacity(HEAD, T4, T4)))
    placement = cluster.wait(AGAIN, wait_s=600)
    assert placement is not None
    assert (placement.workers, cluster.now_s) == (2, 100)


def test_cluster_that_can_hold_no_worker_is_refused_and_nothing_stays_reserved() -> None:
    cluster = PlayedCluster((0, TO_COME), (8, capacity(HEAD)))
    with pytest.raises(ConfigError, match=r"no machine has a CPU to spare for a worker, and 0\.5 of one is needed"):
        cluster.wait(AUTO)
    assert cluster.released == ["group"]


def test_shortfalls_name_missing_workers_and_a_missing_gpu() -> None:
    one = Placement(workers=1, use_gpu=True, cpus=1, threads=0)
    on_cpu = replace(one, use_gpu=False)
    assert shortfalls(one, AUTO) == []
    assert shortfalls(one, replace(AUTO, workers=2)) == ["room for 1 of 2 workers; gradients accumulate"]
    assert shortfalls(replace(one, missing=2), AUTO) == ["room for 1 of 3 workers; gradients accumulate"]
    assert shortfalls(one, AGAIN) == ["room for 1 of 2 workers; gradients accumulate"]
    assert shortfalls(on_cpu, AUTO) == ["no GPU here, and none to come: working on CPUs"]
    assert shortfalls(on_cpu, replace(AUTO, device="cpu")) == []
