"""The checks of a GPU, run on a CPU with stand-ins for graphs, a full memory and fp16; and that they can fail."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.support import ROOT

sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed

from benchmarks import gpu, gpu_check
from benchmarks.generated import Generated, generate
from benchmarks.gpu_check import (
    CHECKS,
    Finding,
    Site,
    attempt,
    check_all,
    full_memory,
    graph_against_eager,
    resident_against_streamed,
    resumed_run,
    uncapturable_encoder,
)
from benchmarks.gpu_trainer import redo, refuse, resident
from brats.config import TrainConfig
from brats.errors import BratsError
from brats.model.distributed import Worker
from brats.model.feed import Feed
from brats.model.graph import Recorder, Work

Replay = Callable[[Work, Mapping[str, Tensor], Mapping[str, Tensor]], None]
"""From work, the inputs that it was recorded with, and those of a replay."""

CPU = torch.device("cpu")
CONFIG = TrainConfig(
    out="run", encoder="tu-test_resnet", decoder_channels=(8, 8, 8, 8, 8), batch_size=4, warmup_steps=1
)
SHAPE = (32, 32, 24)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    return generate(tmp_path_factory.mktemp("generated"), 3, SHAPE)


@pytest.fixture
def site(generated: Generated) -> Iterator[Site]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Site(generated=generated, config=CONFIG, device=CPU, precision="fp32", n_steps=12)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", CHECKS)
def test_check_is_well_where_the_engine_is(site: Site, name: str) -> None:
    found = CHECKS[name](site)
    assert found.ok, found.figures


def replaying(replay: Replay) -> Recorder:
    """A recorder of recordings that replay like this."""

    @dataclass(frozen=True)
    class Broken:
        work: Work
        recorded: Mapping[str, Tensor]

        def replay(self, tensors: Mapping[str, Tensor]) -> None:
            replay(self.work, self.recorded, tensors)

    return Broken


def stuck(work: Work, recorded: Mapping[str, Tensor], _tensors: Mapping[str, Tensor]) -> None:
    work(recorded)


def twice(work: Work, _recorded: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    work(tensors)
    work(tensors)


def nothing(_work: Work, _recorded: Mapping[str, Tensor], _tensors: Mapping[str, Tensor]) -> None: ...


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("graph against eager", stuck),
        ("graph against eager", nothing),
        ("weights of graph and eager", stuck),
        ("weights of graph and eager", twice),
        ("weights of graph and eager", nothing),
        ("smaller last batches", stuck),
        ("fp16 overflow", nothing),
    ],
)
def test_check_fails_where_a_replay_does_other_work(
    site: Site, monkeypatch: pytest.MonkeyPatch, name: str, fault: Replay
) -> None:
    monkeypatch.setattr("benchmarks.gpu_trainer.redo", replaying(fault))
    assert not CHECKS[name](site).ok


def test_graph_that_is_not_recorded_is_a_failure_with_the_reason(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.gpu_trainer.redo", refuse)
    found = graph_against_eager(site)
    assert not found.ok
    assert "recording is turned off" in found.figures


def test_resume_that_starts_anew_is_a_failure(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brats.model.training.load_checkpoint", lambda _run: None)
    assert not resumed_run(site).ok


def test_streamed_slices_of_another_order_are_a_failure(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(generated: Generated, config: TrainConfig, worker: Worker) -> Feed:
        return resident(generated, dataclasses.replace(config, seed=1), worker)

    monkeypatch.setattr("benchmarks.gpu_check.streamed", other)
    assert not resident_against_streamed(site).ok


def test_memory_that_never_runs_out_is_a_failure(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu_check.memory_for", lambda *_: contextlib.nullcontext())
    assert not full_memory(site).ok


def test_network_that_is_recorded_though_it_decides_is_a_failure(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.gpu_check.refuse", redo)
    assert not uncapturable_encoder(site).ok


@pytest.mark.parametrize("error", [BratsError("too small"), RuntimeError("CUDA error: misaligned\nand more")])
def test_check_that_breaks_off_is_a_failure_with_the_reason_in_one_line(site: Site, error: Exception) -> None:
    def check(_site: Site) -> Finding:
        raise error

    found = attempt(check, site)
    assert not found.ok
    assert found.figures == f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def test_every_check_has_a_line_and_a_failure_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        gpu_check,
        "CHECKS",
        {"one": lambda _site: Finding(ok=False, figures="3 %"), "two": lambda _site: Finding(ok=True, figures="1")},
    )
    assert not check_all(CPU, CONFIG, SHAPE, 12)
    _, one, two = capsys.readouterr().out.splitlines()
    assert (one[:11], one[-3:]) == ("one: FAILED", "3 %")
    assert (two[:7], two[-1:]) == ("two: ok", "1")


def test_checks_without_a_gpu_say_so_and_end_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu", "--check"])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"{gpu.NOTHING_CHECKED}\n"


@pytest.mark.parametrize(("all_ok", "code"), [(True, 0), (False, 1)])
def test_checks_on_a_named_device_end_with_1_where_one_fails(
    monkeypatch: pytest.MonkeyPatch, all_ok: bool, code: int
) -> None:
    devices: list[torch.device] = []

    def check(device: torch.device, *_: object) -> bool:
        devices.append(device)
        return all_ok

    monkeypatch.setattr(gpu_check, "check_all", check)
    monkeypatch.setattr(sys, "argv", ["gpu", "--check", "--device", "cpu"])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert (devices, ended.value.code) == ([CPU], code)
