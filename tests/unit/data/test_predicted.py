"""Predictions on disk: recognised by what predict writes, wherever their run has moved."""

from pathlib import Path
from typing import Any

import pytest

from brats import storage
from brats.data.cases import DEFAULT_HDF5, Hdf5Options
from brats.data.predicted import Prediction, find_prediction
from brats.data.run_split import SPLIT, split_path
from brats.errors import ConfigError, StorageError


def write_config(folder: Path, job: str, **sections: Any) -> Path:
    content = {"job": job, "result": {}, "execution": {}, **sections}
    storage.write_json(str(folder / "config.json"), content)
    return folder


EXECUTION = {"model": "/models/first/model", "data": "/data/prepared", "out": "/elsewhere"}


def test_folder_of_predict_names_its_cases_and_the_run_of_its_model(tmp_path: Path) -> None:
    write_config(tmp_path, "predict", result={"split": "val", "coding": "brats2023"}, execution=EXECUTION)
    assert find_prediction(str(tmp_path)) == Prediction(
        out=str(tmp_path),
        data="/data/prepared",
        split="val",
        coding="brats2023",
        hdf5=DEFAULT_HDF5,
        run="/models/first",
    )


def test_folder_of_an_early_version_is_of_all_cases_and_of_no_stated_coding(tmp_path: Path) -> None:
    write_config(tmp_path, "predict")
    assert find_prediction(str(tmp_path)) == Prediction(
        out=str(tmp_path), data=None, split="all", coding="auto", hdf5=DEFAULT_HDF5, run=""
    )


def test_options_of_hdf5_slices_are_those_of_the_prediction(tmp_path: Path) -> None:
    result = {"hdf5_channels": ["t2", "t1", "t1ce", "flair"], "hdf5_spacing_mm": [1, 1, 5]}
    found = find_prediction(str(write_config(tmp_path, "predict", result=result)))
    assert found is not None
    assert found.hdf5 == Hdf5Options(channels=("t2", "t1", "t1ce", "flair"), spacing_hwz_mm=(1, 1, 5))


def test_run_stands_for_its_test_split_and_is_found_where_it_was_moved_to(tmp_path: Path) -> None:
    write_config(tmp_path, "train")
    write_config(tmp_path / "test", "predict", execution=EXECUTION)
    storage.write_table(split_path(str(tmp_path)), SPLIT, SPLIT.table([]))
    found = find_prediction(str(tmp_path))
    assert found is not None
    assert (found.out, found.run) == (str(tmp_path / "test"), str(tmp_path))


def test_other_folders_are_no_prediction(tmp_path: Path) -> None:
    assert find_prediction(str(tmp_path / "nothing")) is None
    assert find_prediction(str(write_config(tmp_path, "evaluate"))) is None


def test_run_without_its_test_split_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path, "train")
    with pytest.raises(ConfigError, match=r"--predictions: the run .* has no predicted test split in .*/test; run"):
        find_prediction(str(tmp_path))


def test_damaged_configuration_is_named(tmp_path: Path) -> None:
    write_config(tmp_path, "predict", result=[1])
    with pytest.raises(ConfigError, match=r"--predictions: .*/config.json is damaged"):
        find_prediction(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(StorageError, match=r"config.json: not JSON"):
        find_prediction(str(tmp_path))
