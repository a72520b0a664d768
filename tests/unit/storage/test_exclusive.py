"""Small files of one writer, on a disk and in S3: made once, replaced and removed only as they were last read."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from brats import storage
from brats.errors import StorageError
from brats.storage import exclusive
from brats.storage.exclusive import create, discard, look, replace

N_WRITERS = 8


@pytest.fixture(params=["disk", "s3"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    root = str(tmp_path) if request.param == "disk" else request.getfixturevalue("s3_bucket")
    return storage.join(root, "folder", ".owner.json")


def version(path: str) -> str:
    seen = look(path)
    assert seen
    return seen.version


def test_a_file_is_made_once(path: str) -> None:
    assert create(path, b"first")
    assert not create(path, b"second")
    assert storage.read_bytes(path) == b"first"


def test_it_is_read_with_its_age_by_the_clock_of_the_store(path: str) -> None:
    assert look(path) is None
    create(path, b"x")
    seen = look(path)
    assert seen
    assert seen.content == b"x"
    assert 0 <= seen.age_s < 60


def test_it_is_replaced_only_as_it_was_read(path: str) -> None:
    create(path, b"first")
    before = version(path)
    assert replace(path, b"second", before)
    assert version(path) != before
    assert not replace(path, b"third", before)
    assert storage.read_bytes(path) == b"second"


def test_it_is_removed_only_as_it_was_read(path: str) -> None:
    create(path, b"first")
    before = version(path)
    replace(path, b"second", before)
    discard(path, before)
    assert storage.read_bytes(path) == b"second"
    discard(path, version(path))
    assert look(path) is None


def test_what_is_gone_is_neither_replaced_nor_missed(path: str) -> None:
    create(path, b"x")
    before = version(path)
    discard(path, before)
    assert not replace(path, b"y", before)
    discard(path, before)
    assert look(path) is None


def test_nothing_else_is_left_over(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    create(path, b"first")
    create(path, b"second")
    replace(path, b"third", version(path))
    replace(path, b"fourth", "another")
    assert os.listdir(tmp_path) == ["x"]
    discard(path, version(path))
    assert os.listdir(tmp_path) == []


def at_once(act: Any) -> list[Any]:
    """What several threads get that do the same at once."""
    barrier = threading.Barrier(N_WRITERS)

    def run(number: int) -> Any:
        barrier.wait()
        return act(number)

    with ThreadPoolExecutor(N_WRITERS) as pool:
        return list(pool.map(run, range(N_WRITERS)))


def test_one_of_several_writers_makes_and_one_replaces_a_local_file(tmp_path: Path) -> None:
    for round_ in range(20):
        path = str(tmp_path / f"{round_}")
        made = at_once(lambda number, path=path: create(path, b"made %d" % number))
        assert sum(made) == 1
        assert storage.read_bytes(path) == b"made %d" % made.index(True)
        before = version(path)
        taken = at_once(lambda number, path=path, before=before: replace(path, b"taken %d" % number, before))
        assert sum(taken) == 1
        assert storage.read_bytes(path) == b"taken %d" % taken.index(True)


def test_a_file_system_without_links_or_locks_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr("brats.storage.exclusive.os.link", refuse)
    monkeypatch.setattr("brats.storage.exclusive.fcntl.flock", refuse)
    path = str(tmp_path / "x")
    assert create(path, b"first")
    assert not create(path, b"second")
    assert replace(path, b"third", version(path))
    assert storage.read_bytes(path) == b"third"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"file/x: cannot write: (Not a directory|File exists)$"):
        create(str(tmp_path / "file" / "x"), b"x")


def test_every_disk_is_guarded(tmp_path: Path) -> None:
    assert exclusive.is_guarded(str(tmp_path))
