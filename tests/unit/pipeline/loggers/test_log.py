"""Logging: the loggers that are chosen, the names of the figures, and loggers that fail."""

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from brats.config import COMPARED_PRESETS, CompareConfig, LoggerName, TrainConfig
from brats.errors import ConfigError, LoggerError
from brats.model.history import HISTORY
from brats.pipeline.loggers import log as module
from brats.pipeline.loggers.log import LOGGERS, PLACES, check_loggers, figures, opened_loggers
from brats.pipeline.loggers.logger import Epochs

HISTORY_OF = [[{"epoch": number, "train_loss": 0.5} for number in range(1, last + 1)] for last in range(12)]
"""The history after no epoch, after one, and on."""


class Recorded:
    """A logger that keeps what it is given, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.calls: list[Any] = []

    def log(self, epochs: Epochs) -> None:
        self.calls.append(len(epochs))
        if self.failures:
            raise LoggerError(self.failures.pop(0))

    def close(self, *, finished: bool) -> None:
        self.calls.append(finished)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """Stands for MLflow."""
    logger = Recorded()
    monkeypatch.setattr(module, "LOGGERS", {"mlflow": lambda _: logger})
    return logger


def config_of(folder: Path) -> TrainConfig:
    return TrainConfig(out=str(folder), loggers=("mlflow",))


def test_training_and_validation_have_their_figures_side_by_side_and_null_has_none() -> None:
    row = {"epoch": 3, "train_loss": 0.5, "val_dice_wt": 0.25, "val_dice": None, "train_s": 7.0, "n_slices": 4}
    assert figures(row) == {"loss/train": 0.5, "dice/val_wt": 0.25, "run/train_s": 7.0, "run/n_slices": 4.0}


def test_every_column_of_the_history_has_a_name_of_its_own() -> None:
    row = dict.fromkeys(HISTORY.schema.names, 1.0)
    assert len(figures(row)) == len(HISTORY.schema.names) - 1  # all but the epoch


def test_without_an_option_the_history_is_logged_for_tensorboard(tmp_path: Path) -> None:
    with opened_loggers(TrainConfig(out=str(tmp_path))) as log:
        log(HISTORY_OF[1])
    assert [path.name for path in tmp_path.iterdir()] == ["tensorboard"]
    assert [path.name for path in (tmp_path / "tensorboard").iterdir()] == ["events.out.tfevents.0000000001"]


def test_a_logger_is_given_the_history_beside_tensorboard_and_closed(tmp_path: Path, recorded: Recorded) -> None:
    with opened_loggers(config_of(tmp_path)) as log:
        log(HISTORY_OF[1])
        log(HISTORY_OF[2])
    assert recorded.calls == [1, 2, True]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), LoggerError("x")])
def test_of_a_run_that_is_stopped_or_fails_loggers_know(
    tmp_path: Path, recorded: Recorded, error: BaseException
) -> None:
    with pytest.raises(type(error)), opened_loggers(config_of(tmp_path)):
        raise error
    assert recorded.calls == [False]


def test_a_logger_that_fails_is_reported_once_for_each_reason_and_others_go_on(
    tmp_path: Path, recorded: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded.failures = ["no answer", "no answer", "disk full"]
    with opened_loggers(config_of(tmp_path)) as log:
        for history in HISTORY_OF[1:]:
            log(history)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(";")[0] for line in lines] == [
        "train    WARNING: no answer",
        "train    WARNING: disk full",
    ]
    assert all(line.endswith("; the epochs are in history.parquet all the same") for line in lines)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 11


def test_a_logger_that_fails_rests_longer_each_time_and_begins_anew_once_it_has_logged(
    tmp_path: Path, recorded: Recorded
) -> None:
    recorded.failures = ["a", "b"]
    with opened_loggers(config_of(tmp_path)) as log:
        for history in HISTORY_OF[:8]:
            log(history)
        recorded.failures = ["c"]
        for history in HISTORY_OF[8:]:
            log(history)
    # Fails at 0 and rests for one call, fails at 2 and rests for two; fails at 8 and rests for one.
    assert recorded.calls == [0, 2, 5, 6, 7, 8, 10, 11, True]


def test_what_a_failure_has_left_out_is_logged_at_the_end(tmp_path: Path, recorded: Recorded) -> None:
    recorded.failures = ["a"]
    with opened_loggers(config_of(tmp_path)) as log:
        log(HISTORY_OF[1])
        log(HISTORY_OF[2])
    assert recorded.calls == [1, 2, True]


def test_tensorboard_that_cannot_write_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tensorboard").write_text("a file in the place of the folder")
    with opened_loggers(TrainConfig(out=str(tmp_path))) as log:
        log(HISTORY_OF[1])
    said = capsys.readouterr().out
    assert said.startswith("train    WARNING: ")
    assert said.count("\n") == 1


def both(**options: Any) -> list[TrainConfig | CompareConfig]:
    """Configurations of both jobs that take the option."""
    train = TrainConfig(out="run", **options)
    compare = CompareConfig(data="prepared", out="run", presets=COMPARED_PRESETS[:2], **options)
    return [train, compare]


def test_installed_loggers_and_none_are_taken() -> None:
    for config in (*both(), *both(loggers=("mlflow", "wandb"))):
        check_loggers(config)


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, found: Any) -> None:
    """Have a package be looked for in vain."""
    real: Callable[[str], Any] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: found if asked == name else real(asked))


def test_a_logger_that_is_not_installed_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "wandb", None)
    for config in both(loggers=("mlflow", "wandb")):
        with pytest.raises(ConfigError) as caught:
            check_loggers(config)
        assert str(caught.value) == (
            "--loggers: wandb is not installed; install the extra loggers (pip install '.[loggers]'), or leave it "
            "out"
        )


def test_a_folder_of_its_name_is_no_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder_of_this_name").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    stand_in(monkeypatch, "wandb", importlib.util.find_spec("folder_of_this_name"))
    with pytest.raises(ConfigError, match="wandb is not installed"):
        check_loggers(TrainConfig(out="run", loggers=("wandb",)))


def test_every_logger_that_can_be_named_is_there_with_its_place() -> None:
    assert set(LOGGERS) == set(PLACES) == set(get_args(LoggerName))


@pytest.mark.parametrize(("name", "variable"), [("mlflow", "MLFLOW_TRACKING_URI"), ("wandb", "WANDB_DIR")])
def test_where_the_run_is_in_s3_a_logger_needs_a_place_of_its_own(
    monkeypatch: pytest.MonkeyPatch, name: Any, variable: str
) -> None:
    config = dataclasses.replace(TrainConfig(out="run", loggers=(name,)), out="s3://bucket/run")
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match=f"{name} cannot write to s3://bucket/run; set {variable}, or leave it"):
        check_loggers(config)
    monkeypatch.setenv(variable, "somewhere")
    check_loggers(config)
