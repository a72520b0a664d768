"""The history of a run, `RUN/history.parquet`: one row per epoch."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from brats import storage
from brats.config import LOSS_CONVENTIONS
from brats.labels import REGIONS

LOSSES = "; ".join(f"{name}: {convention}" for name, convention in LOSS_CONVENTIONS.items())

HistoryRow = dict[str, Any]
"""The figures of an epoch."""


def dice_column(region: str) -> str:
    """The column with the validation Dice of a region."""
    return f"val_dice_{region.lower()}"


HISTORY = storage.TableKind(
    name="history",
    schema=pa.schema(
        [
            ("epoch", pa.int32()),
            ("train_loss", pa.float64()),
            ("val_loss", pa.float64()),
            ("val_dice", pa.float64()),
            *((dice_column(region), pa.float64()) for region in REGIONS),
            ("learning_rate", pa.float64()),
            ("n_slices", pa.int64()),
            ("slices_per_s", pa.float64()),
            ("data_wait_s", pa.float64()),
            ("train_s", pa.float64()),
            ("elapsed_s", pa.float64()),
            ("peak_memory_mb", pa.float64()),
        ]
    ),
    conventions={
        "train_loss": f"mean over the slices of the epoch of the loss in `config` ({LOSSES})",
        "val_loss": "the same without augmentation; mean over validation cases, each taken as one batch",
        "val_dice": f"mean of {', '.join(REGIONS)}",
        ", ".join(map(dice_column, REGIONS)): "mean over validation cases of the 3-D Dice inside the crop; "
        "both masks empty: 1",
        "data_wait_s": "seconds a worker waited for batches, mean over the workers",
        "peak_memory_mb": "MiB of the GPU (or of the process, on CPUs) of rank 0, the highest so far",
    },
)


def history_path(run: str) -> str:
    return storage.join(run, "history.parquet")


def write_history(run: str, history: Sequence[HistoryRow], config: dict[str, Any]) -> None:
    """Write the rows so far; the configuration goes into the metadata."""
    rows = [{**row, "n_slices": int(row["n_slices"])} for row in history]
    storage.write_table(history_path(run), HISTORY, HISTORY.table(rows), config=config)


def read_history(run: str) -> pd.DataFrame:
    """One row per epoch. Raises FileNotFoundError before the first epoch is done."""
    frame: pd.DataFrame = storage.read_table(history_path(run), HISTORY).to_pandas()
    return frame
