"""Seconds per case: taken in turns, without the first case, and kept until a model changes."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from brats.cluster.placement import Placement
from brats.config import CompareConfig
from brats.pipeline import timing
from brats.pipeline.timing import Timing, time_in_turns, timing_of
from tests.support.bundles import save_undecided_bundle
from tests.support.prepared import tiny_case, write_prepared

ON_CPU = Placement(workers=1, use_gpu=False, cpus=1.0, threads=1)


def test_every_model_takes_every_case_in_turns_and_the_first_pass_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    del one_thread
    models = {name: str(save_undecided_bundle(tmp_path / name)) for name in ("a", "b")}
    paths = write_prepared(str(tmp_path), [tiny_case(name) for name in ("first", "second", "third")])
    # Each pass of a model in the order they are made: once more over the first case, then over the three.
    taken = {"a": [99.0, 1.0, 5.0, 3.0], "b": [99.0, 2.0, 2.0, 8.0]}
    passes = [taken[name][turn] for turn in range(4) for name in models]
    ends = list(itertools.accumulate(passes))
    clock = iter([moment for end, seconds in zip(ends, passes, strict=True) for moment in (end - seconds, end)])
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert time_in_turns(ON_CPU, "fp32", models, paths) == ("1 threads of a CPU", {"a": 3.0, "b": 2.0})


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
