"""The benchmarks: ratios, medians, targets, refusals, and the cost model against hand-computed values."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import ROOT

sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed

from benchmarks import __main__ as every
from benchmarks.command import read_outcome, run_benchmark
from benchmarks.cost import Costs, estimate
from benchmarks.harness import (
    LIMIT,
    BenchmarkError,
    Outcome,
    Row,
    Spread,
    check_close,
    check_growth,
    compare,
    interleaved,
    require,
)
from benchmarks.preparing import fit_line
from benchmarks.results import hardware, hardware_slug, table, versions, write_results


def row(**changes: Any) -> Row:
    values: dict[str, Any] = {
        "stage": "read", "ours": 100.0, "peer": "MONAI", "peer_value": 400.0, "unit": "ms", "ratio": 4.0,
        "target": 3.0, "met": True, "more_is_better": False, "ours_values": (99.0, 100.0, 102.0),
    }  # fmt: skip
    return Row(**{**values, **changes})


def test_half_the_time_is_a_ratio_of_two() -> None:
    assert compare("read", 100, "peer", 200, "ms").ratio == 2


def test_half_the_rate_is_a_ratio_of_one_half() -> None:
    assert compare("train", 100, "peer", 200, "slices/s", more_is_better=True).ratio == 0.5


@pytest.mark.parametrize(("peer_ms", "met"), [(299, False), (300, True), (301, True)])
def test_target_is_met_from_its_value_on(peer_ms: float, met: bool) -> None:
    assert compare("read", 100, "peer", peer_ms, "ms", target=3).met is met


def test_row_without_target_is_neither_met_nor_missed() -> None:
    assert compare("read", 100, "peer", 200, "ms").met is None


def test_rows_compare_medians() -> None:
    found = compare("read", Spread((1, 2, 90)), "peer", Spread((8, 6, 7)), "ms")
    assert (found.ours, found.peer_value, found.ratio) == (2, 7, 3.5)


def test_rows_keep_our_measurements_and_which_way_is_better() -> None:
    found = compare("train", Spread((1, 2, 90)), "peer", 7, "slices/s", more_is_better=True)
    assert (found.ours_values, found.more_is_better) == ((1, 2, 90), True)
    assert compare("read", 2, "peer", 7, "ms").ours_values == ()


def test_measured_zero_gives_a_finite_ratio() -> None:
    assert np.isfinite(compare("waiting for data", 0.0, LIMIT + "the issue's", 0.03, "of the time").ratio)


def test_spread_has_median_and_quartiles() -> None:
    spread = Spread((5, 1, 4, 2, 3))
    assert spread.median == 3
    assert spread.quartiles == (2, 4)


def test_scaled_spread_has_scaled_median() -> None:
    assert Spread((1, 2, 3)).scaled(1000).median == 2000


def test_sides_run_in_turns_after_one_warm_up_and_none_always_first() -> None:
    order: list[str] = []
    found = interleaved({name: lambda name=name: order.append(name) for name in "ab"}, 3)  # type: ignore[misc]
    assert order == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert [len(spread.values) for spread in found.values()] == [3, 3]


def test_missing_peer_is_named_with_the_extra_that_brings_it() -> None:
    with pytest.raises(BenchmarkError, match=r"no_such_peer not installed.*pip install \.\[bench\]"):
        require("numpy", "no_such_peer")


def test_missing_peer_stops_the_command_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "medpy" else name)
    monkeypatch.setattr(every, "run", lambda *_: pytest.fail("a benchmark was run"))
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    with pytest.raises(SystemExit, match=r"medpy not installed.*pip install \.\[bench\]"):
        every.main()
    assert capsys.readouterr().out == ""


def test_run_asks_only_for_the_peers_of_its_benchmarks(
    one_benchmark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(every, "require", lambda *names: asked.extend(names))
    monkeypatch.setattr(every, "NAMES", ("gpu", "reading"))
    monkeypatch.setattr(every, "run", lambda *_: Outcome(rows=[row()]))
    for name, peers in (("gpu", []), ("reading", ["monai", "torchio"])):
        monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", name])
        every.main()
        assert asked == peers
    assert len(list(one_benchmark.iterdir())) == 2


def test_outputs_within_the_tolerance_agree() -> None:
    check_close("Dice", [0.8, 0.9], "MONAI", [0.801, 0.9], 0.002)


@pytest.mark.parametrize("theirs", [[0.8, 0.903], [0.8, float("nan")], [0.8]])
def test_outputs_that_differ_are_an_error(theirs: list[float]) -> None:
    with pytest.raises(BenchmarkError, match=r"Dice.*MONAI.*nothing is written"):
        check_close("Dice", [0.8, 0.9], "MONAI", theirs, 0.002)


@pytest.fixture
def one_benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """`python -m benchmarks` with results below tmp_path and no benchmark run yet."""
    monkeypatch.setattr(every, "require", lambda *_: None)
    monkeypatch.setattr(every, "NAMES", ("reading", "scoring"))
    monkeypatch.setattr(
        every, "write_results", lambda *given, **options: write_results(*given, **options, folder=tmp_path)
    )
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    return tmp_path


def test_nothing_is_written_when_the_sides_of_one_benchmark_disagree(
    one_benchmark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, _quick: bool, _resume: bool) -> Outcome:
        if name == "scoring":
            raise BenchmarkError("scoring failed; no results are written")
        return Outcome(rows=[row()])

    monkeypatch.setattr(every, "run", run)
    with pytest.raises(SystemExit, match="scoring failed"):
        every.main()
    assert list(one_benchmark.iterdir()) == []


def test_whole_run_writes_a_dated_file_and_latest(one_benchmark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(every, "run", lambda name, *_: Outcome(rows=[row(stage=name)], details={"n": "1"}))
    every.main()
    dated, latest = sorted(one_benchmark.iterdir())
    assert latest.name == "latest.json"
    assert [found["stage"] for found in json.loads(latest.read_text())["rows"]] == ["reading", "scoring"]
    assert json.loads(dated.read_text())["details"] == {"reading": {"n": "1"}, "scoring": {"n": "1"}}


def test_run_of_some_benchmarks_leaves_latest_alone(one_benchmark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(every, "run", lambda *_: Outcome(rows=[row()]))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "scoring"])
    every.main()
    (path,) = one_benchmark.iterdir()
    assert path.name.endswith("-scoring.json")


def test_quick_run_writes_nothing(one_benchmark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(every, "run", lambda *_: Outcome(rows=[row()]))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick"])
    every.main()
    assert list(one_benchmark.iterdir()) == []


def test_resumed_run_measures_only_what_is_missing(one_benchmark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        assert env["MALLOC_ARENA_MAX"]
        name = command[command.index("-m") + 1]
        measured.append(name)
        if name == "benchmarks.scoring" and measured.count(name) == 1:
            return subprocess.CompletedProcess(command, 1)
        outcome = Outcome(rows=[row(stage=name)])
        Path(command[command.index("--json") + 1]).write_text(json.dumps(asdict(outcome)))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(every, "KEPT", one_benchmark / "kept")
    monkeypatch.setattr(subprocess, "run", measure)
    with pytest.raises(SystemExit, match="--resume keeps those before it"):
        every.main()
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--resume"])
    every.main()
    assert measured == ["benchmarks.reading", "benchmarks.scoring", "benchmarks.scoring"]
    latest = json.loads((one_benchmark / "latest.json").read_text())
    assert [found["stage"] for found in latest["rows"]] == ["benchmarks.reading", "benchmarks.scoring"]


def test_latest_has_the_agreed_shape(tmp_path: Path) -> None:
    write_results([row()], {}, folder=tmp_path)
    content = json.loads((tmp_path / "latest.json").read_text())
    assert list(content) == ["version", "hardware", "date", "versions", "rows"]
    assert list(content["rows"][0]) == [
        "stage", "ours", "peer", "peer_value", "unit", "ratio", "target", "met", "more_is_better", "ours_values",
    ]  # fmt: skip
    assert Row.from_json(content["rows"][0]) == row()


def test_results_name_hardware_and_versions() -> None:
    machine = hardware()
    assert machine["cores"] == len(os.sched_getaffinity(0))
    assert machine["memory_gib"] > 0
    assert {"python", "torch", "ray"} <= versions().keys()


@pytest.mark.parametrize(
    ("machine", "slug"),
    [
        ({"cpu": "Intel(R) Xeon(R) Processor", "cores": 2, "gpu": None}, "intel-xeon-2-cores"),
        ({"cpu": "any", "cores": 16, "gpu": "NVIDIA H200"}, "nvidia-h200"),
    ],
)
def test_file_name_says_the_hardware(machine: dict[str, Any], slug: str) -> None:
    assert hardware_slug(machine) == slug


def test_table_says_the_distance_to_a_limit_and_what_is_not_met() -> None:
    lines = table([row(), row(peer=LIMIT + "isal", ratio=0.4, target=0.5, met=False)]).splitlines()
    assert lines[2].split("|")[-3].split() == ["yes"]
    assert lines[2].split("|")[-2].split() == []
    assert lines[3].split("|")[-3].split() == ["NO"]
    assert lines[3].split("|")[-2].split() == ["40%"]


def test_outcome_comes_back_from_json(tmp_path: Path) -> None:
    path = tmp_path / "outcome.json"
    content = {
        "rows": [{item.name: getattr(row(), item.name) for item in fields(Row)}],
        "details": {},
        "skipped": "",
    }
    path.write_text(json.dumps(content))
    assert read_outcome(path) == Outcome(rows=[row()])


def test_line_through_times_gives_cost_per_case_and_intercept() -> None:
    slope, intercept, deviation = fit_line([10, 20, 40], [7, 12, 22])
    assert (slope, intercept) == pytest.approx((0.5, 2))
    assert deviation == pytest.approx(0, abs=1e-9)


def test_times_that_do_not_grow_with_the_cases_are_refused() -> None:
    check_growth("prepare", 0.4)
    with pytest.raises(BenchmarkError, match=r"prepare: a further case took -0\.11 s"):
        check_growth("prepare", -0.108)


COSTS = Costs(
    prepare_core_s=0.5,
    read_score_core_s=0.2,
    prepared_mb=8,
    train_slices_per_case=90,
    predict_slices=140,
    gpu_gflop=27,
    gpu_tflops=8.1,
    cores_per_gpu=4,
    train_fraction=0.7,
    epochs=30,
    efficiency=1.0,
    storage_mb_per_s=100,
)


def test_gpu_trains_a_third_as_many_slices_as_it_predicts() -> None:
    assert COSTS.train_slices_per_s == pytest.approx(100)  # 8,100 GFLOP/s over 3 x 27
    assert COSTS.predict_slices_per_s == pytest.approx(300)


def test_cost_of_1000_cases_on_2_gpus_as_computed_by_hand() -> None:
    found = estimate(COSTS, 1000, 2)
    assert found.prepare_h == pytest.approx(1000 * 0.5 / 8 / 3600)
    # 63,000 slices at 100/s and 21,000 at 300/s, over 2 GPUs: 350 s an epoch, 30 epochs
    assert found.train_h == pytest.approx(30 * 350 / 3600)
    # 140,000 slices at 300/s over 2 GPUs: 233 s, more than 25 s of the 8 cores and 40 s of the store
    assert found.predict_h == pytest.approx(140_000 / 600 / 3600)
    assert found.gpu_hours == pytest.approx(2 * found.hours)


def test_slow_store_bounds_training() -> None:
    found = estimate(Costs(**{**vars(COSTS), "storage_mb_per_s": 1}), 1000, 2)
    # 84,000 slices of 8 / 140 MB, at 2 MB/s
    assert found.train_h == pytest.approx(30 * 84_000 * 8 / 140 / 2 / 3600)


def test_half_the_efficiency_doubles_the_hours() -> None:
    half = Costs(**{**vars(COSTS), "efficiency": 0.5})
    assert estimate(half, 369, 8).hours == pytest.approx(2 * estimate(COSTS, 369, 8).hours)


def test_command_ends_with_the_reason_when_it_cannot_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(quick: bool) -> Outcome:
        raise BenchmarkError(f"quick is {quick}")

    monkeypatch.setattr(sys, "argv", ["reading", "--quick"])
    with pytest.raises(SystemExit, match=r"quick is True"):
        run_benchmark(measure)
