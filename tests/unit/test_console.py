"""Console: progress, durations and messages; relayed items, and log lines that are kept off it."""

import io
import sys
import time

import pytest

from brats.console import Progress, duration, listed, say, some


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05 min"), (187.4, "3:07 min"), (8100, "2:15 h")])
def test_durations_have_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("names", "text"), [("", ""), ("a", "a"), ("abc", "a, b, c"), ("abcd", "a, b, c and 1 more")]
)
def test_of_many_names_the_first_are_given_and_the_others_counted(names: str, text: str) -> None:
    assert some(names) == text


@pytest.mark.parametrize(("names", "text"), [("a", "a"), ("ab", "a and b"), ("abc", "a, b and c")])
def test_names_are_listed_as_in_a_sentence(names: str, text: str) -> None:
    assert listed(names) == text


def test_progress_off_a_terminal_is_the_last_line_alone_when_it_is_quick(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = Progress("prepare", 50, "cases")
    for _ in range(50):
        progress.advance()
    assert capsys.readouterr().out == "prepare  50/50 cases, 0:00 min\n"


def test_progress_off_a_terminal_is_a_line_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = Progress("prepare", 9, "cases")
    for _ in range(9):
        now += 4
        progress.advance()
    assert capsys.readouterr().out == (
        "prepare  3/9 cases, 0:24 min left\nprepare  6/9 cases, 0:12 min left\nprepare  9/9 cases, 0:36 min\n"
    )


class Terminal(io.StringIO):
    """A terminal that remembers what it was sent."""

    def isatty(self) -> bool:
        return True


def on_screen(sent: str) -> list[str]:
    """The lines that a terminal shows: a carriage return puts what follows over the line, from its start."""
    lines = []
    for line in sent.split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


def test_progress_on_a_terminal_rewrites_one_line_and_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, now = Terminal(), 100.0
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = Progress("prepare", 4, "cases")
    shown = []
    for _ in range(4):
        now += 30
        progress.advance()
        shown.append(on_screen(terminal.getvalue()))
    assert shown == [
        ["prepare  1/4 cases, 1:30 min left"],
        ["prepare  2/4 cases, 1:00 min left"],
        ["prepare  3/4 cases, 0:30 min left"],
        ["prepare  4/4 cases, 2:00 min", ""],
    ]


def test_progress_on_a_terminal_leaves_nothing_of_a_longer_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, now = Terminal(), 0.0
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = Progress("train", 2, "cases that have been read and scored")
    for elapsed_s in (36_000, 1):
        now += elapsed_s
        progress.advance()
    assert on_screen(terminal.getvalue()) == ["train    2/2 cases that have been read and scored, 10:00 h", ""]


def test_progress_on_a_terminal_is_not_shown_more_often_than_it_can_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal, now = Terminal(), 0.0
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = Progress("prepare", 1000, "cases")
    for _ in range(999):
        now += 0.001
        progress.advance()
    assert terminal.getvalue().count("\r") == 4  # one every 0.2 s


def test_stage_and_message_stand_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    say("train", "starts")
    assert capsys.readouterr().out == "train    starts\n"
