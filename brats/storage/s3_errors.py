"""Errors of an S3 store: which are transient, and one line that says what to set or do."""

import asyncio
import errno
import os
import re
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import botocore.exceptions as boto
from botocore.parsers import ResponseParserError

from brats.errors import SettingError, StorageError, UnreachableError

STORE_ERRORS = (OSError, boto.BotoCoreError, boto.ClientError, ResponseParserError, aiohttp.ClientError)
"""All that a request to a store is known to raise; anything else is a bug in this project."""

_TRANSIENT_CODES = {
    "BadDigest",  # damaged in transit
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "XAmzContentSHA256Mismatch",
}
_TRANSIENT_STATUSES = {408, 429, 500, 502, 503, 504}
_TRANSIENT_ERRORS = (
    boto.ConnectionError,
    boto.HTTPClientError,
    boto.IncompleteReadError,
    boto.ResponseStreamingError,
    ResponseParserError,  # a page of HTML from a proxy
    aiohttp.ClientError,
    asyncio.TimeoutError,
    ConnectionError,
    TimeoutError,
)
_NO_CREDENTIALS = (boto.NoCredentialsError, boto.CredentialRetrievalError)

_ELSEWHERE_CODES = {
    "301",
    "307",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
    "Redirect",
    "TemporaryRedirect",
}
_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_REMEDIES = {
    "InvalidAccessKeyId": (
        "the store does not know this access key id",
        "correct AWS_ACCESS_KEY_ID, or choose another AWS_PROFILE",
    ),
    "SignatureDoesNotMatch": (
        "the secret key does not belong to the access key id",
        "correct AWS_SECRET_ACCESS_KEY, or choose another AWS_PROFILE",
    ),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "set it, for instance by NTP"),
}
_REMEDIES |= dict.fromkeys(
    ("ExpiredToken", "InvalidToken", "TokenRefreshRequired"),
    (
        "the session token has expired or is not valid",
        f"renew {_KEYS} together with AWS_SESSION_TOKEN, or use an instance profile",
    ),
)


def original(error: Exception) -> Exception:
    """The error of the store itself, where s3fs has made an OSError of it."""
    return error.__cause__ if isinstance(error.__cause__, boto.ClientError) else error


def error_code(error: Exception) -> str:
    """The S3 code, such as "NoSuchKey", or "" for an error that the store did not send."""
    response: dict[str, Any] = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, boto.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return error_code(error) in _TRANSIENT_CODES or status in _TRANSIENT_STATUSES
    if isinstance(error, boto.SSLError):
        return "certificate verify failed" not in str(error).lower()
    return isinstance(error, (*_TRANSIENT_ERRORS, *_NO_CREDENTIALS)) or getattr(error, "errno", None) == errno.EPIPE


def lacks_credentials(error: Exception) -> bool:
    """Whether no credentials were found, which happens briefly on a busy machine."""
    return isinstance(error, _NO_CREDENTIALS)


def explain(
    error: Exception, url: str, doing: str, action: str, tried_s: float
) -> StorageError | FileNotFoundError:
    """The error to raise for one of `STORE_ERRORS`; it contains no key, no token and no signed address.

    action:  the permission that the request needs, such as "s3:PutObject"
    tried_s: for how long the request was retried
    """
    code = error_code(error)
    if code in {"NoSuchKey", "404", "NoSuchVersion"}:
        return FileNotFoundError(url)
    if known := _setting(error, code, url, action):
        reason, remedy = known
        return SettingError(f"{url}: cannot {doing}: {reason}; {remedy}")
    tried = f" (tried for {tried_s:.0f} s)" if is_transient(error) else ""
    kind = UnreachableError if is_transient(error) else StorageError
    if isinstance(error, boto.ClientError):
        message = error.response.get("Error", {}).get("Message") or "no message"
        return kind(f"{url}: cannot {doing}: the store answers {code}: {_one_line(message)}{tried}")
    if isinstance(error, ResponseParserError):
        reason = f"{endpoint()} answers, but not like an S3 store{tried}; check {endpoint_variable()}"
        return kind(f"{url}: cannot {doing}: {reason}")
    if is_transient(error):
        reason = f"no whole answer from {endpoint()}{tried}, last {_kind(error)}"
        remedy = f"check {endpoint_variable()} and the network, then run the same command again"
        return kind(f"{url}: cannot {doing}: {reason}; {remedy}")
    return StorageError(f"{url}: cannot {doing}: {_one_line(str(error)) or type(error).__name__}")


def _setting(error: Exception, code: str, url: str, action: str) -> tuple[str, str] | None:
    """The wrong setting and its remedy; None where no setting is at fault."""
    bucket = url.split("://", 1)[1].split("/", 1)[0]
    if code in {"NoSuchBucket", "InvalidBucketName"} or isinstance(error, boto.ParamValidationError):
        return f"{endpoint()} has no bucket {bucket!r}", f"correct the path, or {endpoint_variable()}"
    if lacks_credentials(error) or isinstance(error, boto.PartialCredentialsError):
        found = "no credentials" if lacks_credentials(error) else "only half of the credentials"
        return f"{found} found", f"set {_KEYS}, or AWS_PROFILE, or give the machine an instance profile"
    if isinstance(error, boto.ProfileNotFound):
        return f"there is no profile {os.environ.get('AWS_PROFILE', '')!r}", "correct AWS_PROFILE"
    if isinstance(error, boto.SSLError):
        remedy = f"set AWS_CA_BUNDLE, or correct {endpoint_variable()}"
        return f"the certificate of {endpoint()} is not trusted", remedy
    if code in _ELSEWHERE_CODES:
        region = _region(error)
        there = f"in another region, {region}" if region else "in another region"
        return f"the bucket {bucket!r} is {there}", f"set AWS_REGION={region or 'the region of the bucket'}"
    if code in {"AccessDenied", "AllAccessDisabled", "AccountProblem", "403", "InvalidObjectState"}:
        remedy = (
            f"allow {action} on it in the bucket's or the role's policy, or use other credentials (AWS_PROFILE)"
        )
        return f"access to the bucket {bucket!r} is denied", remedy
    return _REMEDIES.get(code)


def _region(error: Exception) -> str:
    """The region of the bucket, or "" where the answer does not name it."""
    response: dict[str, Any] = getattr(error, "response", None) or {}
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = str(response.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region", ""))
    return region if re.fullmatch(r"[a-z0-9-]+", region) else ""


def endpoint() -> str:
    """The host and port of the store, for messages; without the user and password that a URL may contain."""
    url = os.environ.get(endpoint_variable())
    return urlsplit(url).netloc.rpartition("@")[2] or url.rpartition("@")[2] if url else "AWS"


def endpoint_variable() -> str:
    """The variable that sets the address: botocore prefers the one for S3 alone, unless it is empty."""
    return "AWS_ENDPOINT_URL_S3" if os.environ.get("AWS_ENDPOINT_URL_S3") else "AWS_ENDPOINT_URL"


def _kind(error: Exception) -> str:
    """The kind of error, without an address: "read timeout error" for a ReadTimeoutError."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()


def _one_line(text: str) -> str:
    return " ".join(text.split())
