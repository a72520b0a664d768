"""What the console shows."""

import pytest

from brats.console import Progress, duration, say


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05 min"), (187.4, "3:07 min"), (8100, "2:15 h")])
def test_durations_are_said_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_progress_off_a_terminal_says_the_end_and_little_else(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("prepare", 50, "cases")
    for _ in range(50):
        progress.advance()
    assert capsys.readouterr().out == "prepare  50/50 cases, 0:00 min\n"


def test_stage_and_message_stand_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    say("train", "starts")
    assert capsys.readouterr().out == "train    starts\n"
