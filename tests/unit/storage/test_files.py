"""Files on disk and in S3: whole or not at all, listed, removed, errors in one line."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from brats import storage
from brats.errors import ConfigError, SettingError, StorageError
from brats.storage import FileInfo
from tests.support.s3 import S3Server


@pytest.fixture(scope="module")
def s3(s3_server: S3Server) -> Iterator[Any]:
    """A client of an S3 server on this machine, which the environment makes everybody's S3, with one bucket."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment().items():
            patch.setenv(name, value)
        s3_server.make_bucket("bucket")
        yield s3_server.client()


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty folder or prefix of each kind of storage."""
    if request.param == "disk":
        yield str(tmp_path)
    else:
        client = request.getfixturevalue("s3")
        yield "s3://bucket/root"
        for entry in client.list_objects_v2(Bucket="bucket").get("Contents", []):
            client.delete_object(Bucket="bucket", Key=entry["Key"])


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def fail_with(error: Exception) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


# Paths


@pytest.mark.parametrize("path", ["s3://bucket/x", "s3a://bucket/x"])
def test_a_url_of_s3_is_remote(path: str) -> None:
    assert storage.is_remote(path)
    assert not storage.is_remote("a/b")


def test_parts_join_with_single_slashes() -> None:
    assert storage.join("s3://bucket/run/", "test", "masks") == "s3://bucket/run/test/masks"
    assert storage.join("/data", "x") == "/data/x"


def test_the_name_of_a_file_is_the_end_of_its_path() -> None:
    assert FileInfo("s3://bucket/a/b.nii.gz", 1).name == "b.nii.gz"
    assert FileInfo("b.nii.gz", 1).name == "b.nii.gz"


# Files, the same on every kind of storage


def test_what_is_written_is_read_back(root: str) -> None:
    path = storage.join(root, "deep", "er", "x.bin")
    assert not storage.exists(path)
    storage.write_bytes(path, b"old")
    storage.write_bytes(path, memoryview(b"\x00new"))
    assert storage.exists(path)
    assert storage.read_bytes(path) == b"\x00new"


def test_a_listing_has_every_file_at_any_depth_by_path_with_its_size(root: str) -> None:
    for name, size in {"b.bin": 2, "a/z.bin": 0, "a/deep/x.bin": 3, "a.bin": 1}.items():
        storage.write_bytes(storage.join(root, name), bytes(size))
    expected = {"a.bin": 1, "a/deep/x.bin": 3, "a/z.bin": 0, "b.bin": 2}
    assert storage.list_files(root) == [FileInfo(storage.join(root, name), size) for name, size in expected.items()]
    assert [file.name for file in storage.list_files(storage.join(root, "a"))] == ["x.bin", "z.bin"]


def test_a_file_that_is_written_again_has_another_stamp(root: str) -> None:
    path = storage.join(root, "x.bin")
    stamps = []
    for content in (b"old", b"new"):
        storage.write_bytes(path, content)
        stamps += [file.stamp for _ in range(2) for file in storage.list_files(root)]
    first, again, rewritten, same = stamps
    assert first == again != ""
    assert rewritten == same != first


def test_a_folder_that_does_not_exist_is_not_an_empty_one(root: str) -> None:
    with pytest.raises(FileNotFoundError):
        storage.list_files(storage.join(root, "none"))


def test_a_missing_file_raises_file_not_found(root: str) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(root, "none.bin"))


def test_removing_takes_a_file_or_a_whole_folder_and_minds_no_absence(root: str) -> None:
    for name in ("kept.bin", "gone.bin", "folder/a.bin", "folder/deep/b.bin"):
        storage.write_bytes(storage.join(root, name), b"x")
    for name in ("gone.bin", "folder", "never"):
        storage.remove(storage.join(root, name))
    assert [file.name for file in storage.list_files(root)] == ["kept.bin"]


def test_json_is_read_back(root: str) -> None:
    path = storage.join(root, "x.json")
    storage.write_json(path, {"a": [1, None, "é"], "b": {"c": 0.1}})
    assert storage.read_json(path) == {"a": [1, None, "é"], "b": {"c": 0.1}}
    assert storage.read_bytes(path).endswith(b"}\n")


# Local files


def test_a_relative_path_without_a_folder_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    storage.write_bytes("x.bin", b"x")
    assert files_below(tmp_path) == ["x.bin"]


def test_a_file_has_the_permissions_that_the_user_asks_for(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        storage.write_bytes(str(tmp_path / "x.bin"), b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "x.bin").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_write_that_breaks_off_leaves_the_old_content_and_no_part(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "x.bin"
    storage.write_bytes(str(path), b"old")

    def fail(*_: object) -> None:
        assert len(files_below(tmp_path)) == 2  # the new content is there, under another name
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises((StorageError, KeyboardInterrupt)):
        storage.write_bytes(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert files_below(tmp_path) == ["x.bin"]


def test_a_reader_never_sees_a_part_of_a_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    storage.write_bytes(str(path), b"old")
    seen = []
    fsync = os.fsync

    def look_then_sync(handle: int) -> None:
        seen.append(path.read_bytes())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", look_then_sync)
    storage.write_bytes(str(path), b"new")
    assert seen == [b"old"]
    assert path.read_bytes() == b"new"


def test_a_full_disk_is_reported_and_leaves_no_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = str(tmp_path / "x.bin")
    monkeypatch.setattr(os, "fsync", fail_with(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(StorageError) as caught:
        storage.write_bytes(path, b"new")
    remedy = "no space left on the disk; free some and run the same command again"
    assert str(caught.value) == f"{path}: cannot write: {remedy}"
    assert files_below(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full: Linux has one")
def test_the_error_of_a_device_that_is_really_full_is_recognised() -> None:
    with (
        pytest.raises(StorageError, match="cannot write: no space left on the disk"),
        storage.storage_errors("x", "write"),
        open("/dev/full", "wb", buffering=0) as file,
    ):
        file.write(b"x")


def test_a_path_through_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StorageError, match=r"file/x\.bin: cannot write: "):
        storage.write_bytes(str(tmp_path / "file" / "x.bin"), b"new")


def test_a_file_does_not_replace_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x.bin").mkdir()
    with pytest.raises(StorageError, match=r"x\.bin: cannot write: Is a directory"):
        storage.write_bytes(str(tmp_path / "x.bin"), b"new")
    assert files_below(tmp_path) == []


def test_a_folder_cannot_be_read_as_a_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read: Is a directory"):
        storage.read_bytes(str(tmp_path))


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError("first line\n  second"), "first line second"), (BlockingIOError(), "BlockingIOError")],
)
def test_an_error_is_one_line_that_names_the_path(error: OSError, reason: str) -> None:
    with pytest.raises(StorageError) as caught, storage.storage_errors("x.bin", "read"):
        raise error
    assert str(caught.value) == f"x.bin: cannot read: {reason}"


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="a bug"), storage.storage_errors("x.bin", "read"):
        raise RuntimeError("a bug")


@pytest.mark.parametrize(
    "act",
    [
        storage.exists,
        storage.list_files,
        storage.read_bytes,
        storage.remove,
        storage.check_roundtrip,
        lambda path: storage.write_bytes(path, b"x"),
    ],
)
@pytest.mark.parametrize("url", ["gopher://x", "file:///x", "memory://x"])
def test_another_kind_of_storage_is_refused_and_nothing_is_written(
    act: Callable[[str], Any], url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"^{url}.*: neither a local path nor an s3:// URL; use one of them$"):
        act(url)
    assert list(tmp_path.iterdir()) == []


def test_removing_a_link_keeps_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.bin").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    storage.remove(str(tmp_path / "link"))
    assert files_below(tmp_path) == ["folder/x.bin"]


# Local listings


def test_an_empty_folder_gives_an_empty_listing(tmp_path: Path) -> None:
    assert storage.list_files(str(tmp_path)) == []


def test_a_file_is_not_a_folder_to_list(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"x")
    with pytest.raises(SettingError, match=r"x\.bin: a file, not a folder; name a folder$"):
        storage.list_files(str(tmp_path / "x.bin"))


def test_a_file_is_not_a_folder_to_write_to_and_stays(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"x")
    with pytest.raises(SettingError, match=r"x\.bin: a file, not a folder; name a folder$"):
        storage.check_roundtrip(str(tmp_path / "x.bin"))
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]
    assert (tmp_path / "x.bin").read_bytes() == b"x"


def test_a_listing_follows_links_and_skips_dangling_ones(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.bin").write_bytes(b"123")
    root = tmp_path / "root"
    root.mkdir()
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    (root / "file.bin").symlink_to(tmp_path / "elsewhere" / "x.bin")
    (root / "dangling.bin").symlink_to(tmp_path / "none")
    assert storage.list_files(str(root)) == [
        FileInfo(str(root / "file.bin"), 3),
        FileInfo(str(root / "folder" / "x.bin"), 3),
    ]


def test_links_in_circles_list_each_file_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.bin").write_bytes(b"x")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    assert [file.name for file in storage.list_files(str(tmp_path))] == ["a.bin", "b.bin"]


def test_a_folder_that_cannot_be_read_is_an_error_not_an_omission(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="cannot list: Permission denied"):
        storage.list_files(str(tmp_path))


# S3


def test_what_other_processes_write_and_remove_is_seen_at_once(s3: Any) -> None:
    storage.write_bytes("s3://bucket/shared/a.bin", b"a")
    storage.list_files("s3://bucket/shared")
    s3.put_object(Bucket="bucket", Key="shared/b.bin", Body=b"b")
    assert storage.exists("s3://bucket/shared/b.bin")
    assert storage.read_bytes("s3://bucket/shared/b.bin") == b"b"
    s3.delete_object(Bucket="bucket", Key="shared/a.bin")
    assert not storage.exists("s3://bucket/shared/a.bin")


def test_objects_that_mark_empty_folders_are_not_files(s3: Any) -> None:
    for key in ("marked/", "marked/x.bin", "marked/empty/"):
        s3.put_object(Bucket="bucket", Key=key, Body=b"")
    assert storage.list_files("s3://bucket/marked") == [FileInfo("s3://bucket/marked/x.bin", 0)]


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(
    ("act", "doing"),
    [
        (storage.read_bytes, "read"),
        (storage.list_files, "list"),
        (storage.exists, "list"),
        (storage.remove, "list"),
        (lambda path: storage.write_bytes(path, b"x"), "write"),
    ],
)
def test_a_missing_bucket_is_not_a_missing_folder(act: Callable[[str], Any], doing: str) -> None:
    said = rf"^s3://nobody/x: cannot {doing}: 127\.0\.0\.1:\d+ has no bucket 'nobody'; correct the path, or AWS_"
    with pytest.raises(ConfigError, match=said):
        act("s3://nobody/x")


@pytest.mark.usefixtures("s3")
def test_parts_of_a_remote_file_are_read() -> None:
    storage.write_bytes("s3://bucket/parts.bin", bytes(range(100)))
    with storage.open_ranged("s3://bucket/parts.bin") as file:
        file.seek(40)
        assert file.read(3) == bytes([40, 41, 42])
    with pytest.raises(FileNotFoundError):
        storage.open_ranged("s3://bucket/none.bin")


@pytest.mark.usefixtures("s3")
def test_a_bucket_may_be_empty(s3_server: S3Server) -> None:
    assert storage.list_files(s3_server.make_bucket("empty")) == []


# The check before a job


def test_a_folder_that_can_be_written_passes_and_stays_empty(tmp_path: Path) -> None:
    storage.check_roundtrip(str(tmp_path / "new" / "folder"))
    assert (tmp_path / "new" / "folder").is_dir()
    assert files_below(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StorageError, match=r"file/x/\.check-\w+: cannot write: "):
        storage.check_roundtrip(str(tmp_path / "file" / "x"))


def test_a_disk_without_space_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "fsync", fail_with(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(StorageError, match="no space left on the disk"):
        storage.check_roundtrip(str(tmp_path))
    assert files_below(tmp_path) == []


def test_a_folder_that_gives_back_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: os.ftruncate(handle, 99_999))
    with pytest.raises(StorageError, match="is not read back unchanged; use another folder"):
        storage.check_roundtrip(str(tmp_path))
    assert files_below(tmp_path) == []


@pytest.mark.usefixtures("s3")
def test_a_prefix_that_can_be_written_passes_and_stays_empty(s3_server: S3Server) -> None:
    root = s3_server.make_bucket("checked")
    storage.check_roundtrip(f"{root}/some/where")
    assert s3_server.objects("checked") == {}


# JSON and tables


@pytest.mark.parametrize(
    ("content", "reason"), [(b'{"a": ', "not JSON"), (b"\xff", "not JSON"), (b"[1]", "object")]
)
def test_broken_json_names_its_file(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=rf"x\.json: .*{reason}"):
        storage.read_json(str(path))


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".partial-1", ".partial-2", "case.parquet", ".owner.json"):
        (tmp_path / name).touch()
    storage.remove_unfinished(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".owner.json", "case.parquet"]
    storage.remove_unfinished(str(tmp_path / "nothing"))
