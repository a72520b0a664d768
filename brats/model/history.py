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


def train_dice_column(region: str) -> str:
    """The column with the Dice of a region on the slices trained on."""
    return f"train_dice_{region.lower()}"


VALIDATION_COLUMNS = ("val_loss", "val_dice", *map(dice_column, REGIONS), "val_accuracy")

HISTORY = storage.TableKind(
    name="history",
    schema=pa.schema(
        [
            ("epoch", pa.int32()),
            ("n_steps", pa.int64()),
            ("train_loss", pa.float64()),
            ("train_dice", pa.float64()),
            *((train_dice_column(region), pa.float64()) for region in REGIONS),
            ("train_accuracy", pa.float64()),
            *((name, pa.float64()) for name in VALIDATION_COLUMNS),
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
        "n_steps": "optimiser steps; an epoch in which --steps or --minutes ends the run has fewer than the others",
        "train_loss": f"mean over the slices of the epoch of the loss in `config` ({LOSSES})",
        "train_dice": f"mean of {', '.join(REGIONS)}, or of those that the network predicts; the columns of the "
        "others are null",
        ", ".join(map(train_dice_column, REGIONS)): "over all voxels of the augmented slices of the epoch, each as "
        "it was predicted while the network trained; no voxel in either mask: 1",
        "train_accuracy": "share of the voxels of these slices, padding and background included, that have the "
        "right label; of a network that predicts WT alone, that are rightly tumour or not",
        ", ".join(VALIDATION_COLUMNS): "null in epochs that were not validated: short ones on a GPU; of the "
        "averaged weights, unless `config` has an `ema` of 0",
        "val_loss": "the loss without augmentation; mean over validation cases, each taken as one batch",
        "val_dice": f"mean of {', '.join(REGIONS)}, or of those that the network predicts; the columns of the "
        "others are null",
        ", ".join(map(dice_column, REGIONS)): "mean over validation cases of the 3-D Dice inside the crop; "
        "both masks empty: 1",
        "val_accuracy": "share of the voxels of the validation cases inside the crop, background included, that "
        "have the right label; likewise of WT alone",
        "learning_rate": "of the last step of the epoch",
        "train_s": "seconds from the first step to the end of the last",
        "elapsed_s": "seconds of this epoch alone: of its steps and, where it was validated, of that and of "
        "handing over its checkpoint",
        "n_slices": "trained on by all workers together",
        "slices_per_s": "n_slices over train_s",
        "data_wait_s": "seconds a worker waited for batches, mean over the workers, but for the first of a start",
        "peak_memory_mb": "MiB of the GPU (or of the process, on CPUs) of rank 0, the highest so far",
    },
)


def history_path(run: str) -> str:
    return storage.join(run, "history.parquet")


def write_history(run: str, history: Sequence[HistoryRow], config: dict[str, Any]) -> None:
    """Write the rows so far; the configuration goes into the metadata."""
    storage.write_table(history_path(run), HISTORY, HISTORY.table(history), config=config)


def read_history(run: str) -> pd.DataFrame:
    """One row per epoch. Raises FileNotFoundError before the first epoch is done."""
    frame: pd.DataFrame = storage.read_table(history_path(run), HISTORY).to_pandas()
    return frame
