"""What Ray tells of machines and processes that were lost, one calm line each; the rest stays in its log files."""

import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from brats.console import say

NATIVE_LOG_LINE = re.compile(
    rb"\[\d{4}-\d\d-\d\d [\d:,]+ [IWEC] \d+ \d+\] "
)  # [2026-01-31 10:20:30,400 W 17 42] a.cc:5:
LOST_MACHINE = re.compile(r"The node with node id: (?P<id>\w+) and address: (?P<address>\S+) .*marked dead", re.S)
DEAD_WORKER = re.compile(
    r"A worker died or was killed .*Worker IP address: (?P<address>\S+) .*Worker PID: (?P<pid>\d+)", re.S
)
OUT_OF_MEMORY = re.compile(
    r"(?P<n>\d+) Workers? .*killed due to memory pressure .*\(ID: \w+, IP: (?P<address>[^)]+)\)", re.S
)


def one_line(message: str) -> str:
    """The message in our words, or "" where it is none that the user needs."""
    if found := LOST_MACHINE.search(message):
        return f"lost the machine {found['address']}; what it was doing is done again elsewhere"
    if found := OUT_OF_MEMORY.search(message):
        return f"{found['address']} is short of memory: {found['n']} processes ended early and begin again"
    if found := DEAD_WORKER.search(message):
        return f"a process died (pid {found['pid']} on {found['address']}); what it was doing is done again"
    return ""


def show_ours_only() -> None:
    """Say the messages that Ray pushes to a driver in our words instead of its own, which fill a screen each.

    Ray 2.60 prints them whether or not it is told to leave the logs alone, and leaves no other way than this.
    """
    import ray._private.worker

    ray._private.worker.print_to_stdstream = _show


def _show(data: dict[str, Any], ignore_prefix: bool = False) -> None:  # noqa: ARG001  # as Ray calls it
    for message in data["lines"]:
        if line := one_line(message):
            say("ray", line)


def keep_off_console(*names: str) -> None:
    """Let these loggers write to their files only; what goes wrong is said by us, in one line."""
    for name in names:
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.CRITICAL)


@contextmanager
def calm() -> Iterator[None]:
    """Keep the log of Ray's native core off the console: it writes past Python, straight to descriptor 2."""
    console = os.dup(2)
    incoming, outgoing = os.pipe()
    os.dup2(outgoing, 2)
    os.close(outgoing)

    def drain() -> None:
        with os.fdopen(incoming, "rb") as lines:
            for line in lines:
                if not NATIVE_LOG_LINE.match(line):
                    os.write(console, line)

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(console, 2)
        thread.join(timeout=2)  # a process that was started inside may still hold the pipe
