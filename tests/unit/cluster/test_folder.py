"""The folder of the embedded Ray: short enough for its sockets, private, and named where none can be had."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brats.cluster import folder as folder_of_ray
from brats.cluster.folder import MOST_BYTES, choose_folder
from brats.errors import ConfigError


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a short path, the only one that is tried beside TMPDIR, which is not set; nor is RAY_TMPDIR."""
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as short:
        monkeypatch.setattr(folder_of_ray, "FALLBACKS", (short,))
        monkeypatch.setenv("TMPDIR", short)
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        yield Path(short)


def name() -> str:
    return f"ray-{os.getuid()}"


def test_sockets_leave_39_bytes() -> None:
    assert MOST_BYTES == 39


def test_folder_below_tmpdir_is_open_to_this_user_alone(root: Path) -> None:
    assert choose_folder() == str(root / name())
    assert (root / name()).stat().st_mode & 0o777 == 0o700


def test_folder_that_is_there_is_closed_to_others(root: Path) -> None:
    (root / name()).mkdir(mode=0o755)
    assert choose_folder() == str(root / name())
    assert (root / name()).stat().st_mode & 0o777 == 0o700


def test_long_tmpdir_is_passed_over(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    assert choose_folder() == str(root / name())
    assert list(long.iterdir()) == []


def test_tmpdir_that_is_not_there_is_passed_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    assert choose_folder() == str(root / name())


def test_tmpdir_that_cannot_be_written_is_passed_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, access = root / "first", os.access
    first.mkdir()
    monkeypatch.setenv("TMPDIR", str(first))
    monkeypatch.setattr(os, "access", lambda path, mode: "first" not in path and access(path, mode))
    assert choose_folder() == str(root / name())


def test_folder_of_another_user_is_passed_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = root / "first" / name()
    theirs.mkdir(parents=True)
    lstat = os.lstat

    def as_of_another(path: str, **options: Any) -> os.stat_result:
        found = list(lstat(path, **options))
        found[4] += path == str(theirs)  # st_uid
        return os.stat_result(found)

    monkeypatch.setattr(os, "lstat", as_of_another)
    monkeypatch.setenv("TMPDIR", str(root / "first"))
    assert choose_folder() == str(root / name())


def test_link_in_place_of_the_folder_is_not_followed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "first").mkdir()
    (root / "first" / name()).symlink_to(root)
    monkeypatch.setenv("TMPDIR", str(root / "first"))
    assert choose_folder() == str(root / name())


def test_where_none_can_be_had_one_line_names_the_variable(root: Path) -> None:
    (root / name()).write_text("")
    with pytest.raises(ConfigError) as caught:
        choose_folder()
    assert str(caught.value) == (
        f"RAY_TMPDIR: Ray finds no folder for its sockets and logs: {root / name()} are longer than 39 bytes, "
        "belong to another user or cannot be written; set it to a short folder of your own"
    )


def test_folder_that_the_user_names_is_taken(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(root / "mine"))
    assert choose_folder() == str(root / "mine")


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ("/tmp/" + 115 * "x", "120 bytes long, 39 at most leave room for Ray's sockets"),
        ("here", "not an absolute path"),
        ("/proc/here", r"cannot be written \(No such file or directory\)"),
    ],
)
def test_folder_that_the_user_names_and_ray_cannot_use_is_one_line(
    named: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", named)
    with pytest.raises(ConfigError, match=rf"^RAY_TMPDIR={named}: {problem}; set it to a short folder"):
        choose_folder()
