"""Objects in S3: read, written, listed and removed; requests are retried while the store is unreachable."""

import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from brats.errors import SettingError, StorageError
from brats.storage.places import has_credentials

RETRY_LIMIT_S = 120.0
"""How long a request is retried, unless BRATS_S3_PATIENCE_S sets another limit; an outage of 30 s is a pause."""
CREDENTIALS_RETRY_LIMIT_S = 5.0  # an instance's metadata service is slow when many processes start at once
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10, 30
REMOVED_AT_ONCE = 1000  # the limit of one request

ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
_CREDENTIALS_IN_ADDRESS = (
    "{} contains a user name or a password, which S3 does not use and logs would show; take it out, and set "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)

T = TypeVar("T")
_stores: dict[tuple[Any, ...], Any] = {}


def is_s3(path: str) -> bool:
    return path.startswith(("s3://", "s3a://"))


def get(url: str, retry_limit_s: float | None = None) -> bytes:
    """The content of an object. Raises FileNotFoundError where there is none."""
    content, _ = fetch_answer(url, {}, retry_limit_s)
    return content


def get_range(url: str, start: int, stop: int) -> bytes:
    """The bytes [start, stop) of an object, in one request."""
    content, _ = fetch_answer(url, {"Range": f"bytes={start}-{stop - 1}"})
    if len(content) != stop - start:
        raise StorageError(
            f"{url}: {len(content)} bytes came back for {start} to {stop}; it has changed since it was opened"
        )
    return content


def get_end(url: str, n_bytes: int) -> tuple[bytes, int]:
    """At most the last n_bytes of an object, and its size; in one request."""
    from brats.storage.s3_errors import error_code, original

    try:
        content, answer = fetch_answer(url, {"Range": f"bytes=-{n_bytes}"})
        whole = answer.get("ContentRange", "").rpartition("/")[2]
        return content, int(whole) if whole.isdigit() else len(content)
    except StorageError as error:
        if isinstance(error.__cause__, Exception) and error_code(original(error.__cause__)) == "InvalidRange":
            return b"", 0  # an empty object has no last byte
        raise


def put(url: str, content: bytes, retry_limit_s: float | None = None) -> None:
    """Store an object of up to 5 GiB in one request, which makes it safe to retry."""
    bucket, key = bucket_and_key(url)

    def request(store: Any) -> None:
        store.call_s3("put_object", Bucket=bucket, Key=key, Body=content)

    with_retries(url, "write", "s3:PutObject", request, retry_limit_s)


def exists(url: str) -> bool:
    """Whether there is an object of this name, or any below it.

    Asked by a listing: unlike a HEAD request, its answer says which of bucket, key and credentials is wrong.
    """
    key = bucket_and_key(url)[1]
    first, _ = _page(url, key, {"MaxKeys": 1})
    if first and (first[0][0] == key or first[0][0].startswith(f"{key}/")):
        return True
    return bool(first and _page(url, f"{key}/", {"MaxKeys": 1})[0])


def list_below(url: str, retry_limit_s: float | None = None) -> list[tuple[str, int, str]]:
    """The URL, size in bytes and stamp (ETag, time) of every object below a prefix, those that mark folders too.

    Raises FileNotFoundError where there is none below a prefix; a bucket may be empty.
    """
    bucket, key = bucket_and_key(url)
    found: list[tuple[str, int, str]] = []
    following: dict[str, Any] | None = {}
    while following is not None:
        page, following = _page(url, f"{key}/" if key else "", following, retry_limit_s)
        found += page
    if key and not found:
        raise FileNotFoundError(url)
    scheme = url.split("://", 1)[0]
    return [(f"{scheme}://{bucket}/{name}", size, stamp) for name, size, stamp in found]


def remove(url: str, retry_limit_s: float | None = None) -> None:
    """Remove an object, and all below it; nothing happens where there is none."""
    bucket, key = bucket_and_key(url)
    keys = [key] if key else []
    with suppress(FileNotFoundError):
        keys += [name.split("/", 3)[3] for name, *_ in list_below(url, retry_limit_s)]
    for first in range(0, len(keys), REMOVED_AT_ONCE):
        named = {"Objects": [{"Key": name} for name in keys[first : first + REMOVED_AT_ONCE]], "Quiet": True}
        request = partial(_remove, bucket=bucket, named=named)
        with_retries(url, "remove", "s3:DeleteObject", request, retry_limit_s)


def bucket_and_key(url: str) -> tuple[str, str]:
    """Bucket and key of a URL. Raises SettingError where it names no bucket."""
    bucket, _, key = url.split("://", 1)[1].partition("/")
    if not bucket:
        raise SettingError(f"{url}: names no bucket; write s3://BUCKET/FOLDER")
    return bucket, key.rstrip("/")


def _remove(store: Any, bucket: str, named: dict[str, Any]) -> None:
    """Remove the named objects. Raises an error for one that the store refuses to remove, which s3fs ignores."""
    from botocore.exceptions import ClientError

    answer = store.call_s3("delete_objects", Bucket=bucket, Delete=named)
    if errors := answer.get("Errors"):
        raise ClientError({"Error": errors[0]}, "DeleteObjects")


