"""Files on disk and in S3 behind one set of functions; each is written whole or not at all."""

import errno
import glob
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from brats.errors import SettingError, StorageError, UnreachableError
from brats.storage import s3
from brats.storage.range_file import RangeFile

UNFINISHED = ".partial-"  # how files that are being written are called
# What a disk that fails, or one on another machine that does not answer, is reported as.
UNREACHABLE = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EREMOTEIO}


@dataclass(frozen=True)
class FileInfo:
    """A file found by `list_files`: its full path or URL, and its size in bytes.

    stamp: changes whenever the file is written: its times of modification and of change locally, its ETag and its
           time in S3. Not compared: two listings of one file are equal.
    """

    path: str
    size: int
    stamp: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


def is_remote(path: str) -> bool:
    return s3.is_s3(path)


def check_endpoint() -> None:
    """Raise SettingError, without the secret, where the address of the S3 store contains credentials."""
    s3.check_endpoint()


def _local(path: str) -> str:
    """The path of a local file. Raises SettingError for a URL of another kind of storage."""
    if "://" in path:
        raise SettingError(f"{path}: neither a local path nor an s3:// URL; use one of them")
    return path


def join(root: str, *parts: str) -> str:
    return "/".join([root.rstrip("/"), *parts])


@contextmanager
def storage_errors(path: str, doing: str) -> Iterator[None]:
    """Turn errors of file systems and Parquet files into a StorageError that names the path.

    FileNotFoundError passes through: a missing file means different things to different callers.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise StorageError(
            f"{path}: not a whole Parquet file ({_one_line(error)}); remove it and run again"
        ) from error
    except OSError as error:
        reason = _one_line(error)
        if error.errno == errno.ENOSPC:
            reason = "no space left on the disk; free some and run the same command again"
        kind = UnreachableError if error.errno in UNREACHABLE else StorageError
        raise kind(f"{path}: cannot {doing}: {reason}") from error


def _one_line(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(reason.split())


def exists(path: str) -> bool:
    return s3.exists(path) if s3.is_s3(path) else os.path.exists(_local(path))


def list_files(root: str) -> list[FileInfo]:
    """Every file below a folder or prefix, at any depth, sorted by path: one listing, no request for each file.

    Raises FileNotFoundError where there is no such folder, SettingError for a file and where there is no such
    bucket; an empty folder gives an empty list.
    """
    if s3.is_s3(root):
        found = [FileInfo(*entry) for entry in s3.list_below(root)]
        # S3 consoles mark an empty folder by an object whose name ends with a slash.
        files = [file for file in found if file.name]
    else:
        with storage_errors(root, "list"):
            files = _list_local(_local(root))
    return sorted(files, key=lambda file: file.path)


def _check_folder(root: str) -> None:
    """Raise SettingError for a local path that is there, but is no folder."""
    if os.path.exists(root) and not os.path.isdir(root):
        raise SettingError(f"{root}: a file, not a folder; name a folder")


def _list_local(root: str) -> list[FileInfo]:
    _check_folder(root)
    if not os.path.isdir(root):
        raise FileNotFoundError(root)
    files = []
    visited = set()
    for folder, folders, names in os.walk(root, followlinks=True, onerror=_fail):
        real = os.path.realpath(folder)
        if real in visited:  # links may form cycles
            folders.clear()
            continue
        visited.add(real)
        folders.sort()
        for name in names:
            path = os.path.join(folder, name)
            with suppress(FileNotFoundError):  # deleted since it was listed, or a dangling link
                found = os.stat(path)
                # A program can set the first of the times, as `cp -p` and `rsync -t` do, but not the second.
                files.append(FileInfo(path, found.st_size, f"{found.st_mtime_ns} {found.st_ctime_ns}"))
    return files


def _fail(error: OSError) -> None:
    """Stop at an unreadable folder, so that its files are not skipped silently; ignore one deleted meanwhile."""
    if not isinstance(error, FileNotFoundError):
        raise error


def read_bytes(path: str) -> bytes:
    if s3.is_s3(path):
        return s3.get(path)
    with storage_errors(path, "read"), open(_local(path), "rb") as file:
        return file.read()


def open_ranged(url: str, n_end_bytes: int = 0) -> RangeFile:
    """An object in S3 opened so that each read of a range is one request for just that range.

    n_end_bytes: what is read with the opening, which is one request in any case; a Parquet file begins at its end
    """
    end, size = s3.get_end(url, max(n_end_bytes, 1))
    return RangeFile(partial(s3.get_range, url), size, size - len(end), end)


def write_bytes(path: str, data: bytes | memoryview) -> None:
    """Write a file whole: a reader sees the old content or the new, never a part.

    Locally through a hidden temporary file in the same folder and a rename; in S3 by one upload, which
    becomes visible only when complete.
    """
    if s3.is_s3(path):
        s3.put(path, bytes(data))
        return
    try:
        with storage_errors(path, "write"):
            _write_local(_local(path), data)
    except FileNotFoundError as error:  # the folder was deleted meanwhile
        raise StorageError(f"{path}: cannot write: {_one_line(error)}") from error


def _write_local(path: str, data: bytes | memoryview) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f"{UNFINISHED}{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def remove_unfinished(folder: str) -> None:
    """Remove what killed processes left in a folder in which none writes any more."""
    if s3.is_s3(folder):  # where nothing appears before it is whole
        return
    with storage_errors(folder, "remove"):
        for path in glob.glob(os.path.join(glob.escape(_local(folder)), f"{UNFINISHED}*")):
            with suppress(FileNotFoundError):
                os.unlink(path)


def remove(path: str) -> None:
    """Remove a file or a folder with all it holds; nothing happens where there is none."""
    if s3.is_s3(path):
        s3.remove(path)
        return
    with storage_errors(path, "remove"), suppress(FileNotFoundError):
        if os.path.isdir(_local(path)) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def check_roundtrip(root: str) -> None:
    """Check that a file written below a folder or prefix is read back unchanged, before a job depends on it.

    Makes a local folder. Raises SettingError (exit code 2) where a setting is wrong, a file is in its place or a
    store damages uploads, StorageError where a folder cannot be written or is full, or a store does not answer.
    """
    if s3.is_s3(root):
        from brats.storage.s3_check import check_store

        check_store(root)
        return
    _check_folder(_local(root))
    path = join(root, f".check-{uuid.uuid4().hex}")
    content = os.urandom(100_000)
    try:
        write_bytes(path, content)
        if read_bytes(path) != content:
            raise StorageError(f"{root}: a file written there is not read back unchanged; use another folder")
    finally:
        with suppress(StorageError):  # the first error is the one to report
            remove(path)


def read_json(path: str) -> dict[str, Any]:
    content = read_bytes(path)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise StorageError(f"{path}: not a JSON object")
    return value


def write_json(path: str, value: dict[str, Any]) -> None:
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())
