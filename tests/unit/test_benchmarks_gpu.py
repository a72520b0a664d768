"""The figures of a GPU, taken on a CPU from tiny slices: every line that can run without one."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import ROOT

sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed

from benchmarks import gpu, gpu_jobs, gpu_step
from benchmarks.generated import Generated, generate
from benchmarks.gpu import Aims, Scale, aims, arithmetic, job_findings, measure_on, train_jobs
from benchmarks.gpu_engine import EngineVariant, StepFigures, engine_variants, measure_steps
from benchmarks.gpu_jobs import (
    TrainJob,
    predict_rate,
    predict_rows,
    settled,
    share_between,
    share_waited,
    stage_costs,
)
from benchmarks.gpu_step import Figures, Pace, Variant, bare_variants, captured, matrix_tflops, step_figures
from benchmarks.harness import LIMIT, BenchmarkError, Spread
from benchmarks.plain import Job, read_history, train_rank, worker_device
from benchmarks.scaling import gflop_per_slice
from benchmarks.watch import Usage
from brats.cli.parser import parse
from brats.config import TrainConfig
from brats.data.cases import find_cases
from tests.support.bundles import save_undecided_bundle
from tests.support.synthetic import write_cases

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
CONFIG = TrainConfig(out="run", encoder="tu-test_resnet", decoder_channels=(8, 8, 8, 8, 8))
PACE = Pace(rounds=3, round_s=0, least_steps=1)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    return generate(tmp_path_factory.mktemp("generated"), 3, (32, 32, 12))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_benchmark_without_a_gpu_says_so_and_ends_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    gpu.main()
    assert capsys.readouterr().out == f"{gpu.NO_GPU}\n"


def test_every_variant_of_a_step_is_measured_and_compared(generated: Generated) -> None:
    found = measure_steps(generated, CONFIG, CPU, (8,), ("fp32",), PACE)
    assert set(found.bare) == set(bare_variants((8,), ("fp32",), CPU))
    assert set(found.engine) == set(engine_variants((8,), ("fp32",)))
    assert found.too_large == []
    assert all(len(figures.slices_per_s.values) == 3 for figures in found.engine.values())
    assert len(found.details()) == len(found.bare) + len(found.engine)
    # Without graphs the eager steps alone have a limit.
    assert {row.peer for row in found.rows()} == {LIMIT + "bare step, tensors on the device"}
    assert len({row.stage for row in found.rows()}) == len(found.rows()) == 1


def test_slices_per_second_count_the_slices_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_step, "timed", lambda _run, _device: 2.0)
    found, _ = step_figures({"a": (4, lambda: lambda: None)}, CPU, Pace(rounds=2, round_s=0, least_steps=3))
    assert found["a"].slices_per_s.values == (6, 6)  # three steps of four slices in two seconds


def test_whole_benchmark_runs_on_a_cpu_but_for_its_jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The jobs themselves are started by a person who has a GPU."""
    stages = {name: Spread((0.1, 0.2)) for name in ("read", "network", "score")}
    monkeypatch.setattr(TrainJob, "run", lambda *_: history())
    monkeypatch.setattr(gpu, "prepared_copies", lambda _n: tmp_path)
    monkeypatch.setattr(gpu, "phantoms", lambda _n: ())
    monkeypatch.setattr(gpu, "stage_costs", lambda *_: stages)
    monkeypatch.setattr(gpu, "predict_rate", lambda *_: Spread((2, 2, 2)))
    scale = Scale(shape=(32, 32, 12), n_generated=2, batch_sizes=(12,), pace=PACE, matrix_side=16)
    outcome = measure_on(CPU, scale, CONFIG, Aims(cases_per_s=10))
    assert len({(row.stage, row.peer) for row in outcome.rows}) == len(outcome.rows)
    found = {row.stage.partition(",")[0] for row in outcome.rows}
    assert found == {
        "train step", "arithmetic of the fastest bare step", "jobs/train.py", "predict on a GPU",
    }  # fmt: skip
    assert {"matrix products", "predict"} <= outcome.details.keys()


def test_stages_of_predicting_are_timed_case_by_case(tmp_path: Path) -> None:
    write_cases(tmp_path / "cases", 2)
    bundle = save_undecided_bundle(tmp_path / "model")
    found = stage_costs(bundle, find_cases(str(tmp_path / "cases")).cases, CPU)
    assert {name: len(spread.values) for name, spread in found.items()} == {"read": 2, "network": 2, "score": 2}
    assert all(value > 0 for spread in found.values() for value in spread.values)


def test_step_that_does_not_fit_is_named_and_the_others_are_measured() -> None:
    def too_large() -> Any:
        raise torch.OutOfMemoryError("no")

    found, missing = step_figures({"a": (1, too_large), "b": (1, lambda: lambda: None)}, CPU, PACE)
    assert (list(found), missing) == (["b"], ["a"])


