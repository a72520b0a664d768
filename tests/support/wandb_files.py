"""Reads what Weights & Biases writes offline: a log in the form of LevelDB, each record a protocol buffer."""

import json
import struct
from pathlib import Path
from typing import Any

BLOCK, FILE_HEADER, RECORD_HEADER = 2**15, 7, 7  # bytes
FULL, LAST = 1, 4  # kinds of a piece that end a record


def read_records(path: Path) -> list[Any]:
    """The records of a `.wandb` file."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, position, pieces, records = path.read_bytes(), FILE_HEADER, b"", []
    while position + RECORD_HEADER <= len(content):
        if BLOCK - position % BLOCK < RECORD_HEADER:  # the rest of a block has no room for a header
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += RECORD_HEADER
        pieces += content[position : position + length]
        position += length
        if kind in (FULL, LAST):
            records.append(Record.FromString(pieces))
            pieces = b""
    return records


def logged_points(path: Path) -> list[tuple[int, str, float]]:
    """Step, name and value of every figure that was logged."""
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in read_records(path)
        if record.HasField("history")
    ]
    return [(row["_step"], name, value) for row in rows for name, value in row.items() if not name.startswith("_")]


def logged_config(path: Path) -> dict[str, Any]:
    """The configuration that the run was opened with."""
    (run,) = [record.run for record in read_records(path) if record.HasField("run")]
    return {item.key: json.loads(item.value_json) for item in run.config.update}
