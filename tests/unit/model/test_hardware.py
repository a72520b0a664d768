"""The hardware of a run: recorded start by start, read back and put in words."""

import dataclasses
import json
import types
from pathlib import Path

import pytest
import torch

from brats.errors import StorageError
from brats.model.hardware import (
    WorkerHardware,
    describe_worker,
    hardware_of,
    hardware_path,
    in_words,
    read_hardware,
    record_start,
)

CPU = WorkerHardware(
    machine="node a",
    system="Linux x86_64",
    cpu="Xeon",
    n_cpus=4,
    memory_gib=16,
    gpu=None,
    gpu_memory_gib=None,
    versions={"Python": "3.12.1", "torch": "2.15.0"},
)
T4 = dataclasses.replace(CPU, gpu="Tesla T4", gpu_memory_gib=15, versions={**CPU.versions, "CUDA": "13.2"})
ON_CPU = "4 CPUs (Xeon), 16 GiB of memory, Linux x86_64"
VERSIONS = "Python 3.12.1, torch 2.15.0"


def on(machine: str, worker: WorkerHardware = T4) -> WorkerHardware:
    return dataclasses.replace(worker, machine=machine)


def words_of(run: Path) -> str:
    return in_words(read_hardware(str(run)))


def test_a_worker_on_cpus_is_described_by_what_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: Xeon  Gold\nmodel name\t: Xeon  Gold\n")
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: {16 * 2**20 - 1000} kB\n")
    found = describe_worker("a", torch.device("cpu"), tmp_path)
    assert (found.machine, found.cpu, found.memory_gib, found.gpu) == ("a", "Xeon Gold", 16, None)
    assert found.n_cpus >= 1
    assert found.versions["torch"] == torch.__version__
    assert found.versions.keys() == {"Python", "Ray", "torch"}


def test_a_processor_without_a_name_is_its_architecture(tmp_path: Path) -> None:
    assert (
        describe_worker("a", torch.device("cpu"), tmp_path).cpu
        in describe_worker("a", torch.device("cpu"), tmp_path).system
    )


def test_a_worker_with_a_gpu_is_described_by_the_one_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = {1: types.SimpleNamespace(name="Tesla T4", total_memory=15 * 2**30 - 5)}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: cards[device.index])
    found = describe_worker("a", torch.device("cuda", 1), tmp_path)
    assert (found.gpu, found.gpu_memory_gib) == ("Tesla T4", 15)
    assert "CUDA" in found.versions


def test_a_run_on_one_machine_is_one_phrase(tmp_path: Path) -> None:
    record_start(str(tmp_path), 1, [CPU])
    assert words_of(tmp_path) == f"1 worker on 1 machine, {ON_CPU}; {VERSIONS}"


def test_two_gpus_of_one_machine_and_of_two_are_told_apart(tmp_path: Path) -> None:
    record_start(str(tmp_path / "one"), 1, [on("a"), on("a")])
    record_start(str(tmp_path / "two"), 1, [on("a"), on("b")])
    cuda = f"{VERSIONS}, CUDA 13.2"
    one = f"2 workers on 1 machine, 2 x Tesla T4 of 15 GiB, {ON_CPU}; {cuda}"
    assert words_of(tmp_path / "one") == one
    two = f"2 workers on 2 machines, each Tesla T4 of 15 GiB, {ON_CPU}; {cuda}"
    assert words_of(tmp_path / "two") == two


def test_machines_that_differ_are_each_described(tmp_path: Path) -> None:
    large = dataclasses.replace(CPU, machine="b", n_cpus=64)
    record_start(str(tmp_path), 1, [CPU, large])
    assert words_of(tmp_path) == (
        f"2 workers on 1 machine, {ON_CPU} and 1 machine, 64 CPUs (Xeon), 16 GiB of memory, "
        f"Linux x86_64; {VERSIONS}"
    )


def test_a_resume_on_other_hardware_says_both(tmp_path: Path) -> None:
    record_start(str(tmp_path), 1, [CPU])
    record_start(str(tmp_path), 4, [on("a")])
    assert words_of(tmp_path) == (
        f"from epoch 1: 1 worker on 1 machine, {ON_CPU}; {VERSIONS}; "
        f"from epoch 4: 1 worker on 1 machine, Tesla T4 of 15 GiB, {ON_CPU}; {VERSIONS}, CUDA 13.2"
    )


def test_a_resume_on_the_same_hardware_says_it_once_whoever_comes_first_and_whatever_its_machines_are_called(
    tmp_path: Path,
) -> None:
    record_start(str(tmp_path), 1, [on("a"), on("b", CPU)])
    record_start(str(tmp_path), 4, [on("c", CPU), on("d")])
    (start,) = read_hardware(str(tmp_path))
    assert start.first_epoch == 1
    assert {worker.machine for worker in start.workers} == {"0", "1"}


def test_epochs_that_are_trained_again_are_those_of_the_later_start(tmp_path: Path) -> None:
    record_start(str(tmp_path), 1, [CPU])
    record_start(str(tmp_path), 4, [on("a")])
    record_start(str(tmp_path), 3, [CPU])
    assert [start.first_epoch for start in read_hardware(str(tmp_path))] == [1]


def test_a_run_of_an_earlier_version_says_nothing_and_after_a_resume_so(tmp_path: Path) -> None:
    assert words_of(tmp_path) == ""
    record_start(str(tmp_path), 4, [CPU])
    assert words_of(tmp_path).startswith("from epoch 1: not recorded; from epoch 4: 1 worker on 1 machine")


def test_several_runs_say_each_hardware_once(tmp_path: Path) -> None:
    record_start(str(tmp_path / "a"), 1, [CPU])
    record_start(str(tmp_path / "b"), 1, [on("x", CPU)])
    record_start(str(tmp_path / "c"), 1, [on("x")])
    found = hardware_of(str(tmp_path / name) for name in ("a", "b", "c", "older"))
    assert found == [words_of(tmp_path / "a"), words_of(tmp_path / "c")]


@pytest.mark.parametrize(
    "content",
    [{}, {"starts": 3}, {"starts": [{"first_epoch": 1, "workers": []}]}, {"starts": [{"first_epoch": 1}]}],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, content: object) -> None:
    Path(hardware_path(str(tmp_path))).write_text(json.dumps(content))
    with pytest.raises(StorageError, match=r"hardware\.json: damaged \(.*\); remove it"):
        read_hardware(str(tmp_path))


def test_a_value_of_another_type_is_damage(tmp_path: Path) -> None:
    record_start(str(tmp_path), 1, [CPU])
    path = Path(hardware_path(str(tmp_path)))
    path.write_text(path.read_text().replace('"n_cpus": 4', '"n_cpus": "four"'))
    with pytest.raises(StorageError, match="damaged"):
        read_hardware(str(tmp_path))
