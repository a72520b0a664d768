"""Places as people write them: taken as they are meant, or refused in one line that says how to write them."""

import os
from pathlib import Path

import pytest

from brats.errors import SettingError
from brats.storage import absolute

SECRET = "wJalrXUtnFEMI"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty working folder, which is the home folder too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("place", "meant"),
    [
        ("s3://bucket/x", "s3://bucket/x"),
        ("s3a://bucket/x", "s3a://bucket/x"),
        ("S3://bucket/Case_1", "s3://bucket/Case_1"),
        ("S3A://bucket/", "s3a://bucket"),
        ("s3://bucket/x//", "s3://bucket/x"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a b/c@d", "s3://bucket/a b/c@d"),
        ("/data/x/", "/data/x"),
        ("a/../b/", "{home}/b"),
        (".", "{home}"),
        ("~", "{home}"),
        ("~/x", "{home}/x"),
        ("~root/x", "/root/x"),
        ("file:///data/x/", "/data/x"),
        ("FILE:///data/x", "/data/x"),
        ("file:/data/x", "/data/x"),
        ("file://localhost/data/my%20cases", "/data/my cases"),
        ("/data/my cases/x", "/data/my cases/x"),
        ("run:2", "{home}/run:2"),
        ("2026-11-26T10:20/x", "{home}/2026-11-26T10:20/x"),
        ("/data/~/x", "/data/~/x"),
        ("/data/price$", "/data/price$"),
        ("/data/fälle", "/data/fälle"),
        ("/data/s3//b", "/data/s3/b"),
        ("my-s3//b", "{home}/my-s3/b"),
        ("run@2/x", "{home}/run@2/x"),
    ],
)
def test_a_place_is_taken_as_it_is_meant_and_then_stays(place: str, meant: str, home: Path) -> None:
    expected = meant.format(home=home)
    assert absolute(place) == expected
    assert absolute(expected) == expected


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("s3:/bucket/x", "s3:/bucket/x: write s3://bucket/x"),
        ("s3:bucket/x", "s3:bucket/x: write s3://bucket/x"),
        ("s3:bucket", "s3:bucket: write s3://bucket"),
        ("S3:/bucket/x", "S3:/bucket/x: write s3://bucket/x"),
        ("s3//bucket/x", "s3//bucket/x: write s3://bucket/x"),
        ("s3://bucket//a", "s3://bucket//a: write s3://bucket/a"),
        ("s3://", "s3://: names no bucket; write s3://BUCKET/FOLDER"),
        ("s3:", "s3:: names no bucket; write s3://BUCKET/FOLDER"),
        ("s3:///x", "s3:///x: names no bucket; write s3://BUCKET/FOLDER"),
        ("s3 ://b/x", "s3 ://b/x: write s3://b/x"),
        ("s3;//b", "s3;//b: write s3://b"),
        ("s3\uff1a//b/x", "s3\uff1a//b/x: write s3://b/x"),
        ("/s3://b/x", "/s3://b/x: write s3://b/x"),
        ("./s3://b/x", "./s3://b/x: write s3://b/x"),
        ("simplecache::s3://b/x", "simplecache::s3://b/x: write s3://b/x"),
        ("arn:aws:s3:::b/x", "arn:aws:s3:::b/x: write s3://b/x"),
        ("s3://arn:aws:s3:::b/x", "s3://arn:aws:s3:::b/x: write s3://b/x"),
        ("arn:aws:iam::1:x", "arn:aws:iam::1:x: neither a local path nor an s3:// URL; use one of them"),
        ("blockcache::x", "blockcache::x: neither a local path nor an s3:// URL; use one of them"),
        ("/data/hf://x", "/data/hf://x: neither a local path nor an s3:// URL; use one of them"),
        (
            "s3://b/x/*",
            "s3://b/x/*: * stands for nothing in a URL; name the folder that holds the files",
        ),
        ("s3://b/x?y", "s3://b/x?y: ? stands for nothing in a URL; name the folder that holds the files"),
        ("abfss://c@a/x", "abfss://c@a/x: neither a local path nor an s3:// URL; use one of them"),
        (f"abfss://c:{SECRET}@a/x", "abfss://...: neither a local path nor an s3:// URL; use one of them"),
        (
            "me@server:x",
            "me@server:x: a folder of another machine; write the path under which this machine sees it",
        ),
        ("s3:// bucket/x", "s3:// bucket/x: the name of a bucket holds no space; write s3://BUCKET/FOLDER"),
        ("s3://bucket/a/../b", "s3://bucket/a/../b: S3 knows neither . nor ..; write the URL without them"),
        ("s3://bucket/x ", "'s3://bucket/x ': begins or ends with a space; remove it"),
        ("s3://bucket/$USER/x", "s3://bucket/$USER/x: no shell has replaced $USER; write its value"),
        (r"s3:\\bucket\x", r"s3:\\bucket\x: write / in place of " + "\\"),
        ("gs://bucket/x", "gs://bucket/x: neither a local path nor an s3:// URL; use one of them"),
        ("gs:/bucket/x", "gs:/bucket/x: neither a local path nor an s3:// URL; use one of them"),
        ("s3n://bucket/x", "s3n://bucket/x: neither a local path nor an s3:// URL; use one of them"),
        (
            "https://store.example/b",
            "https://store.example/b: neither a local path nor an s3:// URL; use one of them",
        ),
        ("http:/store/b", "http:/store/b: neither a local path nor an s3:// URL; use one of them"),
        ("gopher://x", "gopher://x: neither a local path nor an s3:// URL; use one of them"),
        ("file://data/x", "file://data/x: names no absolute path; write file:///FOLDER, or the path alone"),
        ("file:x", "file:x: names no absolute path; write file:///FOLDER, or the path alone"),
        ("file://", "file://: names no absolute path; write file:///FOLDER, or the path alone"),
        ("~nobody-here/x", "~nobody-here/x: this machine has no user 'nobody-here'; write the whole path"),
        (
            r"C:\data\x",
            r"C:\data\x: a path of Windows; write the path under which this machine sees it, as /mnt/...",
        ),
        ("C:/data", "C:/data: a path of Windows; write the path under which this machine sees it, as /mnt/..."),
        ("d:", "d:: a path of Windows; write the path under which this machine sees it, as /mnt/..."),
        (
            r"\\server\share",
            r"\\server\share: a path of Windows; write the path under which this machine sees it, as /mnt/...",
        ),
        (r"data\cases", r"data\cases: write / in place of " + "\\"),
        ("server:/x", "server:/x: a folder of another machine; write the path under which this machine sees it"),
        (
            "me@server:/x",
            "me@server:/x: a folder of another machine; write the path under which this machine sees it",
        ),
        (" /data/x", "' /data/x': begins or ends with a space; remove it"),
        ("/data/x ", "'/data/x ': begins or ends with a space; remove it"),
        ("'/data/x'", "'/data/x': begins or ends with a quotation mark; remove it"),
        ('"s3://b/x"', '"s3://b/x": begins or ends with a quotation mark; remove it'),
        ("\u201c/data/x\u201d", "\u201c/data/x\u201d: begins or ends with a quotation mark; remove it"),
        ("$HOME/x", "$HOME/x: no shell has replaced $HOME; write its value"),
        ("/data/${CASE}/x", "/data/${CASE}/x: no shell has replaced ${CASE}; write its value"),
        ("/data/x\n", "'/data/x\\n': holds a line break or another control character; remove it"),
        ("/data/\0x", "'/data/\\x00x': holds a line break or another control character; remove it"),
    ],
)
def test_a_mistyped_place_is_one_line_and_nothing_is_written(place: str, said: str, home: Path) -> None:
    with pytest.raises(SettingError) as caught:
        absolute(place)
    assert str(caught.value) == said
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("name", ["cases ", "'cases'", "$cases", "a\\b", "host:/x", "a::b"])
def test_odd_names_of_folders_that_exist_are_taken(name: str, home: Path) -> None:
    os.makedirs(home / name)
    assert absolute(name) == str(home / name)


