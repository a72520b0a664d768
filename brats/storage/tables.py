"""Parquet tables with JSON metadata: the kind of file, its version, the configuration and the conventions."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from brats.errors import StorageError
from brats.storage.files import read_bytes, storage_errors, write_bytes

SCHEMA_VERSION = 1
"""Version of every table this project writes; raised when a reader of the old one would go wrong."""

COMPRESSION = "zstd"


def with_metadata(schema: pa.Schema, metadata: dict[str, Any]) -> pa.Schema:
    """A schema that carries JSON metadata under the key `brats`, schema version included."""
    content = json.dumps({"schema_version": SCHEMA_VERSION, **metadata})
    return schema.with_metadata({"brats": content})


def schema_metadata(schema: pa.Schema, path: str) -> dict[str, Any]:
    """The metadata that `with_metadata` stored. Raises StorageError for files of another program or version."""
    content = (schema.metadata or {}).get(b"brats")
    if content is None:
        raise StorageError(f"{path}: not written by brats-ray (its schema has no `brats` metadata)")
    metadata: dict[str, Any] = json.loads(content)
    if metadata["schema_version"] != SCHEMA_VERSION:
        raise StorageError(
            f"{path}: schema version {metadata['schema_version']}, this program reads {SCHEMA_VERSION}; "
            "make it again, in a new folder"
        )
    return metadata


def write_table(path: str, table: pa.Table, metadata: dict[str, Any]) -> None:
    """Write a Parquet table with its metadata."""
    sink = pa.BufferOutputStream()
    schema = with_metadata(table.schema, metadata)
    pq.write_table(table.replace_schema_metadata(schema.metadata), sink, compression=COMPRESSION)
    write_bytes(path, memoryview(sink.getvalue()))


def read_table(path: str) -> tuple[pa.Table, dict[str, Any]]:
    """Read a Parquet table that `write_table` wrote, and its metadata.

    Raises FileNotFoundError where there is none, StorageError for a file that is damaged or not of this program.
    """
    content = read_bytes(path)
    with storage_errors(path, "read"):
        table = pq.read_table(pa.BufferReader(content))
    return table, schema_metadata(table.schema, path)
