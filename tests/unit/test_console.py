"""What the console shows, and what is kept from it."""

import os
import subprocess
import sys

import pytest

from brats.cluster.relay import relayed
from brats.console import Progress, duration, say


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05 min"), (187.4, "3:07 min"), (8100, "2:15 h")])
def test_durations_are_said_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_progress_off_a_terminal_says_the_end_and_little_else(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("prepare", 50, "cases")
    for _ in range(50):
        progress.advance()
    assert capsys.readouterr().out == "prepare  50/50 cases, 0:00 min\n"


@pytest.mark.ray
@pytest.mark.usefixtures("embedded_ray")
def test_relayed_items_are_shown_in_order_before_it_ends() -> None:
    shown: list[int] = []
    with relayed(shown.append) as queue:
        for number in range(20):
            queue.put(number)
    assert shown == list(range(20))


def test_stage_and_message_stand_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    say("train", "starts")
    assert capsys.readouterr().out == "train    starts\n"


def test_native_log_lines_are_kept_off_the_console_and_nothing_else_is() -> None:
    program = """
import os, sys
from brats.cluster.quiet import calm
with calm():
    os.write(2, b"[2026-11-21 06:06:07,596 E 14580 14580] core_worker.cc:2465: Actor noise\\n")
    print("a line of ours", file=sys.stderr)
    os.write(2, b"[note] and another\\n")
print("the last line", file=sys.stderr)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ
    )
    assert result.stderr == "a line of ours\n[note] and another\nthe last line\n"
