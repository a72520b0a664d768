"""The temporary folder of a user: closed to others, never another's, never through a link."""

import os
from pathlib import Path
from typing import Any

import pytest

from brats.storage import user_folder as module
from brats.storage.user_folder import user_folder

NAME = f"brats-{os.getuid()}"


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only folder that is tried beside TMPDIR, which names it too."""
    monkeypatch.setattr(module, "FALLBACKS", (str(tmp_path),))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_it_is_open_to_this_user_alone(root: Path) -> None:
    assert user_folder() == str(root / NAME)
    assert (root / NAME).stat().st_mode & 0o777 == 0o700


def test_one_that_is_there_is_closed_to_others(root: Path) -> None:
    (root / NAME).mkdir(mode=0o755)
    assert user_folder() == str(root / NAME)
    assert (root / NAME).stat().st_mode & 0o777 == 0o700


def test_path_that_is_too_long_is_passed_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "longer").mkdir()
    monkeypatch.setenv("TMPDIR", str(root / "longer"))
    assert user_folder(len(str(root / NAME))) == str(root / NAME)
    assert user_folder(len(str(root / NAME)) - 1) is None


def test_tmpdir_that_is_not_there_is_passed_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    assert user_folder() == str(root / NAME)
    assert not Path("/nowhere").exists()


def test_tmpdir_that_cannot_be_written_is_passed_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, access = root / "first", os.access
    first.mkdir()
    monkeypatch.setenv("TMPDIR", str(first))
    monkeypatch.setattr(os, "access", lambda path, mode: "first" not in path and access(path, mode))
    assert user_folder() == str(root / NAME)


def test_folder_of_another_user_is_passed_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = root / "first" / NAME
    theirs.mkdir(parents=True)
    lstat = os.lstat

    def as_of_another(path: str, **options: Any) -> os.stat_result:
        found = list(lstat(path, **options))
        found[4] += path == str(theirs)  # st_uid
        return os.stat_result(found)

    monkeypatch.setattr(os, "lstat", as_of_another)
    monkeypatch.setenv("TMPDIR", str(root / "first"))
    assert user_folder() == str(root / NAME)


def test_link_in_place_of_the_folder_is_not_followed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "first").mkdir()
    (root / "first" / NAME).symlink_to(root)
    monkeypatch.setenv("TMPDIR", str(root / "first"))
    assert user_folder() == str(root / NAME)


def test_there_may_be_none(root: Path) -> None:
    (root / NAME).write_text("a file")
    assert user_folder() is None
