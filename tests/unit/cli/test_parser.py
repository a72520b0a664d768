"""Command lines: options over presets over defaults, one line for every error, and the help."""

import dataclasses
import io
import math
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from brats.cli.options import read_options
from brats.cli.parser import DONE, parse
from brats.config import (
    CLASSIC_UNET,
    LITE0_ENCODER,
    CompareConfig,
    EvaluateConfig,
    PredictConfig,
    PrepareConfig,
    ReportConfig,
    RobustnessConfig,
    TrainConfig,
)
from brats.errors import ConfigError
from brats.presets import PRESETS


def message_of(*arguments: str, config_class: type = TrainConfig) -> str:
    """The message of the ConfigError that these arguments give, without the hint at its end."""
    with pytest.raises(ConfigError) as caught:
        parse(config_class, list(arguments))
    return str(caught.value).removesuffix("; see job.py --help")


# Options and presets


def test_without_options_training_is_the_demo() -> None:
    config: TrainConfig = parse(TrainConfig, [])
    assert (config.preset, config.encoder, config.minutes) == ("demo", LITE0_ENCODER, 4)


@pytest.mark.parametrize("arguments", [["--data", "/cases"], ["--data=/cases"], ["--preset", "brats"]])
def test_with_data_or_by_name_it_is_the_brats_preset(arguments: list[str]) -> None:
    config = parse(TrainConfig, arguments)
    assert (config.encoder, config.epochs, config.modalities) == (
        LITE0_ENCODER,
        None,
        ("flair", "t1", "t1ce", "t2"),
    )


def test_data_in_the_environment_make_it_the_brats_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRATS_DATA", "s3://bucket/cases")
    assert parse(TrainConfig, []).encoder == LITE0_ENCODER


@pytest.mark.parametrize(
    "arguments", [["--preset", "t1-slices"], ["--preset=t1-slices"], ["--preset", "demo", "--preset", "t1-slices"]]
)
def test_a_preset_sets_the_starting_values(arguments: list[str]) -> None:
    config = parse(TrainConfig, arguments)
    assert (config.preset, config.modalities, config.encoder) == ("t1-slices", ("t1",), LITE0_ENCODER)


@pytest.mark.parametrize(
    "arguments", [["--preset", "demo", "--epochs", "2"], ["--epochs", "2", "--preset", "demo"], ["--epochs=2"]]
)
def test_an_option_overrides_the_preset_wherever_it_stands(arguments: list[str]) -> None:
    config = parse(TrainConfig, arguments)
    assert (config.epochs, config.minutes, config.learning_rate) == (2, None, 1.4e-3)


def test_options_with_several_values_end_at_the_next_option() -> None:
    config = parse(PrepareConfig, ["--modalities", "t2", "t1", "--data", "d", "--out", "o", "--strict"])
    assert (config.modalities, config.strict) == (("t2", "t1"), True)


def test_flags_exist_only_in_the_form_that_changes_something() -> None:
    config = parse(TrainConfig, ["--no-predict", "--debug"])
    assert (config.predict, config.debug) == (False, True)
    assert message_of("--predict") == "unknown option --predict (did you mean --no-predict?)"
    assert message_of("--no-debug") == "unknown option --no-debug (did you mean --debug?)"


# Accepted command lines

PREPARE, REPORT = "--data d --out o ", "--run r "
COMPARE = PREPARE
PREDICT, EVALUATE = "--model m --data d --out o ", "--predictions p --references r --out o "


