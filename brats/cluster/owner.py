"""The process that owns an output folder: which it is, and whether it is known to have ended."""

import dataclasses
import json
import os
import socket
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

UNKNOWN = "an unknown job"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A driver, as it describes itself in the folder that it owns.

    token:   of this claim alone
    machine: equal where a process id means the same process: boot and process namespace; "" where not known
    started: of the process, in clock ticks since the boot; tells it from a later process with its id
    since:   when it claimed the folder, by its own clock
    """

    job: str
    token: str
    host: str
    machine: str
    pid: int
    started: int
    since: str

    @classmethod
    def here(cls, job: str) -> Self:
        """This process, with a new token."""
        return cls(
            job=job,
            token=uuid.uuid4().hex,
            host=socket.gethostname(),
            machine=this_machine(),
            pid=os.getpid(),
            started=start_ticks(os.getpid()) or 0,
            since=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The owner that a file names; one of an unknown job where the file is damaged."""
        try:
            document = json.loads(content)
            values = {item.name: item.type(document[item.name]) for item in dataclasses.fields(cls)}  # type: ignore[operator]
        except (KeyError, TypeError, ValueError):
            values = {"job": UNKNOWN, "token": "", "host": "?", "machine": "", "pid": 0, "started": 0, "since": "?"}
        return cls(**values)

    def to_bytes(self) -> bytes:
        """The content of its file, which differs each time."""
        return (json.dumps({**dataclasses.asdict(self), "beat": uuid.uuid4().hex}, indent=2) + "\n").encode()

    @property
    def is_here(self) -> bool:
        """Whether its process id means a process of this machine."""
        return bool(self.machine) and self.machine == this_machine()

    @property
    def is_dead(self) -> bool:
        """Whether it ran on this machine and has ended."""
        return self.is_here and not is_running(self.pid, self.started)

    def __str__(self) -> str:
        return f"{self.job} (pid {self.pid} on {self.host}, since {self.since})"


def this_machine() -> str:
    """The boot and the process namespace of this process: containers count their processes on their own."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def is_running(pid: int, started: int) -> bool:
    """Whether the process of this machine that began at these ticks runs; a zombie has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's, which may be hidden below /proc
        return start_ticks(pid) in (None, started)
    return start_ticks(pid) == started


def start_ticks(pid: int) -> int | None:
    """When a process began, in clock ticks since the boot; None where it has ended or is hidden."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state, *fields = file.read().rpartition(")")[2].split()  # after the name, which may hold anything
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])
