"""Conditional requests to S3: make an object only where there is none, replace or remove it only as it was read."""

import uuid
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from brats.errors import StorageError
from brats.storage import s3
from brats.storage.s3_errors import error_code, original

_NOT_MET = {"PreconditionFailed", "412"}
_UNKNOWN_TO_STORE = {400, 405, 501}
"""Statuses with which stores answer a condition that they do not know; a plain request has succeeded before."""


def put_if(url: str, content: bytes, etag: str | None, retry_limit_s: float | None = None) -> str | None:
    """Store an object where there is none or, given an etag, only over the object that has it.

    Returns the new etag; None where the condition is not met, as in a retry after an answer that was lost.
    """
    bucket, key = s3.bucket_and_key(url)
    condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}

    def request(store: Any) -> str:
        new: str = store.call_s3("put_object", Bucket=bucket, Key=key, Body=content, **condition)["ETag"]
        return new

    try:
        return s3.with_retries(url, "write", "s3:PutObject", request, retry_limit_s)
    except FileNotFoundError:  # nothing to replace
        return None
    except StorageError as error:
        if _code(error) in _NOT_MET:
            return None
        raise


def remove_if(url: str, etag: str, retry_limit_s: float | None = None) -> None:
    """Remove an object that still has this etag."""
    bucket, key = s3.bucket_and_key(url)

    def request(store: Any) -> None:
        store.call_s3("delete_object", Bucket=bucket, Key=key, IfMatch=etag)

    try:
        with suppress(FileNotFoundError):
            s3.with_retries(url, "remove", "s3:DeleteObject", request, retry_limit_s)
    except StorageError as error:
        if _status(error) in _UNKNOWN_TO_STORE:  # as conditions on removing are at many
            s3.remove(url, retry_limit_s)
        elif _code(error) not in _NOT_MET:
            raise


def read_dated(url: str, retry_limit_s: float | None = None) -> tuple[bytes, str, float]:
    """Content and etag of an object, and its age in seconds by the clock of the store.

    Raises FileNotFoundError where there is none.
    """
    content, answer = s3.fetch_answer(url, {}, retry_limit_s)
    written: datetime = answer["LastModified"]
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")  # which a proxy may have dropped
    now = parsedate_to_datetime(date) if date else datetime.now(UTC)
    return content, answer["ETag"], (now - written).total_seconds()


def keeps_conditions(root: str, retry_limit_s: float | None = None) -> bool:
    """Whether a store refuses a request whose condition is not met: some ignore conditions or do not know them."""
    url = f"{root.rstrip('/')}/.check-{uuid.uuid4().hex}"
    try:
        put_if(url, b"", None, retry_limit_s)
        refused = put_if(url, b"", None, retry_limit_s) is None
        return refused and put_if(url, b"", '"0"', retry_limit_s) is None
    except StorageError as error:
        if _status(error) in _UNKNOWN_TO_STORE:
            return False
        raise
    finally:
        with suppress(StorageError):  # the first error is the one to report
            s3.remove(url, retry_limit_s)


def _answer(error: StorageError) -> Exception:
    return original(error.__cause__) if isinstance(error.__cause__, Exception) else error


def _code(error: StorageError) -> str:
    return error_code(_answer(error))


def _status(error: StorageError) -> int:
    response: dict[str, Any] = getattr(_answer(error), "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
