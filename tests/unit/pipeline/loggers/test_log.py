"""Logging: the names of the figures, and a logger that cannot write."""

from pathlib import Path

import pytest

from brats.model.history import HISTORY
from brats.pipeline.loggers.log import figures, log


def test_training_and_validation_have_their_figures_side_by_side_and_null_has_none() -> None:
    row = {"epoch": 3, "train_loss": 0.5, "val_dice_wt": 0.25, "val_dice": None, "train_s": 7.0, "n_slices": 4}
    assert figures(row) == {"loss/train": 0.5, "dice/val_wt": 0.25, "run/train_s": 7.0, "run/n_slices": 4.0}


def test_every_column_of_the_history_has_a_name_of_its_own() -> None:
    row = dict.fromkeys(HISTORY.schema.names, 1.0)
    assert len(figures(row)) == len(HISTORY.schema.names) - 1  # all but the epoch


def test_the_history_is_logged_for_tensorboard(tmp_path: Path) -> None:
    log(str(tmp_path), [{"epoch": 1, "train_loss": 0.5}])
    assert [path.name for path in (tmp_path / "tensorboard").iterdir()] == ["events.out.tfevents.0000000001"]


def test_a_logger_that_cannot_write_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tensorboard").write_text("a file in the place of the folder")
    log(str(tmp_path), [{"epoch": 1, "train_loss": 0.5}])
    said = capsys.readouterr().out
    assert said.startswith("train    WARNING: ")
    assert said.endswith("; the epochs are in history.parquet all the same\n")
    assert said.count("\n") == 1