@pytest.mark.parametrize(
    ("config_class", "line", "values"),
    [
        (PrepareConfig, PREPARE + "--modalities t2 t1", {"modalities": ("t2", "t1")}),
        (PrepareConfig, PREPARE + "--modalities t2 --modalities t1", {"modalities": ("t1",)}),
        (
            PrepareConfig,
            PREPARE + "--val-fraction 0.2 --test-fraction .3",
            {"val_fraction": 0.2, "test_fraction": 0.3},
        ),
        (PrepareConfig, PREPARE + "--folds 3 --seed 7", {"folds": 3, "seed": 7}),
        (
            PrepareConfig,
            PREPARE + "--strict --wait-minutes 2 --debug",
            {"strict": True, "wait_minutes": 2.0, "debug": True},
        ),
        (PrepareConfig, "--modalities t1 --data d --strict --out o", {"modalities": ("t1",), "strict": True}),
        (
            TrainConfig,
            "--preset three-modality",
            {"preset": "three-modality", "modalities": ("t1", "t2", "flair")},
        ),
        (TrainConfig, "--outputs whole-tumour --loss dice", {"outputs": "whole-tumour", "loss": "dice"}),
        (TrainConfig, "--dropout 0.25", {"dropout": 0.25}),
        (TrainConfig, "--optimiser adam --weight-decay 0.5", {"optimiser": "adam", "weight_decay": 0.5}),
        (TrainConfig, "--modalities t1 flair", {"modalities": ("t1", "flair")}),
        (
            TrainConfig,
            "--encoder resnet50 --encoder-weights imagenet",
            {"encoder": "resnet50", "encoder_weights": "imagenet"},
        ),
        (TrainConfig, "--decoder-channels 5 4 3 2 1", {"decoder_channels": (5, 4, 3, 2, 1)}),
        (
            TrainConfig,
            "--epochs 3 --batch-size 4 --micro-batch-size 2",
            {"epochs": 3, "batch_size": 4, "micro_batch_size": 2},
        ),
        (TrainConfig, "--learning-rate 1e-4 --weight-decay 0", {"learning_rate": 1e-4, "weight_decay": 0.0}),
        (TrainConfig, "--warmup-steps 0 --clip-norm inf", {"warmup_steps": 0, "clip_norm": math.inf}),
        (TrainConfig, "--tumour-free-ratio 1 --patience 4", {"tumour_free_ratio": 1.0, "patience": 4}),
        (TrainConfig, "--fold 0 --seed 1_000", {"fold": 0, "seed": 1000}),
        (TrainConfig, "--fold None --encoder-weights None", {"fold": None, "encoder_weights": None}),
        (
            TrainConfig,
            "--workers 2 --device cuda --precision fp16",
            {"workers": 2, "device": "cuda", "precision": "fp16"},
        ),
        (TrainConfig, "--device auto --precision auto", {"device": "auto", "precision": "auto"}),
        (TrainConfig, "--no-predict --nifti --strict", {"predict": False, "nifti": True, "strict": True}),
        (TrainConfig, "--strict --strict --debug", {"strict": True, "debug": True}),
        (TrainConfig, "--max-failures 0 --wait-minutes 0.5", {"max_failures": 0, "wait_minutes": 0.5}),
        (TrainConfig, "--seed 1 --seed 2", {"seed": 2}),
        (TrainConfig, "--epochs=3 --seed=4 --modalities=t1", {"epochs": 3, "seed": 4, "modalities": ("t1",)}),
        (
            TrainConfig,
            "--batch_size 4 --wait_minutes=3 --no_predict",
            {"batch_size": 4, "wait_minutes": 3.0, "predict": False},
        ),
        (PredictConfig, PREDICT + "--split test --nifti", {"split": "test", "nifti": True}),
        (PredictConfig, PREDICT + "--batch-size 3 --workers 1", {"batch_size": 3, "workers": 1}),
        (PredictConfig, PREDICT + "--device cpu --precision bf16", {"device": "cpu", "precision": "bf16"}),
        (
            PredictConfig,
            PREDICT + "--strict --wait-minutes 0 --debug",
            {"strict": True, "wait_minutes": 0.0, "debug": True},
        ),
        (
            EvaluateConfig,
            EVALUATE + "--strict --wait-minutes 1 --debug",
            {"strict": True, "wait_minutes": 1.0, "debug": True},
        ),
        (EvaluateConfig, EVALUATE + "--prediction-coding 1=ED,2=ET", {"prediction_coding": "1=ED,2=ET"}),
        (RobustnessConfig, PREDICT + "--degradations noise missing", {"degradations": ("noise", "missing")}),
        (CompareConfig, COMPARE + "--presets brats demo --seeds 2", {"presets": ("brats", "demo"), "seeds": 2}),
        (CompareConfig, COMPARE + "--minutes 1.5 --workers 1", {"minutes": 1.5, "workers": 1}),
        (ReportConfig, REPORT, {"out": None, "debug": False}),
        (ReportConfig, REPORT + "--debug", {"debug": True}),
    ],
)
def test_a_command_line_sets_what_it_names_and_nothing_else(
    config_class: type, line: str, values: dict[str, Any]
) -> None:
    required = {
        PrepareConfig: PREPARE,
        PredictConfig: PREDICT,
        RobustnessConfig: PREDICT,
        EvaluateConfig: EVALUATE,
        ReportConfig: REPORT,
        CompareConfig: COMPARE,
    }
    unchanged: Any = parse(config_class, required.get(config_class, "--preset brats").split())
    if config_class is TrainConfig and "preset" not in values:
        line += " --preset brats"
    if "preset" in values:
        unchanged = dataclasses.replace(unchanged, out=unchanged.out.replace("brats", values["preset"]))
    assert parse(config_class, line.split()) == dataclasses.replace(unchanged, **values)


