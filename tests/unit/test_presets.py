"""Presets: values that training accepts, the choice of one, and paths from the environment."""

import dataclasses
import typing

import pytest

from brats import config
from brats.config import BOUNDS, TrainConfig
from brats.presets import PRESETS, choose_preset, train_defaults


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRATS_DATA", raising=False)
    monkeypatch.delenv("BRATS_STORAGE", raising=False)


def test_every_preset_but_auto_has_values() -> None:
    assert set(typing.get_args(config.Preset)) == {"auto", *PRESETS}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_described_in_a_sentence_and_cannot_be_changed(preset: str) -> None:
    assert PRESETS[preset].text.endswith(".")
    assert not PRESETS[preset].published.endswith(".")
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRESETS[preset].text = ""  # type: ignore[misc]


@pytest.mark.parametrize("preset", PRESETS)
def test_the_values_of_a_preset_are_fields_that_training_accepts(preset: str) -> None:
    settings = PRESETS[preset].settings
    changed = TrainConfig(out="run", **settings)
    assert {name: getattr(changed, name) for name in settings} == settings


def test_the_fields_of_a_training_have_the_values_of_the_preset_named_in_them() -> None:
    plain = TrainConfig(out="run")
    assert plain == dataclasses.replace(plain, **PRESETS[plain.preset].settings)


def config_of(preset: str) -> TrainConfig:
    return TrainConfig(out="run", **PRESETS[preset].settings)


def test_the_presets_of_published_experiments_have_their_modalities_and_outputs() -> None:
    found = {name: (config_of(name).modalities, config_of(name).outputs) for name in PRESETS}
    every = ("flair", "t1", "t1ce", "t2")
    assert found == {
        "brats": (every, "regions"),
        "best": (every, "regions"),
        "demo": (every, "regions"),
        "t1-slices": (("t1",), "whole-tumour"),
        "four-modality": (every, "regions"),
        "augmented-dropout": (("flair", "t1ce", "t2"), "classes"),
        "augmented-dropout-baseline": (("flair", "t1ce", "t2"), "classes"),
        "classic-unet": (every, "regions"),
        "three-modality": (("t1", "t2", "flair"), "regions"),
    }


def test_the_baseline_lacks_the_dropout_and_the_augmentation_and_nothing_else() -> None:
    full, baseline = config_of("augmented-dropout"), config_of("augmented-dropout-baseline")
    assert (full.optimiser, full.loss, full.weight_decay) == ("adam", "cross-entropy", 0)
    assert (full.dropout, full.augmentation) == (0.2, "full")
    assert dataclasses.replace(full, dropout=0.0, augmentation="none") == baseline


def test_the_classic_network_has_the_channels_of_its_paper_and_no_pretrained_weights() -> None:
    config = config_of("classic-unet")
    assert (config.encoder, config.encoder_weights) == ("classic-unet", None)
    assert config.decoder_channels == (1024, 512, 256, 128, 64)


def test_auto_is_the_demo_without_data_and_brats_with(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_preset({}) == choose_preset({"preset": "auto"}) == "demo"
    assert choose_preset({"data": "cases"}) == "brats"
    monkeypatch.setenv("BRATS_DATA", "s3://bucket/cases")
    assert choose_preset({}) == "brats"
    assert choose_preset({"preset": "t1-slices"}) == "t1-slices"


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
    assert train_defaults("three-modality", {}) == {
        "data": None,
        "out": "runs/three-modality",
        "preset": "three-modality",
        "modalities": ("t1", "t2", "flair"),
    }


@pytest.mark.parametrize("given", [{"epochs": 3}, {"steps": 5}, {"minutes": 0.5}])
def test_any_bound_takes_the_place_of_that_of_a_preset(given: dict[str, float]) -> None:
    settings = train_defaults("demo", given)
    assert settings == {name: value for name, value in train_defaults("demo", {}).items() if name != "minutes"}
    bounded = TrainConfig(**settings, **given)  # type: ignore[arg-type]
    assert {name: getattr(bounded, name) for name in BOUNDS if getattr(bounded, name)} == given
