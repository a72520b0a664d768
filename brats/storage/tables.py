"""Parquet tables that state their kind, its version and its conventions in their metadata."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from brats.errors import StorageError
from brats.storage.files import read_bytes, storage_errors, write_bytes

COMPRESSION = "zstd"
KEY = "brats"  # of the metadata, in the schema's own
FIRST_VERSION = 1  # of every table before kinds had versions of their own


@dataclass(frozen=True, kw_only=True)
class TableKind:
    """A kind of table, as readers and writers agree on it.

    version:     of its form; raised when a reader of the old one would go wrong
    schema:      columns and their types
    conventions: what the columns mean, by column; goes into the metadata of each file
    """

    name: str
    version: int = FIRST_VERSION
    schema: pa.Schema
    conventions: Mapping[str, str] = field(default_factory=dict)

    def table(self, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
        """Rows as a table; a column that a row lacks is null there."""
        return pa.Table.from_pylist(list(rows), schema=self.schema)


def with_metadata(schema: pa.Schema, kind: TableKind, metadata: Mapping[str, Any]) -> pa.Schema:
    """A schema that carries kind, version, conventions and further JSON metadata under `KEY`."""
    conventions = {"conventions": dict(kind.conventions)} if kind.conventions else {}
    content = {"kind": kind.name, "version": kind.version, **conventions, **metadata}
    return schema.with_metadata({KEY: json.dumps(content)})


def read_metadata(schema: pa.Schema, path: str, kind: TableKind) -> dict[str, Any]:
    """The metadata that `with_metadata` stored. Raises StorageError for another program, kind or version."""
    content = (schema.metadata or {}).get(KEY.encode())
    if content is None:
        raise StorageError(f"{path}: not written by brats-ray (its schema has no `{KEY}` metadata)")
    try:
        metadata: dict[str, Any] = dict(json.loads(content))
    except (TypeError, ValueError, RecursionError) as error:
        raise StorageError(f"{path}: damaged, its metadata are not a JSON object; make it again") from error
    found = metadata.get("kind", kind.name)  # files of before kinds had names say none
    if found != kind.name:
        raise StorageError(f"{path}: a table of the kind {found!r}, where {kind.name!r} is expected")
    version = metadata.get("version", FIRST_VERSION)
    if version != kind.version:
        raise StorageError(
            f"{path}: {kind.name!r} of version {version!r}, this program reads {kind.version}; "
            "make it again, in a new folder"
        )
    return metadata


def write_table(path: str, kind: TableKind, table: pa.Table, **metadata: Any) -> None:
    """Write a Parquet table with its metadata."""
    sink = pa.BufferOutputStream()
    schema = with_metadata(table.schema, kind, metadata)
    pq.write_table(table.replace_schema_metadata(schema.metadata), sink, compression=COMPRESSION)
    write_bytes(path, memoryview(sink.getvalue()))


def read_table(path: str, kind: TableKind) -> pa.Table:
    """Read a Parquet table that `write_table` wrote; `read_metadata` takes its schema.

    Raises FileNotFoundError where there is none, StorageError for a file that is damaged, of another program, kind
    or version.
    """
    content = read_bytes(path)
    with storage_errors(path, "read"):
        table = pq.read_table(pa.BufferReader(content))
        table.validate(full=True)
        schema = table.schema
    read_metadata(schema, path, kind)
    for column in kind.schema:
        index = schema.get_field_index(column.name)  # -1 in tables of before there was the column
        if index >= 0 and schema.field(index).type != column.type:
            raise StorageError(
                f"{path}: damaged, its column {column.name!r} is not of {column.type}; make it again"
            )
    return table
