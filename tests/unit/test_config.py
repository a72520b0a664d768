"""Configurations: what is refused, what a preset sets, and where a training run reads and writes."""

import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest

from brats import config as configs
from brats.config import (
    PRESETS,
    EvaluateConfig,
    PredictConfig,
    PrepareConfig,
    ReportConfig,
    TrainConfig,
    resolve_train,
)
from brats.errors import ConfigError

JOBS = (PrepareConfig, TrainConfig, PredictConfig, EvaluateConfig, ReportConfig)


def prepare_config(**values: Any) -> PrepareConfig:
    return PrepareConfig(data="/data", out="/out", **values)


# Values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modalities": ()}, "--modalities: () is not allowed: name at least one"),
        ({"modalities": ("t1", "t1")}, "--modalities: ('t1', 't1') is not allowed: name each once"),
        ({"val_fraction": -0.1}, "--val-fraction and --test-fraction: (-0.1, 0.15) is not allowed"),
        ({"test_fraction": float("nan")}, "--val-fraction and --test-fraction: (0.15, nan) is not allowed"),
        ({"val_fraction": float("nan")}, "--val-fraction and --test-fraction: (nan, 0.15) is not allowed"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "some patients must be left to train on"),
        ({"folds": 1}, "--folds: 1 is not allowed: at least 2"),
    ],
)
def test_a_wrong_value_of_prepare_is_named_with_its_option(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare_config(**values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modalities": ()}, "--modalities: () is not allowed: name at least one"),
        ({"modalities": ("t2", "t1", "t2")}, "name each once"),
        ({"epochs": 0}, "--epochs: 0 is not allowed: at least 1"),
        ({"batch_size": 0}, "--batch-size: 0 is not allowed: at least 1"),
        ({"micro_batch_size": 0}, "--micro-batch-size: 0 is not allowed: at least 1"),
        ({"patience": 0}, "--patience: 0 is not allowed: at least 1"),
        ({"workers": -1}, "--workers: -1 is not allowed: not negative"),
        ({"warmup_steps": -1}, "--warmup-steps: -1 is not allowed: not negative"),
        ({"max_failures": -1}, "--max-failures: -1 is not allowed: not negative"),
        ({"tumour_free_ratio": -0.5}, "--tumour-free-ratio: -0.5 is not allowed: between 0 and 100"),
        ({"weight_decay": float("nan")}, "--weight-decay: nan is not allowed: not negative"),
        ({"learning_rate": 0.0}, "--learning-rate: 0.0 is not allowed: above 0"),
        ({"clip_norm": float("nan")}, "--clip-norm: nan is not allowed: above 0"),
        ({"decoder_channels": (16, 8)}, "--decoder-channels: (16, 8) is not allowed: five stages"),
    ],
)
def test_a_wrong_value_of_train_is_named_with_its_option(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "option"), [({"batch_size": 0}, "--batch-size"), ({"workers": -2}, "--workers")]
)
def test_a_wrong_value_of_predict_is_named_with_its_option(values: dict[str, Any], option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        PredictConfig(model="m", data="d", out="o", **values)


def test_no_fraction_at_all_is_allowed() -> None:
    assert prepare_config(val_fraction=0, test_fraction=0).val_fraction == 0


@pytest.mark.parametrize("job", JOBS)
def test_every_job_says_what_it_does_and_can_show_tracebacks(job: type) -> None:
    assert job.__doc__
    assert "(" not in job.__doc__.split("\n")[0]  # not the signature that dataclasses put in its place
    assert "debug" in {field.name for field in dataclasses.fields(job)}


# Presets


def test_every_preset_but_auto_has_values() -> None:
    assert set(typing.get_args(configs.Preset)) == {"auto", *PRESETS}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_values_of_a_preset_are_fields_that_training_accepts(preset: str) -> None:
    config = dataclasses.replace(TrainConfig(), **PRESETS[preset])
    assert {name: getattr(config, name) for name in PRESETS[preset]} == PRESETS[preset]


def test_the_presets_named_after_modalities_train_on_them() -> None:
    assert PRESETS["t1"]["modalities"] == ("t1",)
    assert PRESETS["t1-t2-flair"]["modalities"] == ("t1", "t2", "flair")
    assert TrainConfig().modalities == ("flair", "t1", "t1ce", "t2")


# Paths of a training run


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The working folder, with neither variable set."""
    monkeypatch.delenv("BRATS_DATA", raising=False)
    monkeypatch.delenv("BRATS_STORAGE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_with_nothing_named_the_demo_runs_on_phantoms(no_environment: Path) -> None:
    config = resolve_train(TrainConfig())
    assert (config.preset, config.data, config.out) == ("demo", None, str(no_environment / "runs" / "demo"))


def test_data_on_the_command_line_make_it_a_real_run(no_environment: Path) -> None:
    config = resolve_train(TrainConfig(data="cases"))
    assert config.preset == "brats"
    assert config.data == str(no_environment / "cases")
    assert config.out == str(no_environment / "runs" / "brats")


@pytest.mark.usefixtures("no_environment")
def test_on_a_cluster_the_paths_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRATS_DATA", "s3://bucket/cases/")
    monkeypatch.setenv("BRATS_STORAGE", "s3://bucket/runs/")
    config = resolve_train(TrainConfig())
    assert (config.preset, config.data, config.out) == ("brats", "s3://bucket/cases", "s3://bucket/runs/brats")


def test_an_empty_variable_counts_as_none(monkeypatch: pytest.MonkeyPatch, no_environment: Path) -> None:
    monkeypatch.setenv("BRATS_DATA", "")
    monkeypatch.setenv("BRATS_STORAGE", "")
    config = resolve_train(TrainConfig())
    assert (config.data, config.out) == (None, str(no_environment / "runs" / "demo"))


@pytest.mark.usefixtures("no_environment")
def test_the_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRATS_DATA", "s3://bucket/cases")
    monkeypatch.setenv("BRATS_STORAGE", "s3://bucket/runs")
    config = resolve_train(TrainConfig(data="/mine", out="/here", preset="t1"))
    assert (config.preset, config.data, config.out) == ("t1", "/mine", "/here")


@pytest.mark.usefixtures("no_environment")
def test_resolving_twice_changes_nothing() -> None:
    once = resolve_train(TrainConfig(data="cases", epochs=3))
    assert resolve_train(once) == once
    assert once.epochs == 3