@pytest.mark.parametrize("place", ["s3:/bucket/x", "C:/data"])
def test_a_folder_that_an_earlier_mistake_made_does_not_hide_the_mistake(place: str, home: Path) -> None:
    os.makedirs(home / place)
    with pytest.raises(SettingError, match=r": (write s3://bucket/x|a path of Windows)"):
        absolute(place)


@pytest.mark.parametrize(
    "place",
    [
        f"s3://KEYID:{SECRET}@bucket/x",
        f"s3://KEYID:{SECRET}/abc@bucket/x",
        f"s3://KEYID:abc/{SECRET}@bucket/x",
        f"S3://KEYID:{SECRET}@bucket/x ",
        f"s3:KEYID:{SECRET}@bucket/x",
        f"x::s3://KEYID:{SECRET}@bucket/x",
        f"s3://KEYID:{SECRET}@bucket/x\n",
        f"https://KEYID:{SECRET}@store.example/bucket",
    ],
)
def test_credentials_in_a_place_are_refused_without_showing_them(place: str) -> None:
    with pytest.raises(
        SettingError, match=r"^\w+://\.\.\.: holds credentials.*set AWS_ACCESS_KEY_ID and"
    ) as caught:
        absolute(place)
    assert SECRET not in str(caught.value)
    assert "KEYID" not in str(caught.value)


def test_a_working_folder_that_is_gone_is_one_line(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    folder = home / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(SettingError, match=r"^x: the working folder is gone; "):
        absolute("x")
