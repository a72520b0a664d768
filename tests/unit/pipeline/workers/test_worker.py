"""A training worker's watch for missing GPUs; what it trains is tested in test_train."""

from typing import Any

import pytest

from brats.cluster.placement import Placement
from brats.pipeline.workers import worker
from brats.pipeline.workers.worker import MissingGpus

TWO_MISSING = Placement(workers=1, use_gpu=True, cpus=1, threads=0, missing=2)


class Reservations:
    """Plays Ray's placement groups: numbered, and there once `arrived`."""

    def __init__(self) -> None:
        self.asked: list[list[dict[str, float]]] = []
        self.arrived: set[int] = set()
        self.released: list[int] = []

    def reserve(self, bundles: Any) -> int:
        self.asked.append(list(bundles))
        return len(self.asked) - 1


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Reservations:
    reservations = Reservations()
    monkeypatch.setattr(worker, "reserve", reservations.reserve)
    monkeypatch.setattr(worker, "is_reserved", lambda group: group in reservations.arrived)
    monkeypatch.setattr(worker, "release", reservations.released.append)
    return reservations


def test_each_missing_gpu_is_reserved_once(ray: Reservations) -> None:
    missing = MissingGpus(TWO_MISSING)
    assert not missing.one_is_here()
    assert not missing.one_is_here()
    assert ray.asked == [[{"CPU": 1, "GPU": 1}], [{"CPU": 1, "GPU": 1}]]


def test_gpu_that_has_come_is_noticed(ray: Reservations) -> None:
    missing = MissingGpus(TWO_MISSING)
    assert not missing.one_is_here()
    ray.arrived.add(1)
    assert missing.one_is_here()


def test_reservations_are_released_at_the_end(ray: Reservations) -> None:
    missing = MissingGpus(TWO_MISSING)
    missing.one_is_here()
    missing.release()
    assert ray.released == [0, 1]


def test_nothing_is_reserved_on_cpus(ray: Reservations) -> None:
    missing = MissingGpus(Placement(workers=1, use_gpu=False, cpus=1, threads=2, missing=1))
    assert not missing.one_is_here()
    missing.release()
    assert ray.asked == []
    assert ray.released == []
