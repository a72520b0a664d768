"""How many workers are chosen, on what, for what a cluster has and may grow to."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from brats.cluster.placement import Capacity, Machine, Placement, autoscaler_limit, choose, with_lost
from brats.errors import ConfigError

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


BOOTSTRAP = """
max_workers: 3
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}, node_config: {}}
  worker: {resources: {CPU: 4, GPU: 1}, max_workers: 2, node_config: {}}
  large: {resources: {CPU: 8, GPU: 4}, max_workers: 2, node_config: {}}
"""


def test_autoscaler_limit_is_the_largest_workers_that_the_configuration_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ray_bootstrap_config.yaml").write_text(BOOTSTRAP)
    assert autoscaler_limit() == [Machine(cpus=8, gpus=4)] * 2 + [Machine(cpus=4, gpus=1)]


@pytest.mark.parametrize("content", [None, "", "[1, 2]", "max_workers: 1", "a: b: c"])
def test_without_a_configuration_nothing_is_to_come(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if content is not None:
        (tmp_path / "ray_bootstrap_config.yaml").write_text(content)
    assert autoscaler_limit() == []
