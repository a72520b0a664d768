"""A training so small that its start takes most of the time, on the command line, and what its plan holds."""

from pathlib import Path

import pandas as pd

from brats.data.epoch import TrainingCase, plan_epoch

BATCH_SIZE = 8
OPTIONS = [
    *["--encoder", "tu-test_resnet", "--decoder-channels", *["8"] * 5],  # a tenth of the time of resnet18
    *["--batch-size", str(BATCH_SIZE), "--micro-batch-size", "4", "--precision", "fp32"],
    *["--learning-rate", "3e-3", "--warmup-steps", "5"],
]


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
