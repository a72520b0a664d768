"""Ownership of an output folder: one job at a time, and what becomes of the dead, the silent and the robbed."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from brats import storage
from brats.cluster.owned import Ownership, Pace, check_free, claim, owned, owner_path
from brats.cluster.owner import Owner
from brats.errors import BratsError, ConfigError
from brats.storage import exclusive
from tests.support import ROOT
from tests.support.s3 import FaultyProxy

SLOW = Pace(beat_s=600, silence_s=60, poll_s=0.01)
"""Of a job whose beats do not matter, and of one that looks often."""
RACERS, ROUNDS = 4, 12


@pytest.fixture(params=["disk", "s3"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    root = str(tmp_path) if request.param == "disk" else request.getfixturevalue("s3_bucket")
    return storage.join(root, "run")


def elsewhere(job: str = "train") -> Owner:
    """An owner on a machine of which this one knows nothing."""
    return dataclasses.replace(Owner.here(job), host="node-7", machine="another boot")


def found(out: str) -> Owner | None:
    seen = exclusive.look(owner_path(out))
    return Owner.from_bytes(seen.content) if seen else None


def refuse(out: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said), owned(out, "prepare", SLOW):
        raise AssertionError("both are at work")


# One job at a time


def test_a_folder_is_owned_during_the_block_and_nothing_is_left_over(out: str) -> None:
    with owned(out, "train", SLOW):
        owner = found(out)
        assert owner
        assert (owner.job, owner.pid) == ("train", os.getpid())
    assert not storage.exists(out) or storage.list_files(out) == []


def test_a_second_job_is_refused_by_name_and_changes_nothing(out: str) -> None:
    with owned(out, "train", SLOW):
        before = found(out)
        refuse(
            out,
            rf"^{out}: another job is at work there: train \(pid {os.getpid()} on \S+, since 20.* UTC\); wait for "
            "its end, stop it, or choose another --out$",
        )
        assert found(out) == before
        with pytest.raises(ConfigError, match="another job is at work there"):
            check_free(out)
    check_free(out)
    with owned(out, "prepare", SLOW):
        pass


@pytest.mark.parametrize("error", [BratsError("failed"), KeyboardInterrupt(), SystemExit(1)])
def test_a_job_that_ends_early_leaves_the_folder_to_others(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)), owned(str(tmp_path), "train", SLOW):
        raise error
    assert found(str(tmp_path)) is None


def test_folders_inside_are_owned_on_their_own(out: str) -> None:
    with owned(out, "train", SLOW), owned(storage.join(out, "prepared"), "prepare", SLOW):
        refuse(storage.join(out, "prepared"), "at work there: prepare")
        refuse(out, "at work there: train")


def racer(out: str, *lines: str, **streams: Any) -> subprocess.Popen[str]:
    """A process that claims a folder once it is told to, and says whether it has it."""
    code = "\n".join(
        (
            "import os, signal, sys",
            "from brats.cluster.owned import Pace, owned",
            "from brats.errors import ConfigError",
            f"print('ready', flush=True); input(); out = {out!r}",
            *lines,
        )
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, **streams
    )


ONCE = (
    "for line in sys.stdin:",
    "    try:",
    "        with owned(out + line.strip(), 'train', Pace()):",
    "            print('mine', flush=True)",
    "            sys.stdin.readline()",
    "    except ConfigError as error:",
    "        print(error, flush=True)",
    "        sys.stdin.readline()",
    "    print('released', flush=True)",
)


@pytest.fixture
def racers(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    started = [racer(str(tmp_path / "run"), *ONCE) for _ in range(RACERS)]
    try:
        for process in started:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            tell(process)
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def tell(process: subprocess.Popen[str], line: str = "") -> None:
    assert process.stdin
    process.stdin.write(line + "\n")
    process.stdin.flush()


def answers(racers: list[subprocess.Popen[str]]) -> list[str]:
    said = []
    for process in racers:
        assert process.stdout
        said.append(process.stdout.readline().strip())
    return said


def test_of_several_processes_one_gets_the_folder(racers: list[subprocess.Popen[str]]) -> None:
    for round_ in range(ROUNDS):
        for process in racers:
            tell(process, str(round_))
        said = answers(racers)
        assert said.count("mine") == 1, said
        assert sum("another job is at work there" in line for line in said) == RACERS - 1, said
        for process in racers:
            tell(process)
        assert answers(racers) == ["released"] * RACERS


def test_of_several_processes_one_takes_over_from_a_dead_one(
    racers: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    dead = Owner.here("train")
    for round_ in range(ROUNDS):
        killed = dataclasses.replace(dead, started=dead.started - 1)
        exclusive.create(owner_path(str(tmp_path / f"run{round_}")), killed.to_bytes())
        for process in racers:
            tell(process, str(round_))
        said = answers(racers)
        winner = [number for number, line in enumerate(said) if "taken over from" in line]
        assert len(winner) == 1, said
        assert sum("another job is at work there" in line for line in said) == RACERS - 1, said
        assert answers([racers[winner[0]]]) == ["mine"]
        for process in racers:
            tell(process)
        assert answers(racers) == ["released"] * RACERS


# Dead owners


def test_a_killed_job_of_this_machine_is_taken_over_at_once(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ("with owned(out, 'train', Pace()): os.kill(os.getpid(), signal.SIGKILL)",)
    process = racer(out, *lines)
    process.communicate("\n")
    assert process.returncode == -signal.SIGKILL
    assert found(out)
    check_free(out)
    with owned(out, "prepare", SLOW):
        owner = found(out)
        assert owner
        assert owner.job == "prepare"
    said = capsys.readouterr().out
    assert said.startswith(f"prepare  {out}: taken over from train (pid {process.pid} on ")
    assert said.endswith("), which has died\n")
    assert found(out) is None


def test_a_silent_owner_is_waited_for_and_then_taken_over(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    exclusive.create(owner_path(out), elsewhere().to_bytes())
    pace = Pace(beat_s=0.5, silence_s=1.5, poll_s=0.01)
    with owned(out, "prepare", pace):
        owner = found(out)
        assert owner
        assert owner.job == "prepare"
    waiting, taken = capsys.readouterr().out.splitlines()
    assert waiting.startswith(f"prepare  {out}: owned by train (pid {os.getpid()} on node-7, since ")
    assert waiting.endswith(" s for it")
    assert "taken over from train" in taken
    assert "which was silent for" in taken


def test_an_owner_that_has_long_been_silent_is_taken_over_without_waiting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exclusive.create(owner_path(str(tmp_path)), elsewhere().to_bytes())
    os.utime(owner_path(str(tmp_path)), (1_000_000_000, 1_000_000_000))
    with owned(str(tmp_path), "prepare", SLOW):
        pass
    assert "which was silent for" in capsys.readouterr().out


def test_an_age_is_judged_by_the_clock_of_the_disk_and_not_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exclusive.create(owner_path(str(tmp_path)), elsewhere().to_bytes())
    monkeypatch.setattr("time.time", lambda: 4e9)
    seen = exclusive.look(owner_path(str(tmp_path)))
    assert seen
    assert seen.age_s < 60


def act_while_waiting(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do this where the job would wait."""
    monkeypatch.setattr("brats.cluster.owned.time.sleep", lambda _: act())


