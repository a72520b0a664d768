"""The check of a store before a job: one that gives back what was put, and one that does not."""

import pytest

from brats.errors import ConfigError, StorageError
from brats.storage.s3_check import check_store
from tests.support.s3 import FaultyProxy, S3Server


def test_a_good_store_passes_and_keeps_nothing(s3_bucket: str, s3_proxy: FaultyProxy, s3_server: S3Server) -> None:
    check_store(f"{s3_bucket}/run")
    written = {request.key.rsplit("/", 1)[1] for request in s3_proxy.log if request.method == "PUT"}
    assert [name[:7] for name in written] == [".check-"]  # hidden: discovery passes over it
    assert s3_server.objects(s3_bucket.removeprefix("s3://")) == {}


def test_a_store_that_keeps_the_framing_of_chunked_uploads_is_refused_with_the_setting(
    s3_bucket: str, s3_proxy: FaultyProxy, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_proxy.keeps_chunk_framing = True
    said = (
        rf"^{s3_bucket}: this store damages uploads: \d+ bytes came back for 100000, as some stores do with "
        r"checksums; set AWS_REQUEST_CHECKSUM_CALCULATION=when_required on every machine$"
    )
    with pytest.raises(ConfigError, match=said):
        check_store(s3_bucket)
    assert s3_server.objects(s3_bucket.removeprefix("s3://")) == {}
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    check_store(s3_bucket)


def test_a_store_that_damages_everything_is_refused_for_good(
    s3_bucket: str, s3_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    s3_proxy.answer_next("something else", method="GET", key=".check-")
    with pytest.raises(ConfigError, match=r"14 bytes came back for 100000, even with .*; use another store$"):
        check_store(s3_bucket)


def test_a_bucket_that_may_not_be_written_names_the_right_and_asks_once(
    s3_bucket: str, s3_proxy: FaultyProxy
) -> None:
    s3_proxy.fail_next(1, status=403, code="AccessDenied", method="PUT")
    with pytest.raises(ConfigError, match=r"cannot write: .* is denied; allow s3:PutObject"):
        check_store(s3_bucket)
    assert s3_proxy.count("PUT") == 1


def test_a_store_that_ray_cannot_write_to_says_so(s3_bucket: str, s3_proxy: FaultyProxy) -> None:
    s3_proxy.fail_next(20, status=403, code="AccessDenied", method="POST", key=".check-")
    with pytest.raises(StorageError, match=r"Ray cannot write where this program can: .*ACCESS_DENIED") as caught:
        check_store(s3_bucket)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("s3_bucket")
def test_a_store_that_is_down_is_reported_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brats.storage.s3_check.RETRY_LIMIT_S", 0.5)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(
        StorageError, match=r"no whole answer from 127\.0\.0\.1:9 \(tried for [1-9] s\).* AWS_ENDPOINT_"
    ):
        check_store("s3://bucket/run")
