"""The folder of the embedded Ray: short enough for its sockets, private, and named where none can be had."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from brats.cluster.folder import MOST_BYTES, choose_folder, objects_on_disk
from brats.errors import ConfigError
from brats.storage import user_folder


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a short path, the only one that is tried beside TMPDIR, which is not set; nor is RAY_TMPDIR."""
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as short:
        monkeypatch.setattr(user_folder, "FALLBACKS", (short,))
        monkeypatch.setenv("TMPDIR", short)
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        yield Path(short)


def test_sockets_leave_39_bytes() -> None:
    assert MOST_BYTES == 39


def test_folder_is_the_user_s_own(root: Path) -> None:
    assert choose_folder() == str(root / f"brats-{os.getuid()}")
    assert (root / f"brats-{os.getuid()}").stat().st_mode & 0o777 == 0o700


def test_tmpdir_that_is_too_long_for_sockets_is_passed_over(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    assert choose_folder() == str(root / f"brats-{os.getuid()}")
    assert list(long.iterdir()) == []


def test_where_none_can_be_had_one_line_names_the_variable(root: Path) -> None:
    taken = root / f"brats-{os.getuid()}"
    taken.write_text("")
    with pytest.raises(ConfigError) as caught:
        choose_folder()
    assert str(caught.value) == (
        f"RAY_TMPDIR: Ray finds no folder for its sockets and logs: {taken} are longer than 39 bytes, "
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


def test_shared_memory_as_large_as_the_store_is_not_worth_a_line(tmp_path: Path) -> None:
    assert objects_on_disk(1, str(tmp_path)) == ""
    assert objects_on_disk(1, str(tmp_path / "missing")) == ""  # as on systems other than Linux


def test_shared_memory_smaller_than_the_store_is_one_line_that_names_the_folder(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/r")
    assert objects_on_disk(6.84e9, str(small_disk)) == (
        f"{small_disk} has 0.00 GB: shared objects, up to 6.8 GB, lie in /tmp/r"
    )
