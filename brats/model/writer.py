"""Checkpoints written by a thread, while the next epoch trains."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from brats.model.checkpoint import Checkpoint


class CheckpointWriter:
    """A thread that writes one checkpoint at a time. Left with an error or without, it ends what it is writing."""

    def __init__(self, write: Callable[[Checkpoint], None]) -> None:
        self._write = write
        self._thread = ThreadPoolExecutor(1)
        self._under_way: Future[None] | None = None

    def submit(self, checkpoint: Checkpoint) -> None:
        """Begin to write a checkpoint, once the one before is written; errors as of `wait`."""
        self.wait()
        self._under_way = self._thread.submit(self._write, checkpoint)

    def wait(self) -> None:
        """Wait until what was submitted is written. An error in writing it is raised here, once."""
        under_way, self._under_way = self._under_way, None
        if under_way:
            under_way.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
