"""Batches brought into pinned memory by a thread, while the GPU computes on those before."""

import dataclasses
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from brats.data.share import WorkerBatch
from brats.data.slices import SliceBatch

DEPTH = 2  # batches ready or in the making


def prefetched(batches: Iterator[WorkerBatch], device: torch.device) -> Generator[WorkerBatch]:
    """The same batches in the same order; for a GPU in pinned memory, from which copies do not hold up the host.

    An error of `batches` is raised where its batch would have come.
    """
    if device.type != "cuda":
        yield from batches
        return
    # Pinning makes a CUDA context on the thread's own device, which is the first GPU unless it is told another.
    with ThreadPoolExecutor(1, initializer=torch.cuda.set_device, initargs=(device,)) as thread:
        coming = deque(thread.submit(_next_pinned, batches) for _ in range(DEPTH))
        while (batch := coming.popleft().result()) is not None:
            coming.append(thread.submit(_next_pinned, batches))
            yield batch


def _next_pinned(batches: Iterator[WorkerBatch]) -> WorkerBatch | None:
    batch = next(batches, None)
    return batch and dataclasses.replace(batch, slices=_pinned(batch.slices))


def _pinned(slices: SliceBatch) -> SliceBatch:
    arrays = {field.name: getattr(slices, field.name) for field in dataclasses.fields(slices)}
    return SliceBatch(**{name: torch.from_numpy(array).pin_memory().numpy() for name, array in arrays.items()})
