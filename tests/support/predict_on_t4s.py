"""jobs/predict.py where Ray sees T4s and torch does not: placed on GPUs, computed on CPUs. Run by test_two_gpus."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from brats.cli import run_job
from brats.cluster.placement import Placement
from brats.config import PredictConfig
from brats.pipeline import predict
from brats.pipeline.predictor import Predictor, Work

sys.path.insert(0, str(Path(__file__).parents[2] / "jobs"))
from predict import main as predict_job


class PredictorOnCpu(Predictor):
    def __init__(self, config: PredictConfig, work: Work, placement: Placement, counter: Any) -> None:
        super().__init__(config, work, dataclasses.replace(placement, use_gpu=False, threads=1), counter)


def pass_any(placement: Placement) -> None:
    """In place of the check that torch can use the GPUs."""
    assert placement.use_gpu


if __name__ == "__main__":
    predict.__dict__.update(Predictor=PredictorOnCpu, check_gpus=pass_any)
    run_job(predict_job, PredictConfig)
