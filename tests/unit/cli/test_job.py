"""Jobs as programs: exit codes, one line for every error, and output that nobody reads."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NoReturn

import pytest

from brats.cli import job as cli
from brats.cli.job import DEPENDENCIES, FAILED, NOBODY_READS, WRONG_COMMAND, run_job
from brats.cli.parser import DONE
from brats.config import PrepareConfig, TrainConfig
from brats.errors import BratsError, ConfigError, StorageError
from tests.support import ROOT

JOBS = ROOT / "jobs"
JOB_NAMES = sorted(path.name for path in JOBS.glob("*.py"))


# Running a job


def run(monkeypatch: pytest.MonkeyPatch, error: BaseException | None, *options: str) -> int | str | None:
    """The exit code of a job that raises this error."""

    def main(_: PrepareConfig) -> None:
        if error:
            raise error

    monkeypatch.setattr(sys, "argv", ["jobs/prepare.py", "--data", "d", "--out", "o", *options])
    try:
        run_job(main, PrepareConfig)
    except SystemExit as stop:
        return stop.code
    return DONE


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (None, DONE, ""),
        (ConfigError("--x: bad"), WRONG_COMMAND, "prepare.py: --x: bad\n"),
        (BratsError("no usable case"), FAILED, "prepare.py: no usable case\n"),
        (StorageError("x: cannot write"), FAILED, "prepare.py: x: cannot write\n"),
        (
            KeyboardInterrupt(),
            FAILED,
            "prepare.py: stopped; the same command keeps what is finished and does the rest\n",
        ),
    ],
)
def test_every_outcome_has_its_exit_code_and_one_line(
    error: BaseException | None,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, error) == code
    assert capfd.readouterr() == ("", line)


def test_the_traceback_comes_only_with_debug_and_the_line_still_last(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, StorageError("x: cannot write"), "--debug") == FAILED
    shown = capfd.readouterr().err
    assert shown.startswith("Traceback (most recent call last)")
    assert shown.endswith("prepare.py: x: cannot write\n")


def test_an_error_of_the_program_itself_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        run(monkeypatch, ZeroDivisionError())


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ModuleNotFoundError("No module named 'isal'", name="isal"), f"isal is missing; {cli.REMEDY}"),
        (
            ImportError("libcudart.so.13: cannot open\nshared object file", name="torch._C"),
            "torch is installed, but cannot be imported (libcudart.so.13: cannot open shared object file); "
            f"{cli.REMEDY}",
        ),
        (ImportError("no name"), f"a dependency is installed, but cannot be imported (no name); {cli.REMEDY}"),
    ],
)
def test_dependency_that_cannot_be_imported_is_one_line(
    error: ImportError, line: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, error) == FAILED
    assert capfd.readouterr() == ("", f"prepare.py: {line}\n")


def test_name_missing_in_this_project_is_a_bug_and_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImportError, match="cannot import name"):
        run(monkeypatch, ImportError("cannot import name 'x' from 'brats.labels'", name="brats.labels"))


def test_libraries_keep_their_files_out_of_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(monkeypatch, None) == DONE
    assert os.environ["MPLCONFIGDIR"] == "/kept"
    monkeypatch.delenv("MPLCONFIGDIR")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert run(monkeypatch, None) == DONE
    assert os.environ["MPLCONFIGDIR"] == str(tmp_path / f"brats-{os.getuid()}" / "matplotlib")


def test_every_dependency_of_the_project_is_looked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    modules = {"pyyaml": "yaml"}
    names = {re.split(r"[^\w-]", dependency)[0] for dependency in project["dependencies"]}
    assert set(DEPENDENCIES) == {modules.get(name, name.replace("-", "_")) for name in names}


@pytest.mark.parametrize(
    ("blocked", "line"), [(["nibabel"], "nibabel is missing"), (["isal", "torch"], "isal, torch are missing")]
)
def test_missing_dependencies_are_named_in_one_line_before_anything_is_done(
    blocked: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in blocked else find(name))
    assert run(monkeypatch, AssertionError()) == FAILED
    assert capfd.readouterr() == ("", f"prepare.py: {line}; {cli.REMEDY}\n")


# Output that nobody reads


def unread(*command: str, stderr: bool = False) -> tuple[int, str]:
    """Exit status and standard error of a Python program whose output, with `stderr` all of it, has no reader."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, *command],
            stdout=writer,
            stderr=writer if stderr else subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize("stderr", [False, True])
@pytest.mark.parametrize("job", JOB_NAMES)
def test_help_that_nobody_reads_ends_quietly(job: str, stderr: bool) -> None:
    assert unread(str(JOBS / job), "--help", stderr=stderr) == (NOBODY_READS, "")


def test_complaint_that_nobody_reads_ends_quietly() -> None:
    assert unread(str(JOBS / "train.py"), "--bogus", stderr=True) == (NOBODY_READS, "")


PRINTING = """
import signal, threading
from brats.cli import run_job
from brats.config import ReportConfig
from brats.console import say

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background

def main(config):
    {body}

run_job(main, ReportConfig)
"""


@pytest.mark.parametrize("body", ["print('scores')", "say('report', 'done')"])
def test_result_that_nobody_reads_ends_quietly(body: str) -> None:
    assert unread("-c", PRINTING.format(body=body), "--run", "r") == (NOBODY_READS, "")


def test_job_ends_when_another_thread_finds_that_nobody_reads() -> None:
    body = "threading.Thread(target=say, args=('train', 'epoch 1')).start(); threading.Event().wait(60)"
    status, said = unread("-c", PRINTING.format(body=body), "--run", "r")
    assert (status, said) == (
        NOBODY_READS,
        "-c: stopped; the same command keeps what is finished and does the rest\n",
    )


def test_broken_pipe_of_something_else_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BrokenPipeError):
        run(monkeypatch, BrokenPipeError())


def test_help_exits_with_0_and_runs_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def main(_: TrainConfig) -> NoReturn:
        raise AssertionError

    monkeypatch.setattr(sys, "argv", ["jobs/train.py", "--help"])
    with pytest.raises(SystemExit) as stop:
        run_job(main, TrainConfig)
    assert stop.value.code == DONE
    shown, complaint = capfd.readouterr()
    assert "Train a U-Net on BraTS cases" in shown
    assert "--no-predict" in shown
    assert complaint == ""


# The jobs as they are


@pytest.mark.parametrize("job", JOB_NAMES)
def test_every_job_has_help(job: str) -> None:
    done = subprocess.run([sys.executable, JOBS / job, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: {job} ")
    assert done.stderr == ""


@pytest.mark.parametrize("job", JOB_NAMES)
def test_a_wrong_option_of_any_job_is_one_line_and_exit_code_2(job: str) -> None:
    done = subprocess.run([sys.executable, JOBS / job, "--bogus"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{job}: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("job", JOB_NAMES)
def test_a_job_without_the_package_says_in_one_line_what_to_do(job: str) -> None:
    without_packages = [sys.executable, "-S", str(JOBS / job), "--help"]
    done = subprocess.run(without_packages, capture_output=True, text=True, check=False, cwd="/", env={})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "brats is missing; run `make install`, then `source .venv/bin/activate`\n"
