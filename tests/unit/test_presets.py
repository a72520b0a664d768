"""Presets: values that training accepts, the choice of one, and paths from the environment."""

import dataclasses
import typing

import pytest

from brats import config
from brats.config import TrainConfig
from brats.presets import PRESETS, choose_preset, train_defaults


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRATS_DATA", raising=False)
    monkeypatch.delenv("BRATS_STORAGE", raising=False)


def test_every_preset_but_auto_has_values() -> None:
    assert set(typing.get_args(config.Preset)) == {"auto", *PRESETS}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_values_of_a_preset_are_fields_that_training_accepts(preset: str) -> None:
    changed = dataclasses.replace(TrainConfig(out="run"), **PRESETS[preset])
    assert {name: getattr(changed, name) for name in PRESETS[preset]} == PRESETS[preset]


def test_the_fields_of_a_training_have_the_values_of_the_preset_named_in_them() -> None:
    plain = TrainConfig(out="run")
    assert plain == dataclasses.replace(plain, **PRESETS[plain.preset])


def test_the_presets_named_after_modalities_train_on_them() -> None:
    assert PRESETS["t1"]["modalities"] == ("t1",)
    assert PRESETS["t1-t2-flair"]["modalities"] == ("t1", "t2", "flair")
    assert TrainConfig(out="run").modalities == ("flair", "t1", "t1ce", "t2")


def test_auto_is_the_demo_without_data_and_brats_with(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_preset({}) == choose_preset({"preset": "auto"}) == "demo"
    assert choose_preset({"data": "cases"}) == "brats"
    monkeypatch.setenv("BRATS_DATA", "s3://bucket/cases")
    assert choose_preset({}) == "brats"
    assert choose_preset({"preset": "t1"}) == "t1"


def test_paths_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRATS_DATA", "s3://bucket/cases")
    monkeypatch.setenv("BRATS_STORAGE", "s3://bucket/runs")
    assert train_defaults("brats", {}) == {
        "data": "s3://bucket/cases",
        "out": "s3://bucket/runs/brats",
        "preset": "brats",
    }


def test_empty_variables_count_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRATS_DATA", "")
    monkeypatch.setenv("BRATS_STORAGE", "")
    assert choose_preset({}) == "demo"
    assert train_defaults("t1", {}) == {"data": None, "out": "runs/t1", "preset": "t1", "modalities": ("t1",)}


@pytest.mark.parametrize("given", [{"steps": 5}, {"minutes": 0.5}])
def test_steps_and_minutes_take_the_place_of_the_epochs_of_a_preset(given: dict[str, float]) -> None:
    settings = train_defaults("demo", given)
    assert settings == {name: value for name, value in train_defaults("demo", {}).items() if name != "epochs"}
    assert TrainConfig(**settings, **given).epochs is None  # type: ignore[arg-type]
