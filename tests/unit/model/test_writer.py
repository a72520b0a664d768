"""The thread that writes checkpoints: one at a time, and no error is lost."""

import threading
from collections.abc import Callable

import pytest

from brats.errors import StorageError
from brats.model.checkpoint import Checkpoint
from brats.model.writer import CheckpointWriter


def checkpoint(epoch: int) -> Checkpoint:
    return Checkpoint(weights={}, average=None, optimiser={}, scaler={}, history=[{"epoch": epoch}])


class Disk:
    """Notes what is written; the first write waits for `released`, and fails where it is to."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.released, self.error = threading.Event(), error
        self.begun: list[int] = []
        self.written: list[int] = []

    def write(self, checkpoint: Checkpoint) -> None:
        self.begun.append(checkpoint.epoch)
        self.released.wait()
        if self.error:
            raise self.error
        self.written.append(checkpoint.epoch)


def test_submitting_does_not_wait_for_what_it_submits() -> None:
    disk = Disk()
    with CheckpointWriter(disk.write) as writer:
        writer.submit(checkpoint(1))
        assert disk.written == []
        disk.released.set()
        writer.wait()
        assert disk.written == [1]


def test_one_checkpoint_is_written_at_a_time() -> None:
    disk = Disk()
    with CheckpointWriter(disk.write) as writer:
        writer.submit(checkpoint(1))
        threading.Timer(0.05, disk.released.set).start()
        writer.submit(checkpoint(2))
        assert disk.written[:1] == [1]
        writer.wait()
    assert disk.written == [1, 2]


@pytest.mark.parametrize("later", [lambda writer: writer.wait(), lambda writer: writer.submit(checkpoint(2))])
@pytest.mark.parametrize("error", [StorageError("the disk is full"), KeyboardInterrupt()])
def test_an_error_in_writing_is_raised_by_what_comes_next_and_once(
    later: Callable[[CheckpointWriter], None], error: BaseException
) -> None:
    disk = Disk(error)
    disk.released.set()
    with CheckpointWriter(disk.write) as writer:
        writer.submit(checkpoint(1))
        with pytest.raises(type(error)):
            later(writer)
        writer.wait()
    assert disk.begun == [1]


def test_an_error_beside_it_leaves_what_is_being_written_whole() -> None:
    disk = Disk()

    def fail() -> None:
        with CheckpointWriter(disk.write) as writer:
            writer.submit(checkpoint(1))
            threading.Timer(0.05, disk.released.set).start()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert disk.written == [1]
