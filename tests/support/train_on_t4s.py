"""jobs/train.py where Ray sees T4s and torch does not. Run by test_notebooks."""

import sys
from pathlib import Path

from brats.cli import run_job
from brats.config import TrainConfig

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[2] / "jobs"))
from train import main as train_job

from tests.support.t4s import pretend

if __name__ == "__main__":
    pretend()
    run_job(train_job, TrainConfig)
