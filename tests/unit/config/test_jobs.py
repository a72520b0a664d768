"""Configurations of all jobs: values that are refused, and what every job has."""

import dataclasses
import math
import typing
from typing import Any

import pytest

from brats.config import (
    CodingName,
    CompareConfig,
    EvaluateConfig,
    ExportConfig,
    PredictConfig,
    PrepareConfig,
    PresetName,
    ReportConfig,
    RobustnessConfig,
    TrainConfig,
)
from brats.errors import ConfigError
from brats.fields import option_name, value_type

JOBS = (PrepareConfig, TrainConfig, PredictConfig, RobustnessConfig, EvaluateConfig, ReportConfig, CompareConfig)


def prepare_config(**values: Any) -> PrepareConfig:
    return PrepareConfig(**{"data": "/data", "out": "/out", **values})


# Values


PATHS = {"data": "/data", "out": "/out", "model": "/m", "predictions": "/p", "references": "/r", "run": "/run"}


def build(config_class: Any, **values: Any) -> Any:
    """A configuration with the paths that it needs."""
    names = {item.name for item in dataclasses.fields(config_class)}
    return config_class(**{name: path for name, path in PATHS.items() if name in names} | values)


def refusal(config_class: type, values: dict[str, Any]) -> str:
    """What a configuration with these values is refused with."""
    with pytest.raises(ConfigError) as caught:
        build(config_class, **values)
    return str(caught.value)


