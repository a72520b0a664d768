"""Seconds per case: taken in turns, without the first case, and kept until a model changes."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from brats.cluster.placement import Placement
from brats.config import CompareConfig
from brats.pipeline.several import timing
from brats.pipeline.several.timing import ROUNDS, Timing, time_in_turns, timing_of
from tests.support.bundles import save_undecided_bundle
from tests.support.prepared import tiny_case, write_prepared

ON_CPU = Placement(workers=1, use_gpu=False, cpus=1.0, threads=1)


def test_models_take_every_case_in_turns_and_neither_the_first_pass_nor_a_slow_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    del one_thread
    models = {name: str(save_undecided_bundle(tmp_path / name)) for name in ("a", "b")}
    paths = write_prepared(str(tmp_path), [tiny_case(name) for name in ("first", "second", "third")])
    # Once the first case, then one round over all three, after which the time is over.
    passes = [("a", 99.0), ("b", 99.0), ("a", 1.0), ("b", 2.0), ("a", 5.0), ("b", 2.0), ("a", 3.0), ("b", 50.0)]
    ends = list(itertools.accumulate(seconds for _, seconds in passes))
    moments = [moment for end, (_, seconds) in zip(ends, passes, strict=True) for moment in (end - seconds, end)]
    clock = iter([*moments[:4], ends[1], *moments[4:], *[ends[-1]] * ROUNDS])
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert time_in_turns(ON_CPU, "fp32", models, paths) == ("1 threads of a CPU", {"a": 3.0, "b": 2.0})


def test_quick_models_take_each_case_several_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    del one_thread
    bundle = str(save_undecided_bundle(tmp_path / "a"))
    (path,) = write_prepared(str(tmp_path), [tiny_case("first")])
    seconds = iter([9.0, *[1.0, 2.0, 3.0, 4.0, 5.0]])  # of the first pass and of each round
    now = [0.0]

    def labels(*_: object) -> None:
        now.append(now[-1] + next(seconds))

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[-1]))
    monkeypatch.setattr("brats.model.inference.Segmenter.labels", labels)
    assert time_in_turns(ON_CPU, "fp32", {"a": bundle}, [path])[1] == {"a": 3.0}
    assert next(seconds, None) is None


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The models of each measurement that a stand-in is asked for."""
    asked: list[list[str]] = []

    def measure(*arguments: Any) -> tuple[str, dict[str, float]]:
        models = arguments[2]
        asked.append(list(models))
        return "a machine", {name: float(len(asked)) for name in models}

    monkeypatch.setattr(timing, "place_workers", lambda *_, **__: ON_CPU)
    monkeypatch.setattr(timing, "_on_worker", measure)
    return asked


def models_below(folder: Path, *names: str) -> dict[str, str]:
    for name in names:
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "model.json").write_text(name)
    return {name: str(folder / name) for name in names}


def measured(folder: Path, models: Mapping[str, str]) -> Timing:
    return timing_of(CompareConfig(data=str(folder), out=str(folder / "out")), models, ["case"])


def test_a_timing_is_kept_for_the_models_that_it_has(tmp_path: Path, timed: list[list[str]]) -> None:
    models = models_below(tmp_path, "a", "b")
    first = measured(tmp_path, models)
    assert measured(tmp_path, models) == first
    assert measured(tmp_path, {"b": models["b"]}).seconds == {"b": 1.0}
    assert timed == [["a", "b"]]


def test_a_new_model_has_all_of_them_timed_again(tmp_path: Path, timed: list[list[str]]) -> None:
    models = models_below(tmp_path, "a", "b")
    measured(tmp_path, {"a": models["a"]})
    assert measured(tmp_path, models).seconds == {"a": 2.0, "b": 2.0}
    assert timed == [["a"], ["a", "b"]]


def test_a_model_that_was_trained_on_is_timed_again(tmp_path: Path, timed: list[list[str]]) -> None:
    models = models_below(tmp_path, "a")
    measured(tmp_path, models)
    (tmp_path / "a" / "model.json").write_text("another")
    assert measured(tmp_path, models).seconds == {"a": 2.0}
    assert len(timed) == 2
