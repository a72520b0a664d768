"""The owner of a folder: its file, and what this machine knows of its process."""

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from brats.cluster.owner import Owner, is_running, start_ticks, this_machine


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def owner_of(pid: int, **values: object) -> Owner:
    here = Owner.here("train")
    return dataclasses.replace(here, pid=pid, started=start_ticks(pid) or 0, **values)  # type: ignore[arg-type]


def test_an_owner_comes_back_from_its_file_which_differs_each_time() -> None:
    owner = Owner.here("train")
    assert Owner.from_bytes(owner.to_bytes()) == owner
    assert owner.to_bytes() != owner.to_bytes()


def test_every_claim_has_a_token_of_its_own() -> None:
    assert Owner.here("train").token != Owner.here("train").token


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"job": "train"}', b"\xff"])
def test_a_damaged_file_is_of_an_unknown_job_that_may_live(content: bytes) -> None:
    owner = Owner.from_bytes(content)
    assert owner.job == "an unknown job"
    assert not owner.is_here
    assert not owner.is_dead


def test_this_process_lives() -> None:
    owner = Owner.here("train")
    assert owner.is_here
    assert not owner.is_dead
    assert str(owner).startswith(f"train (pid {os.getpid()} on ")


def test_a_killed_process_is_dead_even_as_a_zombie(process: subprocess.Popen[bytes]) -> None:
    owner = owner_of(process.pid)
    dead = [owner.is_dead]
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert os.path.exists(f"/proc/{process.pid}")
    dead.append(owner.is_dead)
    process.wait()
    assert [*dead, owner.is_dead] == [False, True, True]


def test_a_stopped_process_lives(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert not owner_of(process.pid).is_dead


def test_a_later_process_with_the_same_id_is_another() -> None:
    owner = Owner.here("train")
    assert dataclasses.replace(owner, started=owner.started - 1).is_dead


def test_a_hidden_process_of_another_user_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("brats.cluster.owner.os.kill", refuse)
    assert is_running(os.getpid(), start_ticks(os.getpid()) or 0)
    assert is_running(2**22 + 1, 7)  # it has no entry below /proc


def test_a_process_of_another_machine_may_live() -> None:
    owner = dataclasses.replace(Owner.here("train"), machine="another boot", pid=2**22 + 1)
    assert not owner.is_here
    assert not owner.is_dead


def test_a_machine_that_cannot_be_told_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert this_machine() == this_machine() != ""

    def refuse(_: str) -> str:
        raise OSError

    monkeypatch.setattr("brats.cluster.owner.os.readlink", refuse)
    assert this_machine() == ""
    assert not Owner.here("train").is_here
