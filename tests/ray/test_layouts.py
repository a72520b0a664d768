"""Cases in several forms, side by side in one folder, through every job that reads them, on a real embedded Ray."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brats import storage
from brats.config import EvaluateConfig, PredictConfig
from brats.data.cases import CaseFiles, find_cases
from brats.data.grid import from_ras
from brats.data.masks import masks_path, read_masks
from brats.data.read_files import read_reference
from brats.data.volume import read_segmentation
from brats.pipeline.predict import predict
from brats.pipeline.scoring.check import check_evaluation
from brats.pipeline.scoring.evaluate import evaluate
from tests.support.forms import (
    write_bids,
    write_case_folder,
    write_decathlon_case,
    write_hdf5_slices,
    write_mha_2013,
)
from tests.support.training import run_tiny

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]

IDS = {
    "BRATS_000": ".nii.gz",  # the same brain as patient0
    "HG_0002": ".mha",
    "HG_0003": ".mha",
    "patient0": ".nii.gz",
    "sub-006_ses-01": ".nii.gz",
    "volume_5": ".nii.gz",
}
"""The cases, and how files of their masks end."""


def test_every_form_goes_through_all_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run, out, scores = (str(tmp_path / name) for name in ("data", "run", "out", "scores"))
    cases = write_cases(Path(data))
    trained = run_tiny(Path(data), Path(run), coding="brats2023", epochs=1, workers=1, tune=False, predict=False)
    assert len(trained.history) == 1
    printed = capsys.readouterr().out
    assert "same patient: BRATS_000, patient0" in printed
    assert [
        name
        for name in ("brats2013-mha", "bids", "case-folders", "hdf5-slices", "msd-task01")
        if f"WARNING {name}: " in printed
    ] == [
        "brats2013-mha",
        "hdf5-slices",
        "msd-task01",
    ]

    predicted = predict(
        PredictConfig(
            model=run, data=data, out=out, coding="brats2023", nifti=True, workers=1, precision="fp32", device="cpu"
        )
    )
    assert predicted.rejects == []
    assert "voxels of 1 x 1 x 1 mm (--hdf5-spacing-mm)" in capsys.readouterr().out
    for case_id, suffix in IDS.items():
        assert_written_back(cases[case_id], out, suffix)

    config = EvaluateConfig(predictions=f"{out}/nifti", references=data, out=scores, coding="brats2023")
    evaluate(check_evaluation(config))
    own, foreign = (pd.read_parquet(f"{folder}/metrics/cases.parquet") for folder in (out, scores))
    assert sorted(set(own.case_id)) == list(IDS)
    columns = ["case_id", "region", "dice", "hd95_mm", "sensitivity", "reference_ml", "predicted_ml"]
    pd.testing.assert_frame_equal(own[columns], foreign[columns])
    assert own.groupby("case_id").predicted_ml.max().gt(0).all()
    volume_ml = own[own.region == "WT"].set_index("case_id").reference_ml
    assert volume_ml["BRATS_000"] == volume_ml["patient0"]


def write_cases(data: Path) -> dict[str, CaseFiles]:
    """The cases of `IDS`, as they are found."""
    write_case_folder(data / "own", 0)
    write_decathlon_case(data / "Task01_BrainTumour", 0)
    for number in (2, 3):
        write_mha_2013(data / "BRATS-2", number)
    write_hdf5_slices(data / "kaggle", 5)
    write_bids(data / "derivatives", 6)
    found = find_cases(str(data), coding="brats2023")
    assert found.rejects == ()
    cases = {case.case_id: case for case in found.cases}
    assert list(cases) == list(IDS)
    return cases


def assert_written_back(case: CaseFiles, out: str, suffix: str) -> None:
    """The mask of a case is in the form, the codes and on the grid of its reference, and the one in Parquet."""
    (file,) = (file for file in storage.list_files(f"{out}/nifti") if file.name == f"{case.case_id}{suffix}")
    written, reference = read_segmentation(file, case.coding), read_reference(case)
    assert written.grid.affine == reference.grid.affine
    mask = read_masks(masks_path(out, case.case_id))
    np.testing.assert_array_equal(from_ras(written.labels, written.grid), mask)
    assert mask.shape == reference.grid.shape