def test_sides_of_a_batch_size_are_compared_on_a_gpu() -> None:
    bare = {one: figures(100 if one.form == "graph" else 50) for one in bare_variants((16,), ("bf16",), CUDA)}
    engine = {one: figures(90) for one in engine_variants((16,), ("bf16",))}
    rows = StepFigures(bare=bare, engine=engine, too_large=["batch 64"]).rows()
    ratios = {(row.stage, row.peer): row.ratio for row in rows}
    full = "train step, batch 16, bf16, graph, resident, augmentation full"
    assert ratios[full, LIMIT + "bare step, tensors on the device"] == 0.9
    assert ratios["bare step, batch 16, bf16, graph", "batch 16, bf16, eager"] == 2


def test_what_did_not_fit_is_in_the_details() -> None:
    found = StepFigures(bare={}, engine={}, too_large=["a", "b"])
    assert found.details() == {"too large for the memory": "a; b"}


def figures(rate: float) -> Figures:
    return Figures(slices_per_s=Spread((rate, rate, rate)), memory_mb=1)


def test_usual_variant_is_changed_in_one_thing_at_a_time() -> None:
    usual = EngineVariant(batch_size=16, precision="bf16")
    found = engine_variants((16,), ("bf16", "fp16"))
    assert found == [
        usual,
        replace(usual, precision="fp16"),
        replace(usual, augmentation="none"),
        replace(usual, feeding="streamed"),
        replace(usual, form="eager"),
    ]


def test_rate_of_matrix_products_counts_two_operations_per_term(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_step, "timed", lambda run, _device: (run(), 1e-6)[1])
    # 2 x 10**3 operations in a microsecond are 2e9 a second
    assert matrix_tflops(CPU, "fp32", 10, PACE).median == pytest.approx(0.002)


def test_arithmetic_of_the_fastest_step_is_held_against_matrix_products() -> None:
    slow, fast = (Variant(batch_size=n, precision="bf16", form="graph") for n in (16, 64))
    found = StepFigures(bare={slow: figures(10), fast: figures(20)}, engine={})
    row = arithmetic(found, Spread((100.0,)), (192, 160))
    # A slice takes 3 x its forward pass, which is 3 GFLOP or so for the default network
    assert row.ours == pytest.approx(20 * 3 * gflop_per_slice((192, 160)) / 1000)
    assert row.ratio == row.ours / 100


def history(*, train_s: float = 8, wait_s: float = 0.04, elapsed_s: float = 10) -> list[dict[str, Any]]:
    row = {
        "slices_per_s": 100.0, "train_s": train_s, "data_wait_s": wait_s, "elapsed_s": elapsed_s,
        "peak_memory_mb": 7.0,
    }  # fmt: skip
    return [{**row, "slices_per_s": 1.0}, row, row, row]


def test_first_epoch_of_a_run_does_not_count() -> None:
    assert settled(history(), "slices_per_s").values == (100, 100, 100)


def test_shares_of_waiting_and_between_epochs() -> None:
    assert share_waited(history()).median == 0.005
    assert share_between(history()) == pytest.approx(0.2)


def test_job_is_held_against_the_bare_step_and_the_aims() -> None:
    jobs = {job.batch_size: job for job in train_jobs(Scale(), CUDA) if job.feeding == "resident"}
    bare = {Variant(batch_size=n, precision="bf16", form="graph"): figures(110) for n in (16, 64)}
    found = StepFigures(bare=bare, engine={})
    aim = Aims(of_bare=0.85, slices_per_s=3000)
    full = replace(jobs[16], augmentation="full")
    rows, details = job_findings(full, history(), found, aim, "bf16")
    assert [(row.ratio > 1, row.target, row.met) for row in rows] == [
        (False, 0.85, True), (True, 1, True), (False, 1, False),
    ]  # fmt: skip
    assert details == {
        f"jobs/train.py, {full}": "100 (100 to 100, n 3) slices/s, 0.5% of it waiting for slices; 20.0% of the "
        "time between epochs; 7 MB"
    }
    rows, _ = job_findings(jobs[64], history(), found, aim, "bf16")
    assert [(row.peer, row.met) for row in rows if row.stage == f"jobs/train.py, {jobs[64]}"] == [
        (LIMIT + "the bare step", None), (LIMIT + "the aim", False),
    ]  # fmt: skip


def test_job_without_a_bare_step_is_still_reported() -> None:
    job = train_jobs(Scale(), CUDA)[0]
    rows, _ = job_findings(job, history(), StepFigures(bare={}, engine={}), Aims(), "bf16")
    assert [row.unit for row in rows] == ["of the time", "of the time"]


