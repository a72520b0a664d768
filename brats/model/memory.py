"""Memory: what a GPU, or this machine and the control groups that this process runs in, have, and have left."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path("/")


class _Limits(NamedTuple):
    """Where a version of control groups keeps the memory limits of its groups, and under which names."""

    mount: str
    limit: str
    used: str
    cached: str


_V1 = _Limits(
    "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", cached="total_inactive_file"
)
_V2 = _Limits("sys/fs/cgroup", "memory.max", "memory.current", cached="inactive_file")


# What libraries say, instead of raising torch's own error, when the memory of a GPU is used up.
USED_UP = ("CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED", "out of memory")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error means that the memory of a GPU is used up."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in USED_UP)


def free_bytes(device: torch.device, root: Path = ROOT) -> int:
    """Bytes that can still be taken on a device: of a GPU, those that nobody holds; for a CPU, those of the host.

    On a host, what the least of its memory and of the limits of this process's control groups leaves; pages of
    files that the kernel can drop count as free. 0 where the system does not say.

    root: where /proc and /sys are
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return max(0, min([_in_meminfo(root, "MemAvailable"), *_left_in_groups(root)]))


def total_bytes(root: Path = ROOT) -> int:
    """Bytes of the host or, where that is less, of the smallest limit of this process's control groups.

    0 where the system does not say.
    """
    return min([_in_meminfo(root, "MemTotal"), *(limit for limit, _, _ in _limited_groups(root))])


def _in_meminfo(root: Path, name: str) -> int:
    """An entry of /proc/meminfo, which is in KiB; 0 where there is none."""
    for line in read_text(root / "proc/meminfo").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each control group with a limit leaves."""
    for limit, folder, names in _limited_groups(root):
        yield limit - int(read_text(folder / names.used)) + _cached(folder, names)


def _limited_groups(root: Path) -> Iterator[tuple[int, Path, _Limits]]:
    """The control groups of this process, and each one around them, that have a limit: limit, folder, names."""
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        names = _V1 if controllers else _V2
        # In a container the path may be that of the host, of which only the mount itself is here.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            folder = root.joinpath(names.mount, *parts[:depth])
            limit = read_text(folder / names.limit).strip()
            if limit.isdecimal():  # not "max", and not absent
                yield int(limit), folder, names


def _cached(folder: Path, names: _Limits) -> int:
    """Bytes of files that a control group holds and can drop."""
    for line in read_text(folder / "memory.stat").splitlines():
        name, value = line.split()
        if name == names.cached:
            return int(value)
    return 0


def read_text(path: Path) -> str:
    """A file that the kernel shows; "" where there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""