# Wrong command lines


def test_a_wrong_command_line_is_one_line_that_points_to_the_help() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(TrainConfig, ["--epoch", "3"])
    assert str(caught.value) == "unknown option --epoch (did you mean --epochs?); see job.py --help"


CHOICES = (
    "one of auto, brats, best, demo, t1-slices, four-modality, augmented-dropout, augmented-dropout-baseline, "
    "classic-unet, three-modality"
)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--epoch=3", "unknown option --epoch (did you mean --epochs?)"),
        ("--Epochs 3", "unknown option --Epochs (did you mean --epochs?)"),
        ("--bogus --worse 3", "unknown option --bogus"),
        ("-e 3", "unknown option -e"),
        ("-epochs 3", "unknown option -epochs (did you mean --epochs?)"),
        ("extra", "unexpected argument 'extra'"),
        ("--epochs 3 extra", "unexpected argument 'extra'"),
        ("--strict True", "unexpected argument 'True'"),
        ("--strict=True", "--strict takes no value"),
        ("--no-predict=1", "--no-predict takes no value"),
        ("--help=3", "-h/--help takes no value"),
        ("--seed", "--seed needs a whole number"),
        ("--batch_size", "--batch_size needs a whole number"),
        ("--learning-rate", "--learning-rate needs a number"),
        ("--preset", f"--preset needs {CHOICES}"),
        ("--data --out x", "--data needs a value"),
        ("--data -x", "--data needs a value"),
        ("--epochs many", "--epochs must be a whole number, not 'many'"),
        ("--epochs 2.5", "--epochs must be a whole number, not '2.5'"),
        ("--epochs=", "--epochs must be a whole number, not ''"),
        ("--fold none", "--fold must be a whole number, not 'none'"),
        ("--learning-rate x", "--learning-rate must be a number, not 'x'"),
        ("--decoder-channels 1 b", "each value of --decoder-channels must be a whole number, not 'b'"),
        ("--preset huge", f"--preset must be {CHOICES}, not 'huge'"),
        ("--precision FP16", "--precision must be one of auto, fp32, bf16, fp16, not 'FP16'"),
        ("--modalities t1,t2", "each value of --modalities must be one of flair, t1, t1ce, t2, not 't1,t2'"),
    ],
)
def test_a_wrong_command_line_names_the_option_the_value_and_what_is_allowed(line: str, message: str) -> None:
    assert message_of(*line.split()) == message


