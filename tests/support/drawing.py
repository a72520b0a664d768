"""A case with a known tumour, for those who draw it."""

from collections.abc import Sequence

import numpy as np

from brats.data.case import Case
from brats.data.cases import CaseFiles
from brats.data.grid import Grid
from brats.data.preprocess import crop_case
from brats.data.trim import trim
from brats.data.volume import Volume
from brats.labels import ED, ET, NCR, Labels
from brats.storage import FileInfo

MODALITIES = ("flair", "t1", "t1ce", "t2")
SHAPE = (60, 50, 8)
LPS = ((-1.0, 0.0, 0.0, 59.0), (0.0, -1.0, 0.0, 49.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def make_case(case_id: str = "a", modalities: Sequence[str] = MODALITIES) -> Case:
    """A case whose crop begins at (5, 4, 1), with a tumour in the patient's right front.

    The tumour is largest in slice z = 4, which is number 3 of the crop.
    """
    brain = np.zeros(SHAPE, bool)
    brain[5:55, 4:46, 1:7] = True
    labels = np.zeros(SHAPE, np.uint8)
    labels[35:48, 30:42, 4] = ED
    labels[38:45, 33:40, 3:6] = ET
    labels[40:43, 35:38, 4] = NCR
    random = np.random.default_rng(0)
    grid = Grid.of(SHAPE, LPS, {})
    volumes = {
        name: Volume(
            voxels=np.where(brain, 100 + 50 * labels + random.integers(0, 40, SHAPE), 0).astype(np.int16),
            slope=1,
            inter=0,
            grid=grid,
        )
        for name in modalities
    }
    files = CaseFiles(
        case_id=case_id,
        patient_id=case_id,
        layout="brats2018",
        coding="brats2018",
        images={name: FileInfo(f"{case_id}_{name}.nii.gz", 1) for name in modalities},
        segmentation=None,
        grade="",
    )
    return crop_case(files, {name: trim(volume) for name, volume in volumes.items()}, labels)


def reference_of(case: Case) -> Labels:
    assert case.labels is not None
    return case.labels