def test_an_owner_elsewhere_that_writes_again_is_alive(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = elsewhere()
    exclusive.create(owner_path(out), other.to_bytes())

    def beat() -> None:
        seen = exclusive.look(owner_path(out))
        assert seen
        assert exclusive.replace(owner_path(out), other.to_bytes(), seen.version)

    act_while_waiting(monkeypatch, beat)
    refuse(out, r"at work there: train \(pid \d+ on node-7, since")
    assert found(out) == other


def test_an_owner_that_was_silent_while_the_store_was_away_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, path = elsewhere(), owner_path(str(tmp_path))
    exclusive.create(path, other.to_bytes())
    os.utime(path, (time.time() - 100, time.time() - 100))
    act_while_waiting(monkeypatch, lambda: os.utime(path))
    with pytest.raises(ConfigError, match="another job is at work there"):
        claim(str(tmp_path), Owner.here("prepare"), Pace(silence_s=60))


def test_an_owner_elsewhere_that_ends_leaves_the_folder(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exclusive.create(owner_path(out), elsewhere().to_bytes())
    act_while_waiting(monkeypatch, lambda: storage.remove(owner_path(out)))
    with owned(out, "prepare", SLOW):
        pass


def test_one_that_was_faster_to_take_over_is_the_owner(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exclusive.create(owner_path(out), elsewhere().to_bytes())
    faster = Owner.here("evaluate")

    def take() -> None:
        seen = exclusive.look(owner_path(out))
        assert seen
        exclusive.replace(owner_path(out), faster.to_bytes(), seen.version)

    act_while_waiting(monkeypatch, take)
    refuse(out, "at work there: evaluate")


def test_a_damaged_file_counts_as_an_owner_that_may_live(tmp_path: Path) -> None:
    storage.write_bytes(owner_path(str(tmp_path)), b"")
    with owned(str(tmp_path), "prepare", Pace(beat_s=600, silence_s=0, ended_s=0, poll_s=0.01)):
        pass


# Owners that lose their folder


def rob(out: str) -> None:
    """Take a folder over; again where its owner has just written its file."""
    thief = elsewhere("evaluate").to_bytes()
    while (seen := exclusive.look(owner_path(out))) and not exclusive.replace(owner_path(out), thief, seen.version):
        pass


LOST = (
    r"^{out}: no longer owned by this job \(taken over by evaluate \(pid \d+ on node-7, since .*\)\); it stops and "
    "writes nothing more$"
)


def robbed(out: str, then: Callable[[Ownership], object], pace: Pace = SLOW) -> None:
    """A job whose folder is taken over while it works."""
    with owned(out, "train", pace) as ownership:
        ownership.check()
        rob(out)
        then(ownership)
        raise AssertionError("it went on")


def test_a_robbed_job_stops_where_it_waits(out: str) -> None:
    pace = Pace(beat_s=0.05, silence_s=60, poll_s=0.01)
    with pytest.raises(BratsError, match=LOST.format(out=out)) as caught:
        robbed(out, lambda _: threading.Event().wait(60), pace)
    assert not isinstance(caught.value, ConfigError)
    assert str(found(out)).startswith("evaluate")


def test_a_robbed_job_stops_before_its_tables_at_the_latest(out: str) -> None:
    with pytest.raises(BratsError, match=LOST.format(out=out)):
        robbed(out, lambda ownership: ownership.check())
    assert str(found(out)).startswith("evaluate")


def test_the_loss_is_reported_in_place_of_what_follows_from_it(out: str) -> None:
    def fail(ownership: Ownership) -> None:
        with pytest.raises(BratsError):
            ownership.check()
        raise ValueError("a table that another has written")

    with pytest.raises(BratsError, match="no longer owned"):
        robbed(out, fail)


def test_a_job_whose_folder_is_removed_stops(tmp_path: Path) -> None:
    out = str(tmp_path / "run")

    def lose(ownership: Ownership) -> None:
        storage.remove(out)
        ownership.check()

    with pytest.raises(BratsError, match=r"no longer owned by this job \(.*/\.owner\.json is gone\)"):
        robbed(out, lose)


def test_a_job_outside_the_main_thread_stops_at_its_next_check(tmp_path: Path) -> None:
    said = []

    def work() -> None:
        try:
            with owned(str(tmp_path), "train", Pace(beat_s=0.01)) as ownership:
                rob(str(tmp_path))
                while True:
                    ownership.check()
        except BratsError as error:
            said.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(said) == 1
    assert "no longer owned" in said[0]


def test_a_job_with_ctrl_c_ignored_stops_too(tmp_path: Path) -> None:
    """As one that a shell has started in the background, which is stopped by SIGTERM."""
    process = racer(
        str(tmp_path / "run"),
        "import threading",
        "from brats.errors import BratsError",
        "def stop(*_): raise KeyboardInterrupt",
        "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, stop)",
        "try:",
        "    with owned(out, 'train', Pace(beat_s=0.05)):",
        "        os.unlink(out + '/.owner.json'); threading.Event().wait(60)",
        "except BratsError as error: print(error)",
    )
    said, _ = process.communicate("\n")
    assert "no longer owned by this job" in said


def test_an_owner_writes_its_file_again_and_again(out: str) -> None:
    beaten = threading.Event()
    with owned(out, "train", Pace(beat_s=0.05)):
        first = exclusive.look(owner_path(out))
        while not beaten.wait(0.05):
            latest = exclusive.look(owner_path(out))
            assert latest
            assert first
            if latest.version != first.version:
                beaten.set()


# Stores


def test_a_store_that_is_away_for_a_while_loses_nothing(s3_bucket: str, s3_proxy: FaultyProxy) -> None:
    with owned(s3_bucket, "train", Pace(beat_s=0.05)) as ownership:
        s3_proxy.be_away(0.5)
        ownership.check()
    assert found(s3_bucket) is None


def test_a_lost_answer_is_no_other_owner(s3_bucket: str, s3_proxy: FaultyProxy) -> None:
    s3_proxy.drop_answer_to_next(1, key=".owner")
    with owned(s3_bucket, "train", SLOW) as ownership:
        s3_proxy.drop_answer_to_next(1, key=".owner")
        ownership.check()
    assert found(s3_bucket) is None


def test_a_lost_answer_while_taking_over_is_no_other_owner(s3_bucket: str, s3_proxy: FaultyProxy) -> None:
    dead = Owner.here("train")
    exclusive.create(owner_path(s3_bucket), dataclasses.replace(dead, started=dead.started - 1).to_bytes())
    owner = Owner.here("prepare")
    s3_proxy.drop_answer_to_next(2, key=".owner")  # to the one that makes it, which is refused, and to the next
    claim(s3_bucket, owner)
    assert found(s3_bucket) == owner


def test_a_store_without_conditional_writes_is_said_and_used_unguarded(
    s3_bucket: str, s3_proxy: FaultyProxy, capsys: pytest.CaptureFixture[str]
) -> None:
    s3_proxy.ignores_conditions = True
    with owned(s3_bucket, "train", SLOW) as ownership, owned(s3_bucket, "train", SLOW):
        ownership.check()
    said = (
        f"train    WARNING: {s3_bucket}: the store has no conditional writes; do not start a second job with this "
        "--out"
    )
    assert capsys.readouterr().out.splitlines() == [said, said]
    assert found(s3_bucket) is None
