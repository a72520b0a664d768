"""Event files for TensorBoard in RUN/tensorboard: one for each epoch, written whole.

TensorBoard shows the files of a folder as one run, and finds new ones while it is open. A file that is written
again under its name it would not: its server keeps each one open.
"""

import struct
import time
from collections.abc import Mapping

from brats import storage
from brats.pipeline.loggers.logger import Epochs

PREFIX = "events.out.tfevents."  # how TensorBoard knows its files; it reads them in the order of their names
FORMAT = "brain.Event:2"


def tensorboard_dir(run: str) -> str:
    return storage.join(run, "tensorboard")


class TensorBoard:
    """Logs to the folder of the run; nothing stays open."""

    def __init__(self, run: str) -> None:
        self._run = run

    def log(self, epochs: Epochs) -> None:
        write_events(self._run, epochs)

    def close(self, *, finished: bool) -> None:
        """Nothing is left to do."""


def write_events(run: str, epochs: Epochs) -> None:
    """Write a file for each epoch that has none yet, and remove those of epochs that are to be trained again.

    epochs: their numbers and their figures by name

    Raises StorageError.
    """
    folder = tensorboard_dir(run)
    try:
        found = {file.name for file in storage.list_files(folder)}
    except FileNotFoundError:
        found = set()
    wanted = {f"{PREFIX}{epoch:010d}": (epoch, figures) for epoch, figures in epochs}
    for name in sorted(found - wanted.keys()):
        if name.startswith(PREFIX):
            storage.remove(storage.join(folder, name))
    for name, (epoch, figures) in wanted.items():
        if name not in found:
            storage.write_bytes(storage.join(folder, name), event_file(epoch, figures, time.time()))


def event_file(epoch: int, figures: Mapping[str, float], wall_time: float) -> bytes:
    """The content of an event file with the figures of one epoch, each a scalar.

    wall_time: seconds since 1970
    """
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
    events = [
        Event(wall_time=wall_time, file_version=FORMAT),
        Event(wall_time=wall_time, step=epoch, summary=Summary(value=values)),
    ]
    return b"".join(record(event.SerializeToString()) for event in events)


def record(content: bytes) -> bytes:
    """A record of a TFRecord file: its length and its content, each followed by its checksum."""
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack("<Q", len(content))
    checksums = (struct.pack("<I", masked_crc32c(each)) for each in (length, content))
    return length + next(checksums) + content + next(checksums)
