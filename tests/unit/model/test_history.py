"""The table of a run's epochs, as pandas sees it."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from brats.model.history import HISTORY, VALIDATION_COLUMNS, history_path, read_history, write_history

COLUMNS = [
    "epoch",
    "n_steps",
    "train_loss",
    "train_dice",
    "train_dice_wt",
    "train_dice_tc",
    "train_dice_et",
    "train_accuracy",
    "val_loss",
    "val_dice",
    "val_dice_wt",
    "val_dice_tc",
    "val_dice_et",
    "val_accuracy",
    "learning_rate",
    "n_slices",
    "slices_per_s",
    "data_wait_s",
    "train_s",
    "elapsed_s",
    "peak_memory_mb",
]


def row(epoch: int) -> dict[str, Any]:
    """A row with a different value in each column."""
    return {"epoch": epoch, **{name: epoch + 0.25 * number for number, name in enumerate(COLUMNS[1:])}} | {
        "n_steps": 10 * epoch,
        "n_slices": 100 * epoch,
    }


def test_pandas_reads_one_row_per_epoch_with_every_value(tmp_path: Path) -> None:
    write_history(str(tmp_path), [row(1), row(2)], {})
    frame = pd.read_parquet(tmp_path / "history.parquet")
    assert list(frame.columns) == COLUMNS
    assert frame.to_dict("records") == [row(1), row(2)]


def test_counts_are_whole_numbers_and_the_rest_floats(tmp_path: Path) -> None:
    write_history(str(tmp_path), [row(1)], {})
    types = read_history(str(tmp_path)).dtypes.astype(str).to_dict()
    assert types == dict.fromkeys(COLUMNS, "float64") | {
        "epoch": "int32",
        "n_steps": "int64",
        "n_slices": "int64",
    }


def test_writing_again_replaces_the_table(tmp_path: Path) -> None:
    write_history(str(tmp_path), [row(1)], {})
    write_history(str(tmp_path), [row(1), row(2)], {})
    assert read_history(str(tmp_path))["epoch"].tolist() == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["history.parquet"]


def test_the_file_says_what_its_columns_mean(tmp_path: Path) -> None:
    write_history(str(tmp_path), [row(1)], {})
    metadata = json.loads(pq.read_schema(history_path(str(tmp_path))).metadata[b"brats"])
    assert metadata["version"] == 1
    assert "binary cross-entropy" in metadata["conventions"]["train_loss"]
    assert "both masks empty: 1" in metadata["conventions"]["val_dice_wt, val_dice_tc, val_dice_et"]


def test_an_epoch_that_was_not_validated_has_nulls_there(tmp_path: Path) -> None:
    write_history(str(tmp_path), [row(1), row(2) | dict.fromkeys(VALIDATION_COLUMNS)], {})
    nulls = pq.read_table(history_path(str(tmp_path))).to_pandas().isna().sum()
    assert {name: count for name, count in nulls.items() if count} == dict.fromkeys(VALIDATION_COLUMNS, 1)


def test_the_columns_are_those_of_the_schema() -> None:
    assert HISTORY.schema.names == COLUMNS


def test_a_run_without_history_has_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_history(str(tmp_path))