@pytest.mark.parametrize(
    ("config_class", "values", "message"),
    [
        (PrepareConfig, {"modalities": ()}, "--modalities needs at least one value"),
        (PrepareConfig, {"modalities": ("t1", "t2", "t1")}, "--modalities names t1 twice"),
        (PrepareConfig, {"val_fraction": -0.1}, "--val-fraction must be at least 0, not -0.1"),
        (PrepareConfig, {"test_fraction": math.nan}, "--test-fraction must be at least 0, not nan"),
        (PrepareConfig, {"folds": 1}, "--folds must be at least 2, not 1"),
        (PrepareConfig, {"seed": -1}, "--seed must be at least 0, not -1"),
        (TrainConfig, {"modalities": ()}, "--modalities needs at least one value"),
        (TrainConfig, {"modalities": ("t2", "t1", "t2")}, "--modalities names t2 twice"),
        (TrainConfig, {"epochs": 0}, "--epochs must be at least 1, not 0"),
        (TrainConfig, {"steps": 0}, "--steps must be at least 1, not 0"),
        (TrainConfig, {"minutes": 0.0}, "--minutes must be between 0.01 and 100000, not 0.0"),
        (TrainConfig, {"minutes": math.inf}, "--minutes must be between 0.01 and 100000, not inf"),
        (TrainConfig, {"epochs": 1, "steps": 0}, "--steps must be at least 1, not 0"),
        (TrainConfig, {"epochs": 1, "steps": 1}, "--epochs and --steps exclude each other; give one of them"),
        (TrainConfig, {"steps": 1, "minutes": 1}, "--steps and --minutes exclude each other; give one of them"),
        (TrainConfig, {"batch_size": 0}, "--batch-size must be at least 1, not 0"),
        (TrainConfig, {"micro_batch_size": 0}, "--micro-batch-size must be at least 1, not 0"),
        (TrainConfig, {"patience": 0}, "--patience must be at least 1, not 0"),
        (TrainConfig, {"fold": -1}, "--fold must be at least 0, not -1"),
        (TrainConfig, {"seed": -1}, "--seed must be at least 0, not -1"),
        (TrainConfig, {"workers": -1}, "--workers must be at least 0, not -1"),
        (TrainConfig, {"warmup_steps": -1}, "--warmup-steps must be at least 0, not -1"),
        (TrainConfig, {"max_failures": -1}, "--max-failures must be at least 0, not -1"),
        (TrainConfig, {"tumour_free_ratio": -0.5}, "--tumour-free-ratio must be between 0 and 100, not -0.5"),
        (TrainConfig, {"tumour_free_ratio": 101}, "--tumour-free-ratio must be between 0 and 100, not 101"),
        (TrainConfig, {"et_ratio": 0.95}, "--et-ratio must be between 0 and 0.9, not 0.95"),
        (TrainConfig, {"context": 3}, "--context must be between 0 and 2, not 3"),
        (
            TrainConfig,
            {"extra_channels": ("foreground", "foreground")},
            "--extra-channels names foreground twice",
        ),
        (
            TrainConfig,
            {"extra_channels": ("t1ce-t1",), "modalities": ("flair", "t1")},
            "--extra-channels: t1ce-t1 needs t1ce, which --modalities lacks",
        ),
        (
            TrainConfig,
            {"plane": "coronal", "feeding": "streamed"},
            "--plane: coronal slices are cut from whole cases in memory; leave --feeding streamed out",
        ),
        (TrainConfig, {"weight_decay": math.nan}, "--weight-decay must be at least 0, not nan"),
        (TrainConfig, {"learning_rate": 0.0}, "--learning-rate must be above 0, not 0.0"),
        (TrainConfig, {"clip_norm": math.nan}, "--clip-norm must be above 0, not nan"),
        (TrainConfig, {"decoder_channels": (16, 8)}, "--decoder-channels needs 5 values, not 2"),
        (TrainConfig, {"decoder_channels": (8, 8, 8, 8, 0)}, "--decoder-channels must be at least 1, not 0"),
        (TrainConfig, {"modality_dropout": 1.5}, "--modality-dropout must be between 0 and 1, not 1.5"),
        (
            TrainConfig,
            {"modality_dropout": 0.1, "modalities": ("t1",)},
            "--modality-dropout: needs two modalities or more, of which some can be left out; there is t1 alone",
        ),
        (
            TrainConfig,
            {"init": "/m", "encoder_weights": "imagenet"},
            "--init and --encoder-weights exclude each other: /m has the weights of its encoder too; leave one of "
            "them out",
        ),
        (TrainConfig, {"init": "/out"}, "--init: names the run itself; name another one, or another --out"),
        (TrainConfig, {"dropout": 1.0}, "--dropout must be between 0 and 0.9, not 1.0"),
        (
            TrainConfig,
            {"loss": "cross-entropy"},
            "--loss: cross-entropy does not fit --outputs regions; give bce-dice or dice",
        ),
        (
            TrainConfig,
            {"outputs": "classes"},
            "--loss: bce-dice does not fit --outputs classes; give cross-entropy",
        ),
        (
            TrainConfig,
            {"outputs": "whole-tumour", "loss": "cross-entropy"},
            "--loss: cross-entropy does not fit --outputs whole-tumour; give bce-dice or dice",
        ),
        (TrainConfig, {"out": ""}, "--out must not be empty"),
        (RobustnessConfig, {"degradations": ()}, "--degradations needs at least one value"),
        (RobustnessConfig, {"degradations": ("blur", "blur")}, "--degradations names blur twice"),
        (PredictConfig, {"batch_size": -1}, "--batch-size must be at least 0, not -1"),
        (PredictConfig, {"workers": -2}, "--workers must be at least 0, not -2"),
        (PredictConfig, {"model": ""}, "--model must not be empty"),
        (EvaluateConfig, {"predictions": ""}, "--predictions must not be empty"),
        (CompareConfig, {"presets": ()}, "--presets needs at least one value"),
        (CompareConfig, {"presets": ("brats",)}, "--presets names brats alone; name two presets or more"),
        (CompareConfig, {"presets": ("demo", "brats", "demo")}, "--presets names demo twice"),
        (CompareConfig, {"seeds": 0}, "--seeds must be at least 1, not 0"),
        (CompareConfig, {"steps": 1, "minutes": 1}, "--steps and --minutes exclude each other; give one of them"),
        (ReportConfig, {"run": ""}, "--run must not be empty"),
        (ReportConfig, {"out": ""}, "--out must not be empty"),
    ],
)
def test_a_wrong_value_is_named_with_its_option_and_what_is_allowed(
    config_class: type, values: dict[str, Any], message: str
) -> None:
    assert refusal(config_class, values) == message


