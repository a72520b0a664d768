"""What Ray tells of machines and processes that were lost, one calm line each; the rest stays in its log files."""

import re
from typing import Any

from brats.pipeline.console import say

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