@pytest.mark.parametrize(
    ("name", "n_cores", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", 16, Aims(of_bare=0.85, slices_per_s=3000, cases_per_s=10)),
        ("NVIDIA H100 80GB HBM3", 4, Aims(of_bare=0.85, slices_per_s=3000)),
        ("Tesla T4", 16, Aims()),
    ],
)
def test_aims_are_stated_for_one_card(name: str, n_cores: int, expected: Aims) -> None:
    assert aims(name, n_cores) == expected


def test_predicting_is_held_against_its_slowest_stage() -> None:
    stages = {"read": Spread((0.1,)), "network": Spread((0.25,)), "score": Spread((0.2,))}
    rows = predict_rows(Spread((2.0, 2.0, 2.0)), stages, 10)
    assert [(row.peer, row.peer_value, row.ratio, row.met) for row in rows] == [
        (LIMIT + "slowest stage, network", 4, 0.5, None), (LIMIT + "the aim", 10, 0.2, False),
    ]  # fmt: skip
    assert len(predict_rows(Spread((2.0,)), stages, None)) == 1


def test_start_of_predicting_does_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def run(command: list[str]) -> Usage:
        asked.append(command)
        n_cases = len(os.listdir(command[command.index("--data") + 1]))
        return Usage(wall_s=12 + 0.5 * n_cases, cpu_s=0, peak_memory_mb=0)

    fake_cases(monkeypatch, tmp_path)
    monkeypatch.setattr(gpu_jobs, "watch", run)
    assert predict_rate(tmp_path, "cpu", 2, 6, 3).values == (2, 2, 2)
    assert len(asked) == 6


def test_predicting_that_takes_no_longer_with_more_cases_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_cases(monkeypatch, tmp_path)
    monkeypatch.setattr(gpu_jobs, "watch", lambda _command: Usage(wall_s=1, cpu_s=0, peak_memory_mb=0))
    with pytest.raises(BenchmarkError, match="idle machine"):
        predict_rate(tmp_path, "cpu", 2, 6, 1)


def fake_cases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Folders with as many entries as cases are asked for."""

    class Copies:
        def __init__(self, _cases: Any, n_cases: int) -> None:
            self._folder = tmp_path / f"cases-{n_cases}"
            self._n_cases = n_cases

        def __enter__(self) -> str:
            for number in range(self._n_cases):
                (self._folder / str(number)).mkdir(parents=True, exist_ok=True)
            return str(self._folder)

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(gpu_jobs, "copies", Copies)
    monkeypatch.setattr(gpu_jobs, "phantoms", lambda _n: ())


def test_train_job_names_its_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(gpu_jobs, "run_job", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(gpu_jobs, "read_history", lambda run: [{"run": run}])
    job = TrainJob(preset="demo", batch_size=4, feeding="streamed", augmentation="none", epochs=3, device="cpu")
    assert job.run(tmp_path, tmp_path / "run") == [{"run": str(tmp_path / "run")}]
    (arguments,) = asked
    assert arguments[0] == "train"
    config = parse(TrainConfig, list(arguments[1:]))
    assert (config.batch_size, config.feeding, config.augmentation) == (4, "streamed", "none")
    assert (config.epochs, config.device, config.preset) == (3, "cpu", "demo")


def test_plain_loop_trains_to_the_last_epoch_and_gives_the_figures_of_all_but_the_first(
    generated: Generated, tmp_path: Path
) -> None:
    config = replace(CONFIG, out=str(tmp_path), epochs=2, batch_size=12)
    job = Job(
        config=config, data=generated.training_set(config), val_paths=tuple(generated.val_paths), device="cpu"
    )
    train_rank(0, job, 1, 1, "")
    history = read_history(str(tmp_path))
    assert [row["epoch"] for row in history] == [1, 2]
    (rate,) = settled(history, "slices_per_s").values
    assert rate > 0
    assert 0 <= share_waited(history).median <= 1
    assert 0 <= share_between(history) < 1


def test_devices_have_the_number_of_their_rank() -> None:
    assert worker_device("cpu", 1) == CPU
    assert worker_device("cuda", 1) == torch.device("cuda", 1)
    assert worker_device("cuda", 0).index == 0


def test_capture_runs_the_step_beforehand_and_returns_the_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class Stream:
        def wait_stream(self, _other: "Stream") -> None: ...

    class Graph:
        def replay(self) -> None:
            events.append("replay")

    class Context:
        def __init__(self, *_: object) -> None: ...

        def __enter__(self) -> None:
            events.append("begin")

        def __exit__(self, *_: object) -> None:
            events.append("end")

    monkeypatch.setattr("torch.cuda.Stream", Stream)
    monkeypatch.setattr("torch.cuda.current_stream", Stream)
    monkeypatch.setattr("torch.cuda.stream", Context)
    monkeypatch.setattr("torch.cuda.graph", Context)
    monkeypatch.setattr("torch.cuda.CUDAGraph", Graph)
    captured(lambda: events.append("step"))()
    assert events == ["begin", *["step"] * 3, "end", "begin", "step", "end", "replay"]
