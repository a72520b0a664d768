"""Small files of one writer: made only where there is none, replaced and removed only as they were last read.

On a disk a file is made by a link, which only one process can, and changed under a lock of the old file. In S3 the
store compares.
"""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

from brats.errors import StorageError
from brats.storage import s3
from brats.storage.files import UNFINISHED, storage_errors


@dataclass(frozen=True)
class Seen:
    """A file as it was read.

    version: changes whenever the file is written
    age_s:   since it was written, by the clock of the disk or store: those of machines may differ
    """

    content: bytes
    version: str
    age_s: float


def is_guarded(root: str) -> bool:
    """Whether the store of a folder or prefix keeps to conditions; where it does not, nothing here is exclusive."""
    if s3.is_s3(root):
        from brats.storage.s3_compare import keeps_conditions

        return keeps_conditions(root)
    return True


def create(path: str, content: bytes) -> bool:
    """Make a file, whole, where there is none; return whether it was made. Its folder is made too.

    In S3 False may also mean that the answer to the first of several requests was lost: the content tells.
    """
    if s3.is_s3(path):
        from brats.storage.s3_compare import put_if

        return put_if(path, content, None) is not None
    try:
        with storage_errors(path, "write"):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with _temporary(path, content) as temporary:
                return _link(temporary, path, content)
    except FileNotFoundError as error:  # the folder was deleted meanwhile
        raise StorageError(f"{path}: cannot write: its folder is gone; run again") from error


def look(path: str, retry_limit_s: float | None = None) -> Seen | None:
    """The file as it is now; None where there is none."""
    try:
        if s3.is_s3(path):
            from brats.storage.s3_compare import read_dated

            return Seen(*read_dated(path, retry_limit_s))
        with storage_errors(path, "read"):
            return _look_local(path)
    except FileNotFoundError:
        return None


def replace(path: str, content: bytes, version: str, retry_limit_s: float | None = None) -> bool:
    """Write a file, whole, unless its version is another by now; return whether it was written.

    For S3, what holds for `create`.
    """
    if s3.is_s3(path):
        from brats.storage.s3_compare import put_if

        return put_if(path, content, version, retry_limit_s) is not None
    with suppress(FileNotFoundError), storage_errors(path, "write"), _unchanged(path, version) as unchanged:
        if unchanged:
            with _temporary(path, content) as temporary:
                os.replace(temporary, path)
        return unchanged
    return False  # its folder was deleted


def discard(path: str, version: str) -> None:
    """Remove a file unless its version is another by now."""
    if s3.is_s3(path):
        from brats.storage.s3_compare import remove_if

        remove_if(path, version)
        return
    with storage_errors(path, "remove"), _unchanged(path, version) as unchanged:
        if unchanged:
            os.unlink(path)


def _look_local(path: str) -> Seen:
    with open(path, "rb") as file:
        content, status = file.read(), os.fstat(file.fileno())
    with _temporary(path, b"") as probe:
        now = os.stat(probe).st_mtime
    return Seen(content, _version(status), now - status.st_mtime)


def _version(status: os.stat_result) -> str:
    return f"{status.st_ino} {status.st_mtime_ns}"


@contextmanager
def _temporary(path: str, content: bytes) -> Iterator[str]:
    """A hidden file beside another, with this content, for the duration of the block."""
    temporary = os.path.join(os.path.dirname(path), f"{UNFINISHED}{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _link(temporary: str, path: str, content: bytes) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        try:
            with open(path, "xb") as file:
                file.write(content)
        except FileExistsError:
            return False
    return True


def _open_to_lock(path: str) -> BinaryIO:
    try:
        return open(path, "r+b")  # as NFS asks for it
    except PermissionError:
        return open(path, "rb")  # another user's: in a shared folder it may be replaced, though not written


@contextmanager
def _unchanged(path: str, version: str) -> Iterator[bool]:
    """Whether a local file is the one that was read; no other process changes it during the block."""
    with ExitStack() as opened:
        try:
            file = opened.enter_context(_open_to_lock(path))
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            there = os.stat(path)
        except FileNotFoundError:
            yield False
            return
        same = os.path.samestat(os.fstat(file.fileno()), there)  # not one that another process has put there since
        yield same and _version(there) == version
