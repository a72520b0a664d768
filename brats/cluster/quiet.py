"""Ray's console output: one line for each lost machine or process; everything else stays in its log files."""

import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from brats.cluster.ray_internals import replace_printer
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
    """A message of Ray as one line for the user, or "" for one that the user does not need."""
    if found := LOST_MACHINE.search(message):
        return f"lost the machine {found['address']}; what it was doing is done again elsewhere"
    if found := OUT_OF_MEMORY.search(message):
        return f"{found['address']} is short of memory: {found['n']} processes ended early and begin again"
    if found := DEAD_WORKER.search(message):
        return f"a process died (pid {found['pid']} on {found['address']}); what it was doing is done again"
    return ""


def shorten_messages() -> None:
    """Print the messages that Ray pushes to the driver as one line of our own each, or not at all."""
    replace_printer(_show)


def _show(message: str) -> None:
    if line := one_line(message):
        say("ray", line)


def keep_off_console(*names: str) -> None:
    """Let these loggers write to their files only; errors are reported by this program, in one line."""
    for name in names:
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.CRITICAL)


@contextmanager
def native_log_hidden() -> Iterator[None]:
    """Keep the log of Ray's native core off the console: it writes past Python, straight to descriptor 2."""
    console = os.dup(2)
    incoming, outgoing = os.pipe()
    os.dup2(outgoing, 2)
    os.close(outgoing)

    def drain() -> None:
        with os.fdopen(incoming, "rb") as lines:
            for line in lines:
                if not NATIVE_LOG_LINE.match(line):
                    with suppress(BrokenPipeError):  # nobody reads any more; the lines are taken in all the same
                        os.write(console, line)

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(console, 2)
        thread.join(timeout=2)  # a process that was started inside may still hold the pipe
        if not thread.is_alive():
            os.close(console)
