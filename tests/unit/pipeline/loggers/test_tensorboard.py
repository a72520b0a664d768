"""Event files: read back by another reader, one for each epoch, nothing twice after a resume."""

import struct
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from brats.pipeline.loggers.tensorboard import PREFIX, write_events


def read_events(folder: Path) -> list[dict[str, Any]]:
    """The events of all files, in the order in which TensorBoard reads them."""
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            events.append(MessageToDict(Event.FromString(content[12 : 12 + length])))
            content = content[16 + length :]
    return events


def scalars(run: Path) -> list[tuple[int, str, float]]:
    """Step, tag and value of every scalar."""
    return [
        (int(event["step"]), value["tag"], value["simpleValue"])
        for event in read_events(run / "tensorboard")
        for value in event.get("summary", {}).get("value", [])
    ]


def test_every_figure_of_every_epoch_is_a_scalar_at_its_epoch(tmp_path: Path) -> None:
    write_events(str(tmp_path), [(1, {"loss/train": 0.5, "dice/val": 0.25}), (2, {"loss/train": 0.125})])
    assert scalars(tmp_path) == [(1, "loss/train", 0.5), (1, "dice/val", 0.25), (2, "loss/train", 0.125)]


def test_each_file_begins_with_the_version_of_its_form(tmp_path: Path) -> None:
    write_events(str(tmp_path), [(1, {"a": 1.0})])
    assert read_events(tmp_path / "tensorboard")[0]["fileVersion"] == "brain.Event:2"


def test_records_are_those_that_the_writer_of_tensorboardx_makes(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter

    write_events(str(tmp_path), [(3, {"a": 0.5})])
    (path,) = (tmp_path / "tensorboard").iterdir()
    content = path.read_bytes()
    writer = RecordWriter(str(tmp_path / "theirs"))
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        writer.write(Event.FromString(content[12 : 12 + length]).SerializeToString())
        content = content[16 + length :]
    writer.close()
    assert (tmp_path / "theirs").read_bytes() == path.read_bytes()


def test_a_resume_writes_what_is_missing_and_removes_epochs_that_are_trained_again(tmp_path: Path) -> None:
    epochs = [(number, {"a": float(number)}) for number in (1, 2, 3)]
    write_events(str(tmp_path), epochs)
    (tmp_path / "tensorboard" / "events-of-mine").write_bytes(b"")
    first = tmp_path / "tensorboard" / f"{PREFIX}0000000001"
    written = first.stat().st_mtime_ns
    write_events(str(tmp_path), epochs[:2])
    assert scalars(tmp_path) == [(1, "a", 1.0), (2, "a", 2.0)]
    write_events(str(tmp_path), epochs)
    assert scalars(tmp_path) == [(1, "a", 1.0), (2, "a", 2.0), (3, "a", 3.0)]
    assert first.stat().st_mtime_ns == written
    assert (tmp_path / "tensorboard" / "events-of-mine").exists()


def test_epochs_are_read_in_order_however_many_there_are(tmp_path: Path) -> None:
    write_events(str(tmp_path), [(number, {"a": 0.0}) for number in (9, 10, 100)])
    assert [step for step, _, _ in scalars(tmp_path)] == [9, 10, 100]


@pytest.mark.medium
def test_event_files_are_written_to_s3(s3_bucket: str) -> None:
    from brats import storage

    write_events(s3_bucket, [(1, {"a": 1.0}), (2, {"a": 2.0})])
    write_events(s3_bucket, [(1, {"a": 1.0})])
    assert [file.name for file in storage.list_files(f"{s3_bucket}/tensorboard")] == [f"{PREFIX}0000000001"]
