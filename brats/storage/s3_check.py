"""Round-trip check of an S3 store, made before a job depends on it."""

import os
import random
import uuid
from contextlib import suppress

from brats.errors import BratsError, SettingError, StorageError
from brats.storage import s3

SIZE_BYTES = 100_000
RETRY_LIMIT_S = 20.0  # a wrong address should be reported soon
CHECKSUMS = "AWS_REQUEST_CHECKSUM_CALCULATION"


def check_store(root: str) -> None:
    """Write an object below the root, read it back, compare and remove it: as this program does, then as Ray does.

    The two differ: over plain HTTP Ray's writer sends uploads in chunks with a trailing checksum, which some stores
    keep as if it were content. Raises SettingError naming the variable to set for such a store, and StorageError
    as any reading and writing does.
    """
    url = f"{root.rstrip('/')}/.check-{uuid.uuid4().hex}"
    content = random.randbytes(SIZE_BYTES)
    retry_limit_s = min(RETRY_LIMIT_S, s3.retry_limit())
    try:
        for write in (_write_as_we_do, _write_as_ray_does):
            write(url, content, retry_limit_s)
            found = s3.get(url, retry_limit_s)
            if found != content:
                raise SettingError(_damage(root, len(found)))
    except BratsError:
        with suppress(StorageError):  # the first error is the one to report
            s3.remove(url, 0)
        raise
    s3.remove(url, retry_limit_s)


def _write_as_we_do(url: str, content: bytes, retry_limit_s: float) -> None:
    s3.put(url, content, retry_limit_s)


def _write_as_ray_does(url: str, content: bytes, retry_limit_s: float) -> None:  # noqa: ARG001  # it has its own limit
    from pyarrow import fs

    try:
        filesystem, path = fs.FileSystem.from_uri(url)
        with filesystem.open_output_stream(path) as sink:
            sink.write(content)
    except OSError as error:
        reason = " ".join(str(error).split())
        raise StorageError(f"{url}: Ray cannot write where this program can: {reason}") from error


def _damage(root: str, n_bytes: int) -> str:
    damage = f"{root}: this store damages uploads: {n_bytes} bytes came back for {SIZE_BYTES}"
    if os.environ.get(CHECKSUMS) == "when_required":
        return f"{damage}, even with {CHECKSUMS}=when_required; use another store"
    return f"{damage}, as some stores do with checksums; set {CHECKSUMS}=when_required on every machine"
