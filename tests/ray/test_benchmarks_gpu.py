"""The runs of `jobs/train.py` that the GPU benchmark measures, on a CPU."""

import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.synthetic import write_cases

sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed

from benchmarks.gpu_jobs import TrainJob, settled, share_between, share_waited

pytestmark = pytest.mark.ray


def test_train_job_gives_the_figures_of_its_epochs(tmp_path: Path) -> None:
    write_cases(tmp_path / "cases", 8, shape=(32, 30, 14))
    job = TrainJob(preset="demo", batch_size=8, feeding="streamed", augmentation="none", epochs=2, device="cpu")
    history = job.run(tmp_path / "cases", tmp_path / "run")
    assert [row["epoch"] for row in history] == [1, 2]
    (rate,) = settled(history, "slices_per_s").values
    assert rate > 0
    assert 0 <= share_waited(history).median <= 1
    assert 0 <= share_between(history) < 1
