"""Items made ready ahead. The thread is tried without a GPU, with what pins the memory replaced."""

import threading
from collections.abc import Iterator

import pytest
import torch

from brats.model.prefetch import DEPTH, pin, prefetched

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """The devices that a thread set; nothing is set in truth."""
    devices: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", devices.append)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    return devices


def test_every_item_comes_once_in_order() -> None:
    assert list(prefetched(iter("abcde"), CPU)) == list("abcde")


def test_no_more_items_are_made_ready_than_the_depth() -> None:
    taken = []

    def counted() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    ready = prefetched(counted(), CPU)
    next(ready)
    ready.close()  # waits for what is in the making
    assert len(taken) <= 1 + DEPTH


def test_error_of_the_items_reaches_the_training_loop_after_those_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 0
        yield 1
        raise OSError("the stream broke")

    ready = prefetched(broken(), CPU)
    assert [next(ready), next(ready)] == [0, 1]
    with pytest.raises(OSError, match="the stream broke"):
        next(ready)


def test_first_items_are_fetched_before_they_are_asked_for() -> None:
    fetched = threading.Event()

    def stream() -> Iterator[int]:
        fetched.set()
        yield 0

    prefetched(stream(), CPU)
    assert fetched.wait(10)


@pytest.mark.parametrize(("device", "expected"), [(CUDA, [CUDA]), (torch.device("cuda"), []), (CPU, [])])
def test_the_thread_pins_memory_for_the_gpu_that_is_named(
    without_gpu: list[torch.device], device: torch.device, expected: list[torch.device]
) -> None:
    assert list(prefetched(iter([0]), device)) == [0]
    assert without_gpu == expected


@pytest.mark.usefixtures("without_gpu")
def test_only_what_goes_to_a_gpu_is_pinned() -> None:
    tensor = torch.ones(3)
    assert pin(tensor, CPU) is tensor
    assert pin(tensor, CUDA) is not tensor
