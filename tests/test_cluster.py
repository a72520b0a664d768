"""Choosing workers, and errors that pass through Ray."""

import os

import pytest

from brats.errors import BratsError, ConfigError
from brats.pipeline.cluster import Placement, local_cpus, place_workers, root_cause, rows_of


def with_resources(monkeypatch: pytest.MonkeyPatch, *, cpus: int, gpus: int = 0) -> None:
    import ray

    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": float(cpus), "GPU": float(gpus)})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)))


def test_one_worker_per_gpu_where_there_are_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    with_resources(monkeypatch, cpus=8, gpus=2)
    assert place_workers("auto", 0, cpu_workers=2) == Placement(workers=2, use_gpu=True, cpus=1, threads=0)


def test_cpu_workers_leave_room_for_the_tasks_that_feed_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with_resources(monkeypatch, cpus=2)
    placement = place_workers("auto", 0, cpu_workers=2)
    assert placement == Placement(workers=2, use_gpu=False, cpus=0.5, threads=1)
    assert placement.workers * placement.cpus < 2


def test_cpu_workers_share_the_cores_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    with_resources(monkeypatch, cpus=8)
    assert place_workers("cpu", 3, cpu_workers=2) == Placement(workers=3, use_gpu=False, cpus=1, threads=2)


def test_gpu_workers_leave_room_for_the_tasks_that_feed_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with_resources(monkeypatch, cpus=2, gpus=2)
    assert place_workers("auto", 0, cpu_workers=2) == Placement(workers=2, use_gpu=True, cpus=0.5, threads=0)


def test_gpus_are_left_alone_when_the_cpu_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with_resources(monkeypatch, cpus=8, gpus=2)
    assert not place_workers("cpu", 0, cpu_workers=2).use_gpu


def test_more_workers_than_gpus_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with_resources(monkeypatch, cpus=8, gpus=2)
    with pytest.raises(ConfigError, match="--workers: 3, but Ray sees 2 GPUs"):
        place_workers("auto", 3, cpu_workers=2)


def test_workers_that_would_starve_their_feeding_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with_resources(monkeypatch, cpus=2)
    with pytest.raises(ConfigError, match="4 workers leave none of Ray's 2 CPUs"):
        place_workers("cpu", 4, cpu_workers=2)


def test_cuda_without_a_gpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with_resources(monkeypatch, cpus=8)
    with pytest.raises(ConfigError, match="--device: cuda, but Ray sees no GPU"):
        place_workers("cuda", 0, cpu_workers=2)


def test_at_least_two_cpus_are_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert local_cpus() == 2


def test_root_cause_is_the_innermost_reason_in_one_line() -> None:
    error = RuntimeError("wrapped")
    error.__cause__ = ValueError("two\nlines")
    assert root_cause(error) == "ValueError: lines"


def test_root_cause_is_read_from_the_traceback_that_ray_carries_as_text() -> None:
    traceback = "Traceback ...\nbrats.errors.StorageError: a.b: disk full"
    text = f"{traceback}\n\nThe above exception was the direct cause of the following exception: ..."
    assert root_cause(RuntimeError(text)) == "StorageError: a.b: disk full"


@pytest.mark.ray
@pytest.mark.usefixtures("embedded_ray")
def test_error_in_a_task_reaches_the_user_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    import ray.data

    def fail_on_three(row: dict[str, int]) -> dict[str, int]:
        if row["id"] == 3:
            raise ZeroDivisionError("three is bad")
        return row

    dataset = ray.data.range(5, override_num_blocks=5).map(fail_on_three)
    with pytest.raises(BratsError, match=r"^ZeroDivisionError: three is bad$"):
        list(rows_of(dataset))
    said = capfd.readouterr()
    assert said.out == said.err == ""
