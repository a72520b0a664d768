"""A queue from the processes of Ray to the driver's console."""

from typing import Any

import pytest
import ray

from brats.cluster.relay import relayed

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]


def test_items_are_shown_in_order_before_the_block_ends() -> None:
    shown: list[int] = []
    with relayed(shown.append) as queue:
        for number in range(20):
            queue.put(number)
    assert shown == list(range(20))


def test_items_of_another_process_are_shown_here() -> None:
    def put(queue: Any) -> None:
        queue.put({"epoch": 1})

    shown: list[dict[str, int]] = []
    with relayed(shown.append) as queue:
        ray.get(ray.remote(num_cpus=0.5)(put).remote(queue))
    assert shown == [{"epoch": 1}]


def test_items_put_before_an_error_in_the_block_are_shown() -> None:
    shown: list[str] = []

    def put_and_fail() -> None:
        with relayed(shown.append) as queue:
            queue.put("before")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        put_and_fail()
    assert shown == ["before"]


def test_queue_that_is_lost_ends_the_block_all_the_same() -> None:
    with relayed(lambda _: None) as queue:
        ray.kill(queue.actor)
