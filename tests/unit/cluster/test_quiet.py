"""Messages as Ray 2.60 pushes them as one line each, and its native log kept off the console."""

import os
import subprocess
import sys

import pytest

from brats.cluster.quiet import one_line

LOST = (
    "The node with node id: cfe57f9f117b and address: 192.0.2.2 and node name: 192.0.2.2 has been marked dead "
    "because the detector has missed too many heartbeats from it. This can happen when a \t(1) raylet crashes "
    "unexpectedly (OOM, etc.) \n\t(2) raylet has lagging heartbeats due to slow network or busy workload."
)
DIED = (
    "A worker died or was killed while executing a task by an unexpected system error. To troubleshoot the "
    "problem, check the logs for the dead worker. Lease ID: 09 Worker ID: fe07 Node ID: efb4 Worker IP address: "
    "192.0.2.2 Worker port: 45761 Worker PID: 12289 Worker exit type: SYSTEM_ERROR Worker exit detail: ..."
)
PRESSURE = (
    "2 Workers (tasks / actors) killed due to memory pressure (OOM), 0 Workers crashed due to other reasons at "
    "node (ID: 5d3f, IP: 192.0.2.7) over the last time period. To see more information about the Workers killed "
    "on this node, use `ray logs raylet.out -ip 192.0.2.7`"
)


def test_lost_machine_is_one_line_with_its_address() -> None:
    assert one_line(LOST) == "lost the machine 192.0.2.2; what it was doing is done again elsewhere"


def test_dead_worker_is_one_line_with_its_pid() -> None:
    assert one_line(DIED) == "a process died (pid 12289 on 192.0.2.2); what it was doing is done again"


def test_memory_pressure_is_one_line_with_the_machine() -> None:
    said = one_line(PRESSURE)
    assert said == "192.0.2.7 is short of memory: 2 processes ended early and begin again"


@pytest.mark.parametrize(
    "message",
    ["Task _map_task failed. There are infinite retries remaining, so the task will be retried. Error: ", ""],
)
def test_other_messages_are_left_to_the_log_files(message: str) -> None:
    assert one_line(message) == ""


def test_native_log_lines_are_kept_off_the_console_and_nothing_else_is() -> None:
    program = """
import os, sys
from brats.cluster.quiet import native_log_hidden
with native_log_hidden():
    os.write(2, b"[2026-11-21 06:06:07,596 E 14580 14580] core_worker.cc:2465: Actor noise\\n")
    print("a line of ours", file=sys.stderr)
    os.write(2, b"[note] and another\\n")
print("the last line", file=sys.stderr)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ
    )
    assert result.stderr == "a line of ours\n[note] and another\nthe last line\n"


def test_no_descriptor_stays_open() -> None:
    program = """
import os
from brats.cluster.quiet import native_log_hidden
before = os.listdir("/proc/self/fd")
with native_log_hidden():
    pass
assert os.listdir("/proc/self/fd") == before
"""
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ)
