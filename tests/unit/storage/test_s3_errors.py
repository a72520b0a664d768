"""Errors of a store: which are transient, and the setting that each of the others names."""

import ssl
from typing import Any

import botocore.exceptions as boto
import pytest
from aiohttp import ClientPayloadError
from botocore.parsers import ResponseParserError

from brats.errors import ConfigError, StorageError
from brats.storage.s3_errors import endpoint, explain, is_transient, original

URL = "s3://bucket/key"


@pytest.fixture(autouse=True)
def no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)


def refusal(
    code: str, status: int = 400, *, headers: dict[str, str] | None = None, **fields: str
) -> boto.ClientError:
    response: dict[str, Any] = {
        "Error": {"Code": code, "Message": "a message", **fields},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers or {}},
    }
    return boto.ClientError(response, "GetObject")


def say(error: Exception) -> str:
    """The message of the error made of one, after the path and what was tried."""
    return str(explain(error, URL, "read", "s3:GetObject", 0)).removeprefix(f"{URL}: cannot read: ")


@pytest.mark.parametrize(
    "error",
    [
        refusal("InternalError", 500),
        refusal("SlowDown", 503),
        refusal("RequestTimeout"),
        refusal("Odd", 502),
        refusal("TooMany", 429),
        boto.EndpointConnectionError(endpoint_url="x"),
        boto.ReadTimeoutError(endpoint_url="x"),
        boto.ConnectTimeoutError(endpoint_url="x"),
        boto.ConnectionClosedError(endpoint_url="x"),
        boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
        boto.NoCredentialsError(),
        ResponseParserError("<html>"),
        ClientPayloadError("cut"),
        ConnectionResetError("reset"),
        TimeoutError(),
    ],
    ids=repr,
)
def test_a_transient_error_is_retried(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        refusal("AccessDenied", 403),
        refusal("NoSuchKey", 404),
        refusal("NoSuchBucket", 404),
        refusal("PermanentRedirect", 301),
        refusal("SignatureDoesNotMatch", 403),
        refusal("NotImplemented", 501),
        boto.ProfileNotFound(profile="x"),
        boto.ParamValidationError(report="x"),
        boto.SSLError(endpoint_url="x", error=ssl.SSLError("certificate verify failed")),
        PermissionError("x"),
    ],
    ids=repr,
)
def test_an_error_that_stays_is_not_retried(error: Exception) -> None:
    assert not is_transient(error)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refusal("NoSuchBucket"), "AWS has no bucket 'bucket'; correct the path, or AWS_ENDPOINT_URL"),
        (
            boto.ParamValidationError(report="x"),
            "AWS has no bucket 'bucket'; correct the path, or AWS_ENDPOINT_URL",
        ),
        (
            boto.NoCredentialsError(),
            "no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the "
            "machine an instance profile",
        ),
        (
            boto.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
            "only half of the credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
            "or give the machine an instance profile",
        ),
        (
            refusal("InvalidAccessKeyId"),
            "the store does not know this access key id; correct AWS_ACCESS_KEY_ID, or choose another AWS_PROFILE",
        ),
        (
            refusal("SignatureDoesNotMatch"),
            "the secret key does not belong to the access key id; correct AWS_SECRET_ACCESS_KEY, or choose another "
            "AWS_PROFILE",
        ),
        (
            refusal("ExpiredToken"),
            "the session token has expired or is not valid; renew AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
            "together with AWS_SESSION_TOKEN, or use an instance profile",
        ),
        (refusal("RequestTimeTooSkewed"), "this machine's clock is wrong; set it, for instance by NTP"),
        (
            refusal("AccessDenied"),
            "access to the bucket 'bucket' is denied; allow s3:GetObject on it in the bucket's or the role's "
            "policy, or use other credentials (AWS_PROFILE)",
        ),
        (
            refusal("AuthorizationHeaderMalformed", Region="eu-west-1"),
            "the bucket 'bucket' is in another region, eu-west-1; set AWS_REGION=eu-west-1",
        ),
        (
            refusal("301", headers={"x-amz-bucket-region": "us-west-2"}),
            "the bucket 'bucket' is in another region, us-west-2; set AWS_REGION=us-west-2",
        ),
        (
            refusal("PermanentRedirect"),
            "the bucket 'bucket' is in another region; set AWS_REGION=the region of the bucket",
        ),
        (
            boto.SSLError(endpoint_url="x", error=ssl.SSLError("certificate verify failed")),
            "the certificate of AWS is not trusted; set AWS_CA_BUNDLE, or correct AWS_ENDPOINT_URL",
        ),
    ],
    ids=repr,
)
def test_what_a_setting_would_mend_names_the_setting(error: Exception, said: str) -> None:
    assert say(error) == said
    explained = explain(error, URL, "read", "s3:GetObject", 0)
    assert isinstance(explained, ConfigError)  # exit code 2
    assert isinstance(explained, StorageError)  # one case's trouble where it is caught as such


