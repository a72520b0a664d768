"""Batches fetched by a thread, into pinned memory for a GPU, while the network is built and computes on others."""

import dataclasses
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from brats.data.batches import SliceBatch, WorkerBatch

DEPTH = 2  # batches ready or in the making


def prefetched(batches: Iterator[WorkerBatch], device: torch.device) -> Generator[WorkerBatch]:
    """The same batches in the same order, the first ones fetched from now on.

    For a GPU they are in pinned memory, from which copies do not hold up the host. An error of `batches` is raised
    where its batch would have come.
    """
    on_gpu = device.type == "cuda"
    thread = ThreadPoolExecutor(1, initializer=lambda: _use(device))

    def fetch() -> WorkerBatch | None:
        batch = next(batches, None)
        return _pinned(batch) if batch and on_gpu else batch

    coming = deque(thread.submit(fetch) for _ in range(DEPTH))  # now, and not when the first one is asked for

    def in_order() -> Generator[WorkerBatch]:
        with thread:
            while (batch := coming.popleft().result()) is not None:
                coming.append(thread.submit(fetch))
                yield batch

    return in_order()


def _use(device: torch.device) -> None:
    """Pin memory for this device from now on: in each new thread it is the first GPU."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)


def _pinned(batch: WorkerBatch) -> WorkerBatch:
    arrays = {field.name: _pin(getattr(batch.slices, field.name)) for field in dataclasses.fields(batch.slices)}
    return dataclasses.replace(batch, slices=SliceBatch(**arrays), labels=_pin(batch.labels))


def _pin(array: Any) -> Any:
    return torch.from_numpy(array).pin_memory().numpy()
