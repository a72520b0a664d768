"""Items made ready by a thread, while the network is built and computes on others."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

DEPTH = 2  # items ready or in the making

T = TypeVar("T")


def prefetched(items: Iterator[T], device: torch.device) -> Generator[T]:
    """The same items in the same order, the first ones fetched from now on.

    An error of `items` is raised where its item would have come. device: whose memory the thread pins
    """
    thread = ThreadPoolExecutor(1, initializer=use_device, initargs=(device,))

    def fetch() -> T | None:
        return next(items, None)

    coming = deque(thread.submit(fetch) for _ in range(DEPTH))  # now, and not when the first one is asked for

    def in_order() -> Generator[T]:
        with thread:
            while (item := coming.popleft().result()) is not None:
                coming.append(thread.submit(fetch))
                yield item

    return in_order()


def pin(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor in pinned memory where it is to go to a GPU: the host need not wait for that copy."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


def use_device(device: torch.device) -> None:
    """Pin memory for this device from now on: in each new thread it is the first GPU."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
