"""CUDA graphs: work of the device recorded once and replayed, which spares the host launching every kernel."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

Work = Callable[[Mapping[str, Tensor]], None]
"""Work on input tensors. It leaves its results in tensors that outlive it."""


class Recording(Protocol):
    """Work that has been recorded."""

    def replay(self, tensors: Mapping[str, Tensor]) -> None:
        """Do the work on these tensors, of the shapes it was recorded for."""
        ...


@dataclass(frozen=True, kw_only=True)
class CapturedWork:
    """Work recorded as a CUDA graph, which reads its input from tensors that stay where they are."""

    graph: Any
    inputs: Mapping[str, Tensor]

    def replay(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Recording`. Nothing waits for the device; tensors in pinned memory are copied on the way."""
        for name, tensor in tensors.items():
            self.inputs[name].copy_(tensor, non_blocking=True)
        self.graph.replay()


Recorder = Callable[[Work, Mapping[str, Tensor]], Recording]
"""Records work on inputs like these; it is not done yet. Raises RuntimeError where it cannot be recorded."""


class GraphRecorder:
    """Records work on one GPU, inside `recordable`. Recordings share memory: they must not run at the same time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Work, tensors: Mapping[str, Tensor]) -> Recording:
        """A `Recorder`. The work must have been done before, so that what is made at a first time is there."""
        inputs = {name: torch.empty_like(tensor, device=self._device) for name, tensor in tensors.items()}
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream(self._device)
        # Other threads pin memory meanwhile, which by default would end the recording.
        with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
            work(inputs)
        return CapturedWork(graph=graph, inputs=inputs)


@contextmanager
def refusing_waits(device: torch.device) -> Iterator[None]:
    """Inside, work that waits for a GPU, and so cannot be recorded, raises RuntimeError.

    It is to be found out before: a recording that fails leaves torch's allocator unable to make room.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def recordable(device: torch.device) -> Iterator[None]:
    """Inside, what a GPU is given to do can be recorded: its default stream allows no recording.

    Training, validation and checkpoints all belong in here: between streams there would be no order.
    """
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_device(device)
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)