@pytest.mark.parametrize(
    ("config_class", "values", "message"),
    [
        (PredictConfig, {"split": "tset"}, "--split must be one of all, train, val, test, not 'tset'"),
        (PredictConfig, {"device": "gpu"}, "--device must be one of auto, cpu, cuda, not 'gpu'"),
        (PredictConfig, {"precision": "fp64"}, "--precision must be one of auto, fp32, bf16, fp16, not 'fp64'"),
        (PredictConfig, {"flips": "no"}, "flips must be True or False, not 'no'"),
        (PrepareConfig, {"data": None}, "--data must be a text, not None"),
        (
            PrepareConfig,
            {"coding": "brats23"},
            f"--coding must be one of {', '.join(typing.get_args(CodingName))}, not 'brats23'",
        ),
        (
            PrepareConfig,
            {"modalities": ("flair", "T1")},
            "each value of --modalities must be one of flair, t1, t1ce, t2, not 'T1'",
        ),
        (PrepareConfig, {"modalities": "flair"}, "--modalities must be a tuple or a list, not 'flair'"),
        (PrepareConfig, {"modalities": ["t1", "t1"]}, "--modalities names t1 twice"),
        (PrepareConfig, {"folds": True}, "--folds must be a whole number, not True"),
        (TrainConfig, {"loss": "focal"}, "--loss must be one of bce-dice, dice, cross-entropy, not 'focal'"),
        (TrainConfig, {"outputs": "x"}, "--outputs must be one of regions, classes, whole-tumour, not 'x'"),
        (TrainConfig, {"plane": "oblique"}, "--plane must be one of axial, coronal, sagittal, not 'oblique'"),
        (
            TrainConfig,
            {"preset": "xyz"},
            f"--preset must be one of auto, {', '.join(typing.get_args(PresetName))}, not 'xyz'",
        ),
        (TrainConfig, {"augmentation": "some"}, "--augmentation must be one of none, flips, full, not 'some'"),
        (TrainConfig, {"epochs": 2.5}, "--epochs must be a whole number, not 2.5"),
        (TrainConfig, {"epochs": "2"}, "--epochs must be a whole number, not '2'"),
        (TrainConfig, {"minutes": "2"}, "--minutes must be a number, not '2'"),
        (
            TrainConfig,
            {"decoder_channels": (16, 16, 16, 16, 2.5)},
            "each value of --decoder-channels must be a whole number, not 2.5",
        ),
        (TrainConfig, {"loggers": ("comet",)}, "each value of --loggers must be one of mlflow, wandb, not 'comet'"),
    ],
)
def test_a_value_of_another_type_is_refused_in_the_words_of_the_command_line(
    config_class: type, values: dict[str, Any], message: str
) -> None:
    assert refusal(config_class, values) == message


def test_a_list_is_taken_for_the_tuple_of_its_values() -> None:
    assert prepare_config(modalities=["t1", "t2"]) == prepare_config(modalities=("t1", "t2"))


@pytest.mark.parametrize("job", [*JOBS, ExportConfig])
def test_defaults_are_of_the_types_of_their_fields(job: type) -> None:
    for item in dataclasses.fields(job):
        if item.default is not dataclasses.MISSING:
            value_type(item.type).check(item.name, item.default)


@pytest.mark.parametrize(
    ("config_class", "option"),
    [
        (job, option_name(item.name))
        for job in JOBS
        for item in dataclasses.fields(job)
        if item.metadata.get("path")
    ],
)
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("s3:/bucket/x", "s3:/bucket/x: write s3://bucket/x"),
        (" ", "must not be empty"),
        ("gs://b", "gs://b: neither a local path nor an s3:// URL; use one of them"),
    ],
)
def test_a_mistyped_place_is_named_with_its_option(config_class: type, option: str, place: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(config_class, **{option.removeprefix("--"): place})
    assert str(caught.value) in (f"{option}: {said}", f"{option} {said}")


@pytest.mark.parametrize("job", [job for job in JOBS if job is not ReportConfig])
def test_no_job_waits_a_negative_time(job: type) -> None:
    with pytest.raises(ConfigError) as caught:
        build(job, wait_minutes=-1)
    assert str(caught.value) == "--wait-minutes must be at least 0, not -1"


@pytest.mark.parametrize("job", JOBS)
def test_every_number_has_a_limit(job: type) -> None:
    for item in dataclasses.fields(job):
        kinds = {item.type, *typing.get_args(item.type)}
        if kinds & {int, float}:
            limits = item.metadata["limits"]
            assert limits.at_least is not None or limits.above is not None, item.name


def test_limits_themselves_are_allowed() -> None:
    config = build(TrainConfig, epochs=1, fold=0, workers=0, tumour_free_ratio=100, wait_minutes=0)
    assert (config.epochs, config.fold, config.tumour_free_ratio) == (1, 0, 100)


def test_fractions_that_leave_no_patient_to_train_on_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        prepare_config(val_fraction=0.5, test_fraction=0.5)
    assert str(caught.value) == (
        "--val-fraction and --test-fraction must leave patients to train on: their sum must be below 1, not 1"
    )


def test_no_fraction_at_all_is_allowed() -> None:
    assert prepare_config(val_fraction=0, test_fraction=0).val_fraction == 0


@pytest.mark.parametrize("job", JOBS)
def test_every_job_says_what_it_does_and_can_show_tracebacks(job: type) -> None:
    assert job.__doc__
    assert "(" not in job.__doc__.split("\n")[0]  # not the signature that dataclasses put in its place
    assert "debug" in {field.name for field in dataclasses.fields(job)}
