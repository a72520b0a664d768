"""Batches made ready ahead. The thread is tried without a GPU, with what pins the memory replaced."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from brats.data.batches import SliceBatch, WorkerBatch
from brats.model.prefetch import DEPTH, prefetched

CUDA = torch.device("cuda", 0)


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())


def batch(step: int = 0) -> WorkerBatch:
    pixels = np.full((2, 1, 4, 4), step, np.int16)
    ones = np.ones((2, 1), np.float32)
    slices = SliceBatch(images=pixels, offset=ones, scale=ones, background=ones, tolerance=ones)
    labels = np.full((2, 4, 4), step, np.uint8)
    return WorkerBatch(epoch=1, step=step, first=0, n_global=2, slices=slices, labels=labels)


@pytest.mark.usefixtures("without_gpu")
def test_every_batch_comes_once_in_order_with_its_content() -> None:
    batches = [batch(step) for step in range(5)]
    ready = list(prefetched(iter(batches), CUDA))
    assert len(ready) == 5
    for one, other in zip(ready, batches, strict=True):
        assert one is not other
        assert (one.epoch, one.step, one.first, one.n_global) == (
            other.epoch,
            other.step,
            other.first,
            other.n_global,
        )
        np.testing.assert_array_equal(one.slices.images, other.slices.images)
        np.testing.assert_array_equal(one.labels, other.labels)
        assert not np.shares_memory(one.slices.images, other.slices.images)
        assert not np.shares_memory(one.labels, other.labels)


@pytest.mark.usefixtures("without_gpu")
def test_no_more_batches_are_made_ready_than_the_depth() -> None:
    taken = []

    def counted() -> Iterator[WorkerBatch]:
        for number in range(10):
            taken.append(number)
            yield batch(number)

    ready = prefetched(counted(), CUDA)
    next(ready)
    ready.close()  # waits for what is in the making
    assert len(taken) <= 1 + DEPTH


@pytest.mark.usefixtures("without_gpu")
def test_error_of_the_stream_reaches_the_training_loop_after_the_batches_before_it() -> None:
    def broken() -> Iterator[WorkerBatch]:
        yield batch(0)
        yield batch(1)
        raise OSError("the stream broke")

    ready = prefetched(broken(), CUDA)
    next(ready)
    next(ready)
    with pytest.raises(OSError, match="the stream broke"):
        next(ready)


def test_first_batches_are_fetched_before_they_are_asked_for() -> None:
    fetched = threading.Event()

    def stream() -> Iterator[WorkerBatch]:
        fetched.set()
        yield batch()

    prefetched(stream(), torch.device("cpu"))
    assert fetched.wait(10)


def test_on_a_cpu_the_batches_are_not_copied() -> None:
    batches = [batch(step) for step in range(3)]
    assert [id(one) for one in prefetched(iter(batches), torch.device("cpu"))] == [id(one) for one in batches]
