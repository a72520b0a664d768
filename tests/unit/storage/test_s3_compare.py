"""Conditional requests to S3: one of several wins, a lost answer is no second object, odd stores are noticed."""

import pytest

from brats.errors import StorageError
from brats.storage import s3
from brats.storage.s3_compare import keeps_conditions, put_if, read_dated, remove_if
from tests.support.s3 import FaultyProxy, S3Server

pytestmark = pytest.mark.usefixtures("quick_retries")


@pytest.fixture
def url(s3_bucket: str) -> str:
    return f"{s3_bucket}/folder/x"


def test_an_object_is_made_once(url: str) -> None:
    assert put_if(url, b"first", None)
    assert put_if(url, b"second", None) is None
    assert s3.get(url) == b"first"


def test_an_object_is_replaced_only_as_it_was_read(url: str) -> None:
    first = put_if(url, b"first", None)
    assert first
    second = put_if(url, b"second", first)
    assert second
    assert put_if(url, b"third", first) is None
    assert read_dated(url)[:2] == (b"second", second)


def test_nothing_is_replaced_where_nothing_is(url: str) -> None:
    assert put_if(url, b"x", '"0"') is None
    assert not s3.exists(url)


def test_an_object_is_removed_only_as_it_was_read(url: str) -> None:
    first = put_if(url, b"first", None)
    assert first
    second = put_if(url, b"second", first)
    assert second
    remove_if(url, first)
    assert s3.get(url) == b"second"
    remove_if(url, second)
    assert not s3.exists(url)
    remove_if(url, second)


def test_an_age_is_that_of_the_store(url: str) -> None:
    put_if(url, b"x", None)
    assert 0 <= read_dated(url)[2] < 60


def test_a_lost_answer_looks_like_a_lost_race(url: str, s3_proxy: FaultyProxy) -> None:
    s3_proxy.drop_answer_to_next(1)
    assert put_if(url, b"mine", None) is None
    assert s3.get(url) == b"mine"


@pytest.mark.parametrize("status", [500, 503])
def test_a_transient_error_is_retried(status: int, url: str, s3_proxy: FaultyProxy) -> None:
    s3_proxy.fail_next(2, status=status)
    assert put_if(url, b"x", None)


def test_two_requests_at_once_are_retried(url: str, s3_proxy: FaultyProxy) -> None:
    s3_proxy.fail_next(1, status=409, code="ConditionalRequestConflict")
    assert put_if(url, b"x", None)


def test_a_store_that_keeps_conditions_is_left_as_it_was(s3_bucket: str, s3_server: S3Server) -> None:
    assert keeps_conditions(f"{s3_bucket}/run")
    assert s3_server.objects(s3_bucket.removeprefix("s3://")) == {}


def test_a_store_that_ignores_conditions_is_noticed(
    s3_bucket: str, s3_proxy: FaultyProxy, s3_server: S3Server
) -> None:
    s3_proxy.ignores_conditions = True
    assert not keeps_conditions(s3_bucket)
    assert s3_server.objects(s3_bucket.removeprefix("s3://")) == {}


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (400, "InvalidArgument")])
def test_a_store_that_knows_no_conditions_is_noticed(
    status: int, code: str, s3_bucket: str, s3_proxy: FaultyProxy
) -> None:
    s3_proxy.fail_next(1, status=status, code=code, method="PUT")
    assert not keeps_conditions(s3_bucket)


def test_a_store_that_removes_without_conditions_removes(url: str, s3_proxy: FaultyProxy) -> None:
    etag = put_if(url, b"x", None)
    assert etag
    s3_proxy.fail_next(1, status=501, code="NotImplemented", method="DELETE")
    remove_if(url, etag)
    assert not s3.exists(url)


def test_a_denied_request_is_an_error(url: str, s3_proxy: FaultyProxy) -> None:
    s3_proxy.fail_next(2, status=403, code="AccessDenied", method="PUT")
    with pytest.raises(StorageError, match="allow s3:PutObject"):
        put_if(url, b"x", None)
    with pytest.raises(StorageError, match="allow s3:PutObject"):
        keeps_conditions(url)
