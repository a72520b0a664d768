"""What a job leaves on the machine: its output, and nothing elsewhere but what Ray keeps in its own folder."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import BUSY_MACHINE, ROOT
from tests.support.synthetic import write_cases
from tests.support.training import OPTIONS

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@dataclass(frozen=True)
class Places:
    """Folders that a job may meet; `temporary` has a short path, which Ray's sockets need."""

    cases: Path
    out: Path
    home: Path
    cwd: Path
    temporary: Path


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Folders after a training with its prediction and its report."""
    names = ("cases", "out", "home", "cwd")
    temporary = Path(tempfile.mkdtemp(prefix="b-", dir="/tmp"))
    places = Places(**{name: tmp_path_factory.mktemp(name) for name in names}, temporary=temporary)
    write_cases(places.cases, 10, shape=(32, 30, 12))
    before = contents(places.cases)
    options = ["--data", str(places.cases), "--out", str(places.out), *OPTIONS, "--epochs", "1"]
    fixed = {
        **BUSY_MACHINE,
        "HOME": str(places.home),
        "TMPDIR": str(places.temporary),
        "OMP_NUM_THREADS": "1",
    }
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MPL", "XDG_", "BRATS_"))
    }
    try:
        done = subprocess.run(
            [sys.executable, str(ROOT / "jobs" / "train.py"), *options],
            cwd=places.cwd,
            env={**kept, **fixed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert contents(places.cases) == before
        yield places
    finally:
        shutil.rmtree(temporary)


def contents(folder: Path) -> dict[str, int]:
    """The files and folders below a folder, with the times of their last change."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_nothing_is_written_to_the_home_or_the_working_folder(places: Places) -> None:
    assert contents(places.home) == {}
    assert contents(places.cwd) == {}


def test_the_output_holds_nothing_hidden(places: Places) -> None:
    names = [path.name for path in places.out.rglob("*")]
    assert "config.json" in names
    assert [name for name in names if name.startswith(".")] == []


def test_temporary_files_are_in_a_folder_that_is_the_users_alone(places: Places) -> None:
    files = [path.relative_to(places.temporary) for path in places.temporary.rglob("*") if path.is_file()]
    assert {path.parts[0] for path in files} == {f"brats-{os.getuid()}"}
    assert stat.S_IMODE((places.temporary / f"brats-{os.getuid()}").stat().st_mode) == 0o700