def test_an_unknown_degradation_is_named_beside_those_there_are() -> None:
    assert message_of("--degradations", "noise", "fog", config_class=RobustnessConfig) == (
        "each value of --degradations must be one of noise, bias-field, gain, blur, low-resolution, missing, "
        "not 'fog'"
    )


def test_an_unknown_preset_to_compare_is_refused_with_those_that_are_known() -> None:
    message = message_of(*f"{COMPARE}--presets brats huge".split(), config_class=CompareConfig)
    assert message == f"each value of --presets must be one of {', '.join(PRESETS)}, not 'huge'"


def test_missing_options_are_listed() -> None:
    assert message_of(config_class=PrepareConfig) == "missing --data, --out"
    assert message_of("--data", "x", config_class=PrepareConfig) == "missing --out"


def test_a_misspelt_option_is_named_before_the_missing_one() -> None:
    message = message_of("--dat", "x", "--out", "o", config_class=PrepareConfig)
    assert message == "unknown option --dat (did you mean --data?)"


@pytest.mark.parametrize(
    ("config_class", "line", "message"),
    [
        (TrainConfig, "--epochs 0", "--epochs must be at least 1, not 0"),
        (TrainConfig, "--seed -1", "--seed must be at least 0, not -1"),
        (TrainConfig, "--modalities", "--modalities needs at least one value"),
        (TrainConfig, "--data=", "--data must not be empty"),
        (EvaluateConfig, EVALUATE + "--wait-minutes=-1", "--wait-minutes must be at least 0, not -1.0"),
        (EvaluateConfig, EVALUATE + "--wait-minutes nan", "--wait-minutes must be at least 0, not nan"),
    ],
)
def test_a_value_outside_the_limits_is_refused_by_the_configuration(
    config_class: type, line: str, message: str
) -> None:
    assert message_of(*line.split(), config_class=config_class) == message


# Paths


