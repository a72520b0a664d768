"""Free memory: what a GPU, or this machine and the control groups that this process runs in, have left."""

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
    return max(0, min([_available(root), *_left_in_groups(root)]))


def _available(root: Path) -> int:
    """MemAvailable of /proc/meminfo, which is in KiB."""
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each control group of this process, and each one around it, leaves, if it has a limit."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        names = _V1 if controllers else _V2
        # In a container the path may be that of the host, of which only the mount itself is here.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            folder = root.joinpath(names.mount, *parts[:depth])
            limit = _read(folder / names.limit).strip()
            if limit.isdecimal():  # not "max", and not absent
                yield int(limit) - int(_read(folder / names.used)) + _cached(folder, names)


def _cached(folder: Path, names: _Limits) -> int:
    """Bytes of files that a control group holds and can drop."""
    for line in _read(folder / "memory.stat").splitlines():
        name, value = line.split()
        if name == names.cached:
            return int(value)
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