@pytest.mark.parametrize("code", ["NoSuchKey", "404"])
def test_a_missing_object_is_a_missing_file(code: str) -> None:
    assert isinstance(explain(refusal(code), URL, "read", "s3:GetObject", 0), FileNotFoundError)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refusal("KeyTooLongError"), "the store answers KeyTooLongError: a message"),
        (refusal("SlowDown", 503), "the store answers SlowDown: a message (tried for 0 s)"),
        (ResponseParserError("x"), "AWS answers, but not like an S3 store (tried for 0 s); check AWS_ENDPOINT_URL"),
        (OSError("first\n second"), "first second"),
    ],
    ids=repr,
)
def test_other_errors_are_no_matter_of_settings(error: Exception, said: str) -> None:
    assert say(error) == said
    assert not isinstance(explain(error, URL, "read", "s3:GetObject", 0), ConfigError)


def test_an_address_with_a_signature_is_not_repeated() -> None:
    signed = "https://host/key?X-Amz-Signature=0123"
    for error in (boto.EndpointConnectionError(endpoint_url=signed), boto.ReadTimeoutError(endpoint_url=signed)):
        assert "0123" not in say(error)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pass@store.example:9000/x", "store.example:9000"),
        ("http://127.0.0.1:9", "127.0.0.1:9"),
        ("user:pass@nonsense", "nonsense"),
    ],
)
def test_the_store_is_named_without_user_and_password(
    url: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    assert endpoint() == shown


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refusal("NoSuchBucket"), "own.example has no bucket 'bucket'; correct the path, or {variable}"),
        (
            boto.SSLError(endpoint_url="x", error=ssl.SSLError("certificate verify failed")),
            "the certificate of own.example is not trusted; set AWS_CA_BUNDLE, or correct {variable}",
        ),
        (
            ResponseParserError("x"),
            "own.example answers, but not like an S3 store (tried for 0 s); check {variable}",
        ),
        (
            boto.ReadTimeoutError(endpoint_url="x"),
            "no whole answer from own.example (tried for 0 s), last read timeout error; check {variable} and the "
            "network, then run the same command again",
        ),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    ("for_all", "for_s3", "variable"),
    [
        ("", "http://own.example", "AWS_ENDPOINT_URL_S3"),
        ("http://other.example", "http://own.example", "AWS_ENDPOINT_URL_S3"),  # botocore prefers the narrower
        ("http://own.example", "", "AWS_ENDPOINT_URL"),  # and passes over an empty one
    ],
)
def test_the_variable_in_use_is_the_one_to_change(
    error: Exception, said: str, for_all: str, for_s3: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", for_all)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", for_s3)
    assert say(error) == said.format(variable=variable)


def test_the_error_behind_a_translated_one_is_found() -> None:
    translated = PermissionError("denied")
    translated.__cause__ = refusal("AccessDenied")
    assert original(translated) is translated.__cause__
    assert original(OSError("x")).args == ("x",)
