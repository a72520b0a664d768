"""What a model found in a case: read in a process that has no use for torch."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np

from brats.data.segmented_case import N_LABELS, N_LEVELS, LevelCounts, SegmentedCase
from tests.support import ROOT

READ = """
import pickle, sys
found = pickle.load(open(sys.argv[1], "rb"))
print(found.regions, found.counts.by_slice.shape, "torch" in sys.modules)
"""


def test_the_step_that_scores_reads_a_segmentation_without_loading_torch(tmp_path: Path) -> None:
    counts = LevelCounts(
        by_labels=np.zeros((1, 2, N_LABELS, N_LABELS, N_LEVELS), np.int64),
        by_slice=np.zeros((1, 3, N_LEVELS), np.int64),
    )
    found = SegmentedCase(labels=np.zeros((3, 2, 2), np.uint8), regions=("WT",), counts=counts)
    (tmp_path / "found").write_bytes(pickle.dumps(found))
    command = [sys.executable, "-c", READ, str(tmp_path / "found")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "('WT',) (1, 3, 256) False\n"
