"""Folds of a cross-validation: every labelled patient is tested once, by a model that has not seen it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from brats.config import TrainConfig
from brats.data.cross_validation import choose_folds, folds_without_et, splits_of_folds
from brats.data.run_split import SplitRow, freeze_split
from brats.errors import ConfigError
from tests.support.patients import patient_row, write_patients
from tests.support.prepared import MODALITIES


def config_of(n_folds: int, **options: Any) -> TrainConfig:
    return TrainConfig(out="run", modalities=MODALITIES, cross_validation=n_folds, **options)


def dataset(tmp_path: Path, rows: Sequence[dict[str, Any]]) -> str:
    return write_patients(str(tmp_path / "prepared"), rows)


def splits(prepared: str, config: TrainConfig, run: str = "run") -> list[list[SplitRow]]:
    return splits_of_folds(choose_folds(config, run, prepared), config, prepared)


def cases_in(split: Sequence[SplitRow], name: str) -> set[str]:
    return {row["case_id"] for row in split if row["split"] == name}


def test_every_labelled_case_is_tested_in_one_fold_whatever_its_split_in_the_dataset(tmp_path: Path) -> None:
    rows = [patient_row(number, split=("train", "val", "test")[number % 3]) for number in range(9)]
    prepared = dataset(tmp_path, [*rows, patient_row(9, split=None, volume_ml_wt=None, n_voxels_et=None)])
    tested = Counter(case for split in splits(prepared, config_of(3)) for case in cases_in(split, "test"))
    assert tested == {f"case_{number}": 1 for number in range(9)}


def test_patients_of_a_fold_are_neither_trained_nor_validated_on(tmp_path: Path) -> None:
    rows = [patient_row(number, patient_id=f"patient_{number // 2}") for number in range(12)]
    for split in splits(dataset(tmp_path, rows), config_of(3)):
        patients = {
            name: {row["patient_id"] for row in split if row["split"] == name} for name in ("train", "val", "test")
        }
        assert all(patients.values())
        assert sum(map(len, patients.values())) == len(set.union(*patients.values())) == 6


def test_models_are_not_all_chosen_on_the_same_patients(tmp_path: Path) -> None:
    prepared = dataset(tmp_path, [patient_row(number) for number in range(20)])
    validated = [cases_in(split, "val") for split in splits(prepared, config_of(5))]
    assert all(len(cases) == 2 for cases in validated)
    assert len(set.union(*validated)) > 4


def test_folds_are_those_of_the_first_start_though_cases_have_joined(tmp_path: Path) -> None:
    prepared, run, config = (
        dataset(tmp_path, [patient_row(n) for n in range(6)]),
        str(tmp_path / "run"),
        config_of(3),
    )
    rows = choose_folds(config, run, prepared)
    before = splits_of_folds(rows, config, prepared)
    freeze_split(run, rows, prepared)
    write_patients(prepared, [patient_row(n) for n in range(8)])
    assert splits(prepared, config, run) == before
    assert len(choose_folds(config, "elsewhere", prepared)) == 8


def test_a_case_that_has_changed_since_is_refused(tmp_path: Path) -> None:
    prepared, run, config = (
        dataset(tmp_path, [patient_row(n) for n in range(6)]),
        str(tmp_path / "run"),
        config_of(3),
    )
    freeze_split(run, choose_folds(config, run, prepared), prepared)
    write_patients(prepared, [patient_row(n, source_hash="other") for n in range(6)])
    with pytest.raises(ConfigError, match="the files of the case case_0"):
        choose_folds(config, run, prepared)


def test_more_folds_than_patients_are_refused(tmp_path: Path) -> None:
    prepared = dataset(tmp_path, [patient_row(n, patient_id=f"patient_{n // 2}") for n in range(8)])
    with pytest.raises(
        ConfigError, match=r"--cross-validation: 5 folds need as many patients, but .* has 4 with a segmentation"
    ):
        choose_folds(config_of(5), "run", prepared)


def test_as_many_folds_as_patients_leave_one_out_each_time(tmp_path: Path) -> None:
    prepared = dataset(tmp_path, [patient_row(n) for n in range(4)])
    found = splits(prepared, config_of(4))
    assert [len(cases_in(split, "test")) for split in found] == [1] * 4
    assert [len(cases_in(split, "val")) for split in found] == [1] * 4


def test_a_fold_that_leaves_a_single_patient_is_refused(tmp_path: Path) -> None:
    prepared = dataset(tmp_path, [patient_row(n) for n in range(3)])
    with pytest.raises(ConfigError, match=r"--cross-validation: fold 0 leaves a single patient of .*; add cases"):
        splits(prepared, config_of(2))


def test_a_fold_outside_which_nothing_has_tumour_is_refused(tmp_path: Path) -> None:
    rows = [patient_row(n, tumour_per_slice=[0, 0], volume_ml_wt=0.0) for n in range(5)]
    with pytest.raises(
        ConfigError, match=r"--cross-validation: outside fold \d, no case of .* has a voxel of tumour"
    ):
        splits(dataset(tmp_path, [*rows, patient_row(5)]), config_of(3))


def test_folds_without_enhancing_tumour_are_found(tmp_path: Path) -> None:
    prepared = dataset(tmp_path, [patient_row(n, with_et=n == 4) for n in range(6)])
    rows = choose_folds(config_of(3), "run", prepared)
    (fold,) = {row["fold"] for row in rows if row["case_id"] == "case_4"}
    assert folds_without_et(rows, prepared) == sorted({0, 1, 2} - {fold})