def _page(
    url: str, prefix: str, further: dict[str, Any], retry_limit_s: float | None = None
) -> tuple[list[tuple[str, int, str]], dict[str, Any] | None]:
    """One page of a listing: keys, sizes, stamps; and the arguments that request the next page, None at the end."""
    bucket = bucket_and_key(url)[0]

    def request(store: Any) -> Any:
        return store.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **further)

    page = with_retries(url, "list", "s3:ListBucket", request, retry_limit_s)
    found = [
        (entry["Key"], int(entry["Size"]), f"{entry.get('ETag', '')} {entry.get('LastModified', '')}")
        for entry in page.get("Contents", [])
    ]
    token = page.get("NextContinuationToken") if page.get("IsTruncated") else None
    return found, {"ContinuationToken": token} if token else None


def fetch_answer(
    url: str, part: dict[str, str], retry_limit_s: float | None = None
) -> tuple[bytes, dict[str, Any]]:
    """The content of an object or of a range of it, and what the answer says beside it."""
    from fsspec.asyn import sync

    bucket, key = bucket_and_key(url)

    async def fetch(store: Any) -> tuple[bytes, dict[str, Any]]:
        from botocore.exceptions import IncompleteReadError

        answer = await store._call_s3("get_object", Bucket=bucket, Key=key, **part)
        async with answer["Body"] as body:
            content: bytes = await body.read()
        if len(content) != answer["ContentLength"]:
            raise IncompleteReadError(actual_bytes=len(content), expected_bytes=answer["ContentLength"])
        return content, answer

    def request(store: Any) -> tuple[bytes, dict[str, Any]]:
        fetched: tuple[bytes, dict[str, Any]] = sync(store.loop, fetch, store)
        return fetched

    return with_retries(url, "read", "s3:GetObject", request, retry_limit_s)


def with_retries(
    url: str, doing: str, action: str, request: Callable[[Any], T], retry_limit_s: float | None = None
) -> T:
    """Make a request; retry it up to the time limit while its errors are transient.

    Exponential back-off with jitter. Raises FileNotFoundError for a missing object, else StorageError, which is a
    SettingError where a setting is wrong.
    """
    started = time.monotonic()
    wait_s = FIRST_WAIT_S
    while True:
        try:
            return request(_store(url))
        except _store_errors() as caught:
            from brats.storage import s3_errors

            error = s3_errors.original(caught)
            elapsed_s = time.monotonic() - started
            limit_s = retry_limit() if retry_limit_s is None else retry_limit_s
            if s3_errors.lacks_credentials(error):
                _stores.pop(_settings(), None)  # a store without credentials does not look for them again
                limit_s = min(limit_s, CREDENTIALS_RETRY_LIMIT_S)
            if elapsed_s >= limit_s or not s3_errors.is_transient(error):
                raise s3_errors.explain(error, url, doing, action, elapsed_s) from caught
            time.sleep(min(wait_s * random.uniform(0.5, 1), limit_s - elapsed_s))
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)


def retry_limit() -> float:
    """How long a request is retried, in seconds."""
    value = os.environ.get("BRATS_S3_PATIENCE_S")
    try:
        return float(value) if value else RETRY_LIMIT_S
    except ValueError:
        raise SettingError(f"BRATS_S3_PATIENCE_S: {value!r} is not a number of seconds") from None


def check_endpoint() -> None:
    """Raise SettingError, without the secret, where the address of the store contains credentials."""
    for variable in ENDPOINT_VARIABLES:
        if has_credentials(os.environ.get(variable, "")):
            raise SettingError(_CREDENTIALS_IN_ADDRESS.format(variable))


def _store_errors() -> tuple[type[Exception], ...]:
    from brats.storage.s3_errors import STORE_ERRORS

    return STORE_ERRORS


def _store(url: str) -> Any:
    """This process's store for the current settings; never one opened before a fork.

    All are kept: closing its parent's in a forked process would break the parent's connections.
    """
    settings = _settings()
    if settings not in _stores:
        _stores[settings] = _open_store(url)
    return _stores[settings]


def _settings() -> tuple[Any, ...]:
    """The process and every variable that sets the address of the store or the credentials."""
    return os.getpid(), *((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))


def _open_store(url: str) -> Any:
    """Connect by the standard AWS variables, profiles and roles. Raises SettingError where one is malformed."""
    import s3fs
    from botocore.exceptions import InvalidRegionError

    from brats.storage.s3_errors import endpoint, endpoint_variable

    check_endpoint()
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")  # botocore reads only the second
    store = s3fs.S3FileSystem(
        skip_instance_cache=True,
        use_listings_cache=False,  # other processes write and remove objects at the same time
        client_kwargs={"region_name": region} if region else {},
        config_kwargs={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            "retries": {"total_max_attempts": 1},
        },
    )
    store.retries = 1  # with_retries does all retrying
    try:
        store.connect()
    except InvalidRegionError as error:
        raise SettingError(f"{url}: {region!r} is not a region; correct AWS_REGION") from error
    except ValueError as error:
        raise SettingError(f"{url}: {endpoint()} is not an address; correct {endpoint_variable()}") from error
    if has_credentials(store.s3.meta.endpoint_url):
        raise SettingError(_CREDENTIALS_IN_ADDRESS.format("the endpoint_url of the AWS configuration file"))
    return store
