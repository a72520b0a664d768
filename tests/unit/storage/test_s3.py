"""Objects in S3: few requests each, transient errors retried, the others in one line."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brats.errors import ConfigError, StorageError
from brats.storage import s3
from brats.storage.places import has_credentials
from tests.support.s3 import PAGE_KEYS, SECRET, FaultyProxy, S3Server

pytestmark = pytest.mark.usefixtures("quick_retries")

CONTENT = bytes(range(256)) * 40

Play = Callable[[FaultyProxy], None]


@pytest.fixture
def url(s3_bucket: str) -> str:
    """An object that is there."""
    s3.put(f"{s3_bucket}/folder/x.bin", CONTENT)
    return f"{s3_bucket}/folder/x.bin"


# What each operation does, and with how many requests


def test_each_operation_is_one_request(url: str, s3_proxy: FaultyProxy) -> None:
    operations: list[tuple[str, Callable[[], Any], Any]] = [
        ("PUT", lambda: s3.put(url, CONTENT), None),
        ("GET", lambda: s3.get(url), CONTENT),
        ("GET", lambda: s3.get_range(url, 10, 14), CONTENT[10:14]),
        ("GET", lambda: s3.get_end(url, 6), (CONTENT[-6:], len(CONTENT))),
        ("GET", lambda: s3.exists(url), True),
        ("GET", lambda: s3.exists(f"{url}.none"), False),
        ("GET", lambda: [entry[:2] for entry in s3.list_below(os.path.dirname(url))], [(url, len(CONTENT))]),
    ]
    for method, operation, expected in operations:
        s3_proxy.forget()
        assert operation() == expected
        assert [request.method for request in s3_proxy.log] == [method]


def test_the_end_of_a_short_object_is_the_object(s3_bucket: str) -> None:
    for content in (b"", b"abc"):
        s3.put(f"{s3_bucket}/x", content)
        assert s3.get_end(f"{s3_bucket}/x", 100) == (content, len(content))


def test_a_part_behind_the_end_is_an_error(url: str) -> None:
    with pytest.raises(StorageError, match=r"x\.bin: 10 bytes came back for 10230 to 10300; it has changed"):
        s3.get_range(url, 10230, 10300)


def test_an_object_with_a_longer_name_is_not_the_object(s3_bucket: str) -> None:
    for name in ("cases.parquet.old", "run-2/x", "run/y"):
        s3.put(f"{s3_bucket}/{name}", b"")
    found = {name: s3.exists(f"{s3_bucket}/{name}") for name in ("cases.parquet", "run", "run-2", "ru", "run/y")}
    assert found == {"cases.parquet": False, "run": True, "run-2": True, "ru": False, "run/y": True}


def test_what_takes_several_pages_is_listed_and_removed_whole(
    s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "REMOVED_AT_ONCE", 40)
    names = [f"many/{number:04d}" for number in range(2 * PAGE_KEYS + 1)]
    s3_server.upload(s3_bucket.removeprefix("s3://"), dict.fromkeys(names, b"x"))
    assert [url.removeprefix(f"{s3_bucket}/") for url, *_ in s3.list_below(f"{s3_bucket}/many")] == names
    s3.remove(f"{s3_bucket}/many")
    assert s3_server.objects(s3_bucket.removeprefix("s3://")) == {}


@pytest.mark.parametrize("name", ["a b", "ü", "a+b", "100%", "a?versionId=1", "..", "a//b"])
def test_a_key_is_taken_as_it_is(name: str, s3_server: S3Server, s3_bucket: str) -> None:
    url = f"{s3_bucket}/folder/{name}"
    s3.put(url, b"x")
    assert list(s3_server.objects(s3_bucket.removeprefix("s3://"))) == [f"folder/{name}"]
    assert [entry[:2] for entry in s3.list_below(f"{s3_bucket}/folder")] == [(url, 1)]
    assert s3.get(url) == b"x"
    s3.remove(url)
    assert not s3.exists(url)


def test_objects_that_the_store_does_not_remove_are_an_error(
    url: str, s3_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_proxy.answer_next(
        "<DeleteResult><Error><Key>x</Key><Code>AccessDenied</Code><Message>m</Message></Error></DeleteResult>",
        method="POST",
    )
    monkeypatch.setenv("BRATS_S3_PATIENCE_S", "0")
    with pytest.raises(StorageError, match=r"cannot remove: .* is denied; allow s3:DeleteObject"):
        s3.remove(url)


# Transient faults


@pytest.mark.medium
@pytest.mark.parametrize(
    "play",
    [
        lambda proxy: proxy.fail_next(3, status=500),
        lambda proxy: proxy.fail_next(3, status=503),
        lambda proxy: proxy.fail_next(3, status=400, code="RequestTimeout"),
        lambda proxy: proxy.fail_next(1, status=429, code="TooManyRequests"),
        lambda proxy: proxy.drop_next(3),
        lambda proxy: proxy.drop_answer_to_next(2, method=""),
        lambda proxy: proxy.answer_next("<html>busy</html>", status=502),
        lambda proxy: proxy.be_away(0.5),
    ],
    ids=["500", "503", "timeout", "429", "dropped", "unanswered", "html", "unreachable"],
)
def test_a_transient_fault_is_not_seen(play: Play, url: str, s3_proxy: FaultyProxy) -> None:
    operations: list[tuple[Callable[[], Any], Any]] = [
        (lambda: s3.put(url, CONTENT[::-1]), None),
        (lambda: s3.get(url), CONTENT[::-1]),
        (lambda: s3.get_range(url, 3, 5000), CONTENT[::-1][3:5000]),
        (lambda: s3.get_end(url, 5000), (CONTENT[::-1][-5000:], len(CONTENT))),
        (lambda: s3.exists(url), True),
        (lambda: [entry[:2] for entry in s3.list_below(os.path.dirname(url))], [(url, len(CONTENT))]),
        (lambda: s3.remove(url), None),
        (lambda: s3.exists(url), False),
    ]
    for operation, expected in operations:
        play(s3_proxy)
        assert operation() == expected
        assert s3_proxy.faults_left == 0


@pytest.mark.medium
@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (s3.get, CONTENT),
        (lambda url: s3.get_range(url, 3, 5000), CONTENT[3:5000]),
        (lambda url: s3.get_end(url, 5000), (CONTENT[-5000:], len(CONTENT))),
        (lambda url: s3.list_below(os.path.dirname(url))[0][1], len(CONTENT)),
    ],
)
def test_an_answer_cut_in_the_middle_is_never_taken_for_the_whole(
    read: Callable[[str], Any], expected: Any, url: str, s3_proxy: FaultyProxy
) -> None:
    s3_proxy.cut_next(3)
    assert read(url) == expected
    assert s3_proxy.faults_left == 0
    assert s3_proxy.count("GET") == 4


@pytest.mark.medium
def test_a_request_without_an_answer_is_retried(
    url: str, s3_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.3)
    s3_proxy.delay_next(1, 2)
    assert s3.get(url) == CONTENT


@pytest.mark.medium
def test_a_store_that_stays_unreachable_is_an_error_that_says_for_how_long(
    url: str, s3_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRATS_S3_PATIENCE_S", "1")
    s3_proxy.be_away(60)
    said = (
        rf"^{url}: cannot read: no whole answer from 127\.0\.0\.1:\d+ \(tried for [1-9] s\), "
        r"last connection closed error; check AWS_ENDPOINT_URL and the network, then run the same command again$"
    )
    with pytest.raises(StorageError, match=said) as caught:
        s3.get(url)
    assert not isinstance(caught.value, ConfigError)


def test_an_answer_of_the_store_is_quoted_at_the_end(
    url: str, s3_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRATS_S3_PATIENCE_S", "0")
    s3_proxy.fail_next(status=503, code="SlowDown", Message="Reduce\nyour rate")
    with pytest.raises(StorageError, match=r": cannot list: the store answers SlowDown: Reduce your rate \(tried"):
        s3.exists(url)


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (404, "NoSuchBucket"), (404, "NoSuchKey")])
def test_an_error_that_is_not_transient_is_not_retried(
    status: int, code: str, url: str, s3_proxy: FaultyProxy
) -> None:
    s3_proxy.fail_next(1, status=status, code=code)
    with pytest.raises((StorageError, FileNotFoundError)):
        s3.get(url)
    assert s3_proxy.count() == 1


@pytest.mark.usefixtures("s3_bucket")
def test_the_retry_limit_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRATS_S3_PATIENCE_S", "long")
    with pytest.raises(ConfigError, match=r"^BRATS_S3_PATIENCE_S: 'long' is not a number of seconds$"):
        s3.retry_limit()


# Settings


def test_a_change_of_the_environment_is_heeded(
    url: str, s3_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, s3_server: S3Server
) -> None:
    s3.get(url)
    assert s3_proxy.count("GET") == 1
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint)
    s3.get(url)
    assert s3_proxy.count("GET") == 1


def test_a_profile_gives_credentials_region_and_endpoint(
    url: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    user = s3_server.make_user("profiled", "s3:*")
    for name in user:
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text(
        f"[profile mine]\nregion = eu-west-1\nendpoint_url = {s3_server.endpoint}\n"
        f"aws_access_key_id = {user['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {user['AWS_SECRET_ACCESS_KEY']}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    with s3_server.checked_credentials():
        assert s3.get(url) == CONTENT


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_is_the_one_that_is_set(
    name: str, url: str, s3_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv(name, "eu-central-1")
    s3.get(url)
    assert "/eu-central-1/s3/" in s3_proxy.headers["Authorization"]


@pytest.mark.parametrize(("value", "sent"), [("when_supported", True), ("when_required", False)])
def test_checksums_are_sent_as_set(
    value: str, sent: bool, s3_bucket: str, s3_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", value)
    s3.put(f"{s3_bucket}/x", b"x")
    assert any(name.lower().startswith("x-amz-checksum-") for name in s3_proxy.headers) is sent


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AWS_ENDPOINT_URL", "nonsense", "nonsense is not an address; correct AWS_ENDPOINT_URL"),
        ("AWS_REGION", "no region", "'no region' is not a region; correct AWS_REGION"),
        ("AWS_PROFILE", "nobody", "there is no profile 'nobody'; correct AWS_PROFILE"),
    ],
)
def test_a_setting_without_sense_is_named(
    name: str, value: str, said: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"^{url}: .*{said}$"):
        s3.get(url)


def test_a_url_without_a_bucket_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^s3:///x: names no bucket; write s3://BUCKET/FOLDER$"):
        s3.get("s3:///x")


# Credentials


def test_missing_credentials_are_reported(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(s3, "CREDENTIALS_RETRY_LIMIT_S", 0.1)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"):
        s3.get(url)


@pytest.mark.medium
def test_credentials_that_come_late_are_found(
    url: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """As from an instance whose service of credentials is busy."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    values = s3_server.environment()
    text = "\n".join(["[default]", *(f"{name.lower()} = {values[name]}" for name in values if "KEY" in name)])
    thread = threading.Timer(0.5, path.write_text, [text])
    thread.start()
    assert s3.get(url) == CONTENT
    thread.join()


