"""Local and s3:// paths alike, through fsspec; files appear whole or not at all."""

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from brats.errors import StorageError

SCHEMA_VERSION = 1
"""Version of every table this project writes; raised when a reader of the old one would go wrong."""

COMPRESSION = "zstd"


@dataclass(frozen=True)
class FileInfo:
    """A file found by `list_files`: its full path or URL and its size in bytes."""

    path: str
    size: int

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


def is_remote(path: str) -> bool:
    return "://" in path


def absolute(path: str) -> str:
    """The path as other processes, with other working folders, can use it."""
    return path.rstrip("/") if is_remote(path) else os.path.abspath(os.path.expanduser(path))


def join(root: str, *parts: str) -> str:
    return "/".join([root.rstrip("/"), *parts])


def _filesystem(path: str) -> Any:
    try:
        return fsspec.core.url_to_fs(path)[0]
    except (ImportError, ValueError) as error:
        raise StorageError(f"{path}: {error}; use a local path or an s3:// URL") from error


@contextmanager
def _said_plainly(path: str, doing: str) -> Iterator[None]:
    """Turn the many errors of file systems and stores into one line that names the path.

    FileNotFoundError passes through: a missing file means different things to different callers.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        if error.errno == errno.ENOSPC:
            reason = "no space left on the disk; free some and run the same command again"
        elif isinstance(error, PermissionError):
            reason = "permission denied"
        raise StorageError(f"{path}: cannot {doing}: {reason}") from error


def exists(path: str) -> bool:
    with _said_plainly(path, "look it up"):
        return bool(_filesystem(path).exists(path))


def is_dir(path: str) -> bool:
    with _said_plainly(path, "look it up"):
        return bool(_filesystem(path).isdir(path))


def list_files(root: str) -> list[FileInfo]:
    """Every file below a folder or prefix, at any depth, sorted by path: one listing, no look at each file.

    Raises FileNotFoundError where there is no such folder; an empty folder gives an empty list.
    """
    filesystem = _filesystem(root)
    with _said_plainly(root, "list"):
        if not is_remote(root):
            return _list_local(root)
        found = filesystem.find(root, detail=True)
        if not found and not filesystem.exists(root):
            raise FileNotFoundError(root)
    scheme = root.split("://", 1)[0]
    return sorted(
        (FileInfo(f"{scheme}://{name}", int(entry["size"])) for name, entry in found.items()),
        key=lambda file: file.path,
    )


def _list_local(root: str) -> list[FileInfo]:
    if not os.path.isdir(root):
        raise FileNotFoundError(root)
    files = []
    for folder, _, names in os.walk(root, followlinks=True):
        for name in names:
            path = os.path.join(folder, name)
            with suppress(FileNotFoundError):  # removed since it was listed, or a dangling link
                files.append(FileInfo(path, os.path.getsize(path)))
    return sorted(files, key=lambda file: file.path)


def read_bytes(path: str) -> bytes:
    with _said_plainly(path, "read"):
        data: bytes = _filesystem(path).cat_file(path)
        return data


def write_bytes(path: str, data: bytes | memoryview) -> None:
    """Write a file whole: a reader sees the old content or the new, never a part.

    Locally through a hidden temporary file in the same folder and a rename; in S3 by one upload, which
    becomes visible only when complete.
    """
    with _said_plainly(path, "write"):
        if is_remote(path):
            _filesystem(path).pipe_file(path, bytes(data))
            return
        folder = os.path.dirname(os.path.abspath(path))
        os.makedirs(folder, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".partial-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def remove(path: str) -> None:
    """Remove a file or a folder with all it holds; nothing happens where there is none."""
    with _said_plainly(path, "remove"), suppress(FileNotFoundError):
        _filesystem(path).rm(path, recursive=True)


def read_json(path: str) -> dict[str, Any]:
    content = read_bytes(path)
    try:
        value: dict[str, Any] = json.loads(content)
    except ValueError as error:
        raise StorageError(f"{path}: not JSON ({error})") from error
    return value


def write_json(path: str, value: dict[str, Any]) -> None:
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


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
            "prepare the data again into a new folder"
        )
    return metadata


def write_table(path: str, table: pa.Table, metadata: dict[str, Any]) -> None:
    """Write a Parquet table with its metadata."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.cast(with_metadata(table.schema, metadata)), sink, compression=COMPRESSION)
    write_bytes(path, memoryview(sink.getvalue()))


def read_table(path: str) -> tuple[pa.Table, dict[str, Any]]:
    """Read a Parquet table that `write_table` wrote, and its metadata."""
    content = read_bytes(path)
    try:
        table = pq.read_table(pa.BufferReader(content))
    except pa.ArrowInvalid as error:
        raise StorageError(f"{path}: not a Parquet file ({error})") from error
    return table, schema_metadata(table.schema, path)
