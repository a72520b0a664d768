"""A training so small that its start takes most of the time, here and on the command line; what its plan holds."""

from pathlib import Path
from typing import Any

import pandas as pd

from brats.config import TrainConfig
from brats.data.epoch import TrainingCase, plan_epoch
from brats.pipeline.train import TrainedRun, train

BATCH_SIZE = 8
OPTIONS = [
    *["--encoder", "tu-test_resnet", "--decoder-channels", *["8"] * 5],  # a tenth of the time of resnet18
    *["--batch-size", str(BATCH_SIZE), "--micro-batch-size", "4", "--precision", "fp32"],
    *["--learning-rate", "3e-3", "--warmup-steps", "5"],
    "--no-tune",  # it starts the network once more
]
TINY: dict[str, Any] = {
    "encoder": "tu-test_resnet",
    "decoder_channels": (8,) * 5,
    "epochs": 3,
    "batch_size": BATCH_SIZE,
    "micro_batch_size": 4,
    "workers": 2,
    "precision": "fp32",
    "learning_rate": 3e-3,
    "warmup_steps": 5,
}
"""The same as fields, and three epochs with two workers."""


def run_tiny(data: Path, out: Path, **options: Any) -> TrainedRun:
    """Train in this process, with options beside or in place of those of `TINY`."""
    return train(TrainConfig(data=str(data), out=str(out), **{**TINY, **options}))


def n_planned(run: Path, epoch: int) -> int:
    """Slices that the plan of an epoch names: what the network must have seen of them."""
    split = pd.read_parquet(run / "split.parquet")
    training = split[split.split == "train"]
    batches = plan_epoch(
        [TrainingCase(row.case_id, tuple(row.tumour_per_slice)) for row in training.itertuples()],
        seed=0,
        epoch=epoch,
        batch_size=BATCH_SIZE,
        tumour_free_ratio=0.25,
    )
    return sum(len(batch.slices) for batch in batches)