def test_a_wrong_key_and_a_wrong_secret_are_told_apart(
    url: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = s3_server.make_user("told-apart", "s3:*")
    with s3_server.checked_credentials():
        for operation in (s3.get, s3.exists, s3.remove, lambda url: s3.put(url, b"")):
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", user["AWS_ACCESS_KEY_ID"])
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
            with pytest.raises(ConfigError, match=r"does not belong .* correct AWS_SECRET_ACCESS_KEY, or") as wrong:
                operation(url)
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOBODYNOBODYNOBO")
            with pytest.raises(ConfigError, match="not know this access key id; correct AWS_ACCESS_KEY_ID, or"):
                operation(url)
            assert SECRET not in str(wrong.value)


def test_a_bucket_that_may_only_be_read_names_the_right_that_lacks(
    url: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.make_user("reader", "s3:GetObject", "s3:ListBucket").items():
        monkeypatch.setenv(name, value)
    with s3_server.checked_credentials():
        assert s3.get(url) == CONTENT
        with pytest.raises(
            ConfigError, match=r"cannot write: access to the bucket '.*' is denied; allow s3:PutObj"
        ):
            s3.put(url, b"")


# Processes


@pytest.mark.medium
def test_a_forked_process_has_a_store_of_its_own(url: str) -> None:
    code = f"""
import os
from brats.storage import s3
before = s3.get({url!r})
child = os.fork()
if not child:
    os._exit(0 if s3.get({url!r}) == before else 3)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert status == 0, status
assert s3.get({url!r}) == before
assert len(s3._stores) == 1
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


@pytest.mark.medium
def test_threads_share_the_store_and_their_requests_overlap(url: str, s3_proxy: FaultyProxy) -> None:
    s3_proxy.meet_next(5)
    threads = [threading.Thread(target=s3.get, args=[url]) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert s3_proxy.most_at_once == 5


def test_credentials_in_the_address_are_refused_wherever_it_is_set(
    s3_bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address = s3_server.endpoint.replace("://", f"://me:{SECRET}@")
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    with pytest.raises(ConfigError, match=r"^AWS_ENDPOINT_URL contains a user name or a password, ") as caught:
        s3.get(f"{s3_bucket}/x")
    assert SECRET not in str(caught.value)
    (tmp_path / "config").write_text(f"[default]\nendpoint_url = {address}\n")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(ConfigError, match=r"^the endpoint_url of the AWS configuration file contains") as caught:
        s3.get(f"{s3_bucket}/x")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("https://store.example:9000/x", False),
        ("http://127.0.0.1:9", False),
        ("https://store.example/a@b", False),
        ("", False),
        ("https://user:pass@store.example:9000/x", True),
        ("https://user@store.example", True),
        ("user:pass@store", True),
        ("http://user:with/slash@store", True),
    ],
)
def test_an_address_with_a_user_has_credentials(address: str, found: bool) -> None:
    assert has_credentials(address) == found
