"""Batches made ready by a thread, in pinned memory for a GPU, while the network is built and computes on others."""

import dataclasses
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from brats.data.batches import WorkerBatch
from brats.data.slices import SliceBatch

DEPTH = 2  # batches ready or in the making


def prefetched(batches: Iterator[WorkerBatch], device: torch.device) -> Generator[WorkerBatch]:
    """The same batches in the same order, the first ones fetched from now on.

    For a GPU they are in pinned memory, from which copies do not hold up the host. An error of `batches` is raised
    where its batch would have come.
    """
    on_gpu = device.type == "cuda"
    # Pinning makes a CUDA context on the thread's own device, which is the first GPU unless it is told another.
    thread = ThreadPoolExecutor(1, initializer=lambda: torch.cuda.set_device(device) if on_gpu else None)
    take = _next_pinned if on_gpu else _next

    def fetch() -> Future[WorkerBatch | None]:
        return thread.submit(take, batches)

    return _in_order(thread, fetch, deque(fetch() for _ in range(DEPTH)))


def _in_order(
    thread: ThreadPoolExecutor,
    fetch: Callable[[], Future[WorkerBatch | None]],
    coming: deque[Future[WorkerBatch | None]],
) -> Generator[WorkerBatch]:
    with thread:
        while (batch := coming.popleft().result()) is not None:
            coming.append(fetch())
            yield batch


def _next(batches: Iterator[WorkerBatch]) -> WorkerBatch | None:
    return next(batches, None)


def _next_pinned(batches: Iterator[WorkerBatch]) -> WorkerBatch | None:
    batch = next(batches, None)
    return batch and dataclasses.replace(batch, slices=_pinned(batch.slices))


def _pinned(slices: SliceBatch) -> SliceBatch:
    arrays = {field.name: getattr(slices, field.name) for field in dataclasses.fields(slices)}
    return SliceBatch(**{name: torch.from_numpy(array).pin_memory().numpy() for name, array in arrays.items()})
