"""Runs in child processes: at the same time, their lines by name, their errors kept, none left behind."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from brats.config import TrainConfig
from brats.errors import BratsError, ConfigError, NoRoomError
from brats.pipeline.several.children import Child, run_children, short_names
from tests.support import ROOT
from tests.support.stand_in_child import MODULE, PATIENCE_S


def configs(folder: Path, *names: str) -> list[TrainConfig]:
    return [TrainConfig(out=str(folder / name), workers=3) for name in names]


def run(folder: Path, *names: str, at_once: int) -> dict[str, BratsError]:
    failed = run_children(configs(folder, *names), at_once, "head:6379", MODULE)
    return {Path(out).name: error for out, error in failed.items()}


def test_lines_of_a_child_have_the_name_of_its_run_in_front(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "fold_0", at_once=1) == {}
    assert capsys.readouterr().out == "fold_0   at head:6379 with 3 workers\n"


def test_as_many_as_asked_are_at_work_at_the_same_time(tmp_path: Path) -> None:
    assert run(tmp_path, "meets_a", "meets_b", at_once=2) == {}


def test_no_more_than_asked_are_at_work_at_the_same_time(tmp_path: Path) -> None:
    names = ["c", "a", "b"]
    assert run(tmp_path, *names, at_once=1) == {}
    assert (tmp_path / "ended").read_text().split() == names


def test_those_that_fail_are_reported_with_their_reason_and_the_others_end_well(tmp_path: Path) -> None:
    failed = run(tmp_path, "fails", "wrong", "crowded", "killed", "good", at_once=5)
    assert (tmp_path / "ended").read_text() == "good\n"
    assert {name: str(error) for name, error in failed.items()} == {
        "fails": "the loss is no longer finite",
        "wrong": "--encoder: unknown",
        "crowded": "no room",
        "killed": "its process ended with signal 9; its last line was: at head:6379 with 3 workers",
    }
    assert {name: type(error) for name, error in failed.items()} == {
        "fails": BratsError,
        "wrong": ConfigError,
        "crowded": NoRoomError,
        "killed": BratsError,
    }


def test_children_are_stopped_when_their_parent_is_interrupted(tmp_path: Path) -> None:
    def interrupt() -> None:
        while not (tmp_path / "waiting").exists():
            time.sleep(0.02)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "waits", at_once=1)
    thread.join()
    assert not (tmp_path / "ended").exists()


def test_a_child_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "from brats.config import TrainConfig\n"
        "from brats.pipeline.several.children import Child\n"
        f"child = Child('a', TrainConfig(out={str(tmp_path / 'waits')!r}), 'x', {MODULE!r})\n"
        "print(child._process.pid, flush=True)\n"
        f"while not os.path.exists({str(tmp_path / 'waiting')!r}): pass\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout
    (pid,) = (int(line) for line in said.splitlines() if line.isdigit())
    deadline = time.monotonic() + PATIENCE_S / 2
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_child_that_cannot_start_says_why(tmp_path: Path) -> None:
    child = Child("a", configs(tmp_path, "a")[0], "head:6379", "no.such.module")
    error = child.error()
    assert "No module named 'no'" in str(error)


def test_a_child_looks_for_the_cluster_that_it_is_told(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, "fold_0")
    failed = run_children([config], 1, "127.0.0.1:1")
    assert isinstance(failed[config.out], ConfigError)
    assert str(failed[config.out]).startswith("RAY_ADDRESS=127.0.0.1:1: no Ray answers there")


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["/o/fold_0", "/o/fold_1"], ["fold_0", "fold_1"]),
        (["s3://b/o/fold_0/axial", "s3://b/o/fold_1/axial"], ["fold_0/axial", "fold_1/axial"]),
        (["/o/a", "/o/a/b"], ["a", "a/b"]),
        (["/o/run"], ["run"]),
    ],
)
def test_short_names_tell_folders_apart(folders: list[str], names: list[str]) -> None:
    assert short_names(folders) == names
