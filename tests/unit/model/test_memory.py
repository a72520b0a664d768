"""Memory of a host, free and in all, from the files that the kernel shows of it and of its control groups."""

from pathlib import Path

import pytest
import torch

from brats.model.memory import free_bytes, is_out_of_memory, total_bytes

CPU = torch.device("cpu")
GIB = 2**30


def host(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """A root with 8 GiB available, this line in /proc/self/cgroup, and these files below /sys/fs/cgroup."""
    meminfo = f"MemTotal: 16777216 kB\nMemFree: 1024 kB\nMemAvailable: {8 * GIB // 1024} kB\n"
    every = {"proc/meminfo": meminfo, "proc/self/cgroup": cgroup}
    every |= {f"sys/fs/cgroup/{name}": content for name, content in files.items()}
    for name, content in every.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def v2(folder: str, limit: str, used: int, cached: int = 0) -> dict[str, str]:
    return {
        f"{folder}memory.max": f"{limit}\n",
        f"{folder}memory.current": f"{used}\n",
        f"{folder}memory.stat": f"anon 5\nfile 9\ninactive_file {cached}\nactive_file 7\n",
    }


def test_without_limits_it_is_what_the_host_has_available(tmp_path: Path) -> None:
    assert free_bytes(CPU, host(tmp_path, "0::/\n", {})) == 8 * GIB


def test_a_group_without_a_limit_limits_nothing(tmp_path: Path) -> None:
    assert free_bytes(CPU, host(tmp_path, "0::/\n", v2("", "max", 3 * GIB))) == 8 * GIB


def test_a_limit_counts_less_what_is_used_of_it_but_for_pages_of_files(tmp_path: Path) -> None:
    root = host(tmp_path, "0::/\n", v2("", str(6 * GIB), 4 * GIB, cached=GIB))
    assert free_bytes(CPU, root) == 3 * GIB


def test_a_limit_above_what_the_host_has_changes_nothing(tmp_path: Path) -> None:
    assert free_bytes(CPU, host(tmp_path, "0::/\n", v2("", str(64 * GIB), GIB))) == 8 * GIB


@pytest.mark.parametrize(("inner", "outer", "left"), [(2, 5, 1), (5, 2, 1)])
def test_the_least_of_nested_groups_counts(tmp_path: Path, inner: int, outer: int, left: int) -> None:
    files = v2("jobs/mine/", str(inner * GIB), GIB) | v2("jobs/", str(outer * GIB), GIB)
    assert free_bytes(CPU, host(tmp_path, "0::/jobs/mine\n", files)) == left * GIB


def test_the_path_of_the_host_leads_to_the_limit_that_the_container_sees(tmp_path: Path) -> None:
    root = host(tmp_path, "0::/../../docker/1f2e\n", v2("", str(2 * GIB), GIB))
    assert free_bytes(CPU, root) == GIB


def test_groups_of_the_first_version_are_read_by_their_names(tmp_path: Path) -> None:
    files = {
        "memory/docker/memory.limit_in_bytes": f"{4 * GIB}\n",
        "memory/docker/memory.usage_in_bytes": f"{3 * GIB}\n",
        "memory/docker/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB}\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/memory.usage_in_bytes": f"{7 * GIB}\n",
    }
    cgroup = "9:cpu,cpuacct:/docker\n4:memory:/docker\n0::/docker\n"
    assert free_bytes(CPU, host(tmp_path, cgroup, files)) == 2 * GIB


def test_more_used_than_allowed_leaves_nothing(tmp_path: Path) -> None:
    assert free_bytes(CPU, host(tmp_path, "0::/\n", v2("", str(GIB), 2 * GIB))) == 0


def test_a_system_that_does_not_say_has_nothing_free(tmp_path: Path) -> None:
    assert free_bytes(CPU, tmp_path) == 0


def test_in_all_it_is_what_the_host_has_or_the_least_limit_of_its_groups(tmp_path: Path) -> None:
    assert total_bytes(host(tmp_path / "none", "0::/\n", v2("", "max", 3 * GIB))) == 16 * GIB
    files = v2("jobs/mine/", str(6 * GIB), 5 * GIB) | v2("jobs/", str(8 * GIB), GIB)
    assert total_bytes(host(tmp_path / "limited", "0::/jobs/mine\n", files)) == 6 * GIB
    assert total_bytes(host(tmp_path / "above", "0::/\n", v2("", str(64 * GIB), GIB))) == 16 * GIB
    assert total_bytes(tmp_path / "silent") == 0


def test_of_a_gpu_it_is_what_the_driver_calls_free(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def mem_get_info(device: torch.device) -> tuple[int, int]:
        asked.append(device)
        return 5 * GIB, 15 * GIB

    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    assert free_bytes(torch.device("cuda", 1)) == 5 * GIB
    assert asked == [torch.device("cuda", 1)]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_used_up_memory_is_known_from_what_libraries_say(error: RuntimeError, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