@pytest.mark.parametrize(
    ("config_class", "line", "paths"),
    [
        (PrepareConfig, PREPARE, {"data": "d", "out": "o"}),
        (TrainConfig, "--data d/ --out ./o", {"data": "d", "out": "o"}),
        (PredictConfig, PREDICT, {"model": "m", "data": "d", "out": "o"}),
        (EvaluateConfig, EVALUATE, {"predictions": "p", "references": "r", "out": "o"}),
        (CompareConfig, COMPARE, {"data": "d", "out": "o"}),
        (ReportConfig, REPORT + "--out o", {"run": "r", "out": "o"}),
    ],
)
def test_paths_become_absolute(
    config_class: type, line: str, paths: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    config: Any = parse(config_class, line.split())
    assert {name: getattr(config, name) for name in paths} == {
        name: str(tmp_path / folder) for name, folder in paths.items()
    }


def test_urls_stay_as_they_are() -> None:
    config = parse(PrepareConfig, ["--data", "s3://bucket/cases/", "--out=s3://bucket/out"])
    assert (config.data, config.out) == ("s3://bucket/cases", "s3://bucket/out")


def test_with_nothing_named_the_demo_runs_on_phantoms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config: TrainConfig = parse(TrainConfig, [])
    assert (config.data, config.out) == (None, str(tmp_path / "runs" / "demo"))


def test_the_environment_names_the_paths_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRATS_DATA", "s3://bucket/cases/")
    monkeypatch.setenv("BRATS_STORAGE", "s3://bucket/runs/")
    config: TrainConfig = parse(TrainConfig, [])
    assert (config.preset, config.data, config.out) == ("brats", "s3://bucket/cases", "s3://bucket/runs/brats")
    config = parse(TrainConfig, ["--preset", "auto", "--data", "/mine"])
    assert (config.preset, config.data, config.out) == ("brats", "/mine", "s3://bucket/runs/brats")
    config = parse(TrainConfig, ["--preset", "t1-slices", "--out", "/here"])
    assert (config.preset, config.data, config.out) == ("t1-slices", "s3://bucket/cases", "/here")


# The help


def help_of(config_class: type, *arguments: str) -> str:
    """The help, with its lines joined."""
    with pytest.raises(SystemExit) as stop, redirect_stdout(io.StringIO()) as shown:
        parse(config_class, [*arguments, "--help"])
    assert stop.value.code == DONE
    return shown.getvalue()


def test_help_shows_the_values_of_the_preset_that_is_named() -> None:
    assert f"(default: {CLASSIC_UNET})" in help_of(TrainConfig, "--preset", "classic-unet")
    assert f"(default: {LITE0_ENCODER})" in help_of(TrainConfig, "--preset", "brats")
    assert "(default: t1)" in help_of(TrainConfig, "--preset=t1-slices")


@pytest.mark.parametrize("line", ["", "--preset auto", "--data d"])
def test_help_without_a_preset_shows_the_values_of_each_that_has_its_own(line: str) -> None:
    shown = " ".join(help_of(TrainConfig, *line.split()).split())
    assert f"(default: {LITE0_ENCODER}; preset classic-unet: classic-unet)" in shown
    assert "(default: 30, or 4500 steps if those are more)" in shown
    assert "prediction of the test split. (default: preset demo: 4)" in shown
    assert "(default: flair t1 t1ce t2; preset t1-slices: t1; preset four-modality: flair t1 t1ce t2; " in shown
    assert "else brats. (default: auto)" in shown


def test_help_shows_where_the_run_would_go(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "(default: runs/PRESET)" in help_of(TrainConfig)
    monkeypatch.setenv("BRATS_STORAGE", "s3://bucket/runs")
    assert "(default: s3://bucket/runs/t1-slices)" in help_of(TrainConfig, "--preset", "t1-slices")


@pytest.mark.parametrize("line", ["", "--preset classic-unet"])
def test_help_of_training_lists_every_preset_with_its_text_and_what_was_published(line: str) -> None:
    shown = " ".join(help_of(TrainConfig, *line.split()).split())
    for name, preset in PRESETS.items():
        assert f" {name}: {preset.text}" in shown
        assert not preset.published or f" Published: {preset.published}." in shown
    assert "presets" not in help_of(PrepareConfig)


@pytest.mark.parametrize("line", ["--epochs many", "--bogus", "--epochs 0", "--preset huge"])
def test_help_is_given_even_beside_a_mistake(line: str) -> None:
    assert help_of(TrainConfig, *line.split()).startswith("usage: job.py [OPTION ...]\n")


@pytest.mark.parametrize(
    "config_class",
    [PrepareConfig, TrainConfig, PredictConfig, RobustnessConfig, EvaluateConfig, ReportConfig, CompareConfig],
)
def test_help_has_every_option_once_with_its_text(config_class: type) -> None:
    shown = " ".join(help_of(config_class).split())
    for each in read_options(config_class):
        assert shown.count(f" {each.flag} ") + shown.count(f" {each.flag};") >= 1
        assert each.text in shown
    assert "_" not in "".join(each.flag for each in read_options(config_class))


@pytest.mark.parametrize("columns", [80, 110, 200])
def test_help_fits_the_terminal_and_is_never_too_wide_to_read(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    widest = max(map(len, help_of(TrainConfig).splitlines()))
    assert min(columns, 100) - 12 < widest <= min(columns, 100)


def test_help_names_required_options_first_and_result_options_apart() -> None:
    titles = ("usage: job.py --data PATH --out PATH [OPTION ...]", "\nrequired options:\n", "\noptions:\n")
    shown = help_of(PrepareConfig)
    positions = [shown.index(part) for part in (*titles, "--strict", "\noptions that shape the result", "--seed")]
    assert positions == sorted(positions)
