"""The folder of a prepared dataset: its table of cases, a row per case, and where a case lies."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from brats import storage
from brats.data.dataset import PREPARED_CASES, case_row, cases_path, is_prepared, read_case_table, slices_path
from brats.data.planes import COUNT_COLUMNS
from brats.errors import BratsError, StorageError
from tests.support.volumes import SHAPE, case_of, grid_of, image, labels_of

# Rows of the table of cases


def test_the_row_of_a_case_has_its_counts_and_volumes() -> None:
    grid = grid_of(SHAPE, np.diag([1.0, 2.0, 5.0, 1.0]))  # 10 cubic millimetres a voxel
    case = case_of("a", labels_of(1, 2, 3), grid=grid, flair=image(0, np.int16, 1, 99))
    row = case_row(json.loads(json.dumps(case.describe())))
    assert (row["case_id"], row["patient_id"], row["grade"]) == ("a", "patient of a", "LGG")
    assert (row["n_voxels_ncr"], row["n_voxels_ed"], row["n_voxels_et"]) == (1, 2, 3)
    assert (row["volume_ml_wt"], row["volume_ml_tc"], row["volume_ml_et"]) == pytest.approx((0.06, 0.04, 0.03))
    assert row["tumour_per_slice"] == [1, 2, 3]
    assert row["et_per_slice"] == [0, 0, 3]
    assert (sum(row["tumour_per_coronal_slice"]), len(row["tumour_per_coronal_slice"])) == (6, 4)
    assert (sum(row["et_per_sagittal_slice"]), len(row["et_per_sagittal_slice"])) == (3, 5)
    assert (row["shape"], row["spacing_mm"]) == ([9, 8, 7], [1, 2, 5])
    assert (row["first_slice"], row["n_slices"], row["height"], row["width"]) == (1, 3, 5, 4)
    assert (row["modalities"], row["source_bytes"]) == (["flair"], 15)


def test_the_row_of_an_unlabelled_case_has_nulls_where_the_reference_would_count() -> None:
    row = case_row(case_of(flair=image(0, np.int16, 1, 99)).describe())
    missing = [name for name, value in row.items() if value is None]
    assert missing == [
        *("n_voxels_ncr", "n_voxels_ed", "n_voxels_et"),
        *("volume_ml_wt", "volume_ml_tc", "volume_ml_et"),
        *COUNT_COLUMNS,
    ]


def test_the_row_of_a_case_has_its_warnings() -> None:
    case = dataclasses.replace(case_of(flair=image(0, np.int16, 1, 99)), warnings=("case_flair.nii.gz: odd",))
    assert case_row(json.loads(json.dumps(case.describe())))["warnings"] == ["case_flair.nii.gz: odd"]


def test_the_row_of_a_case_of_before_planes_were_counted_has_nulls_there() -> None:
    described = case_of(labels=labels_of(1, 2, 3), flair=image(0, np.int16, 1, 99)).describe()
    first, *later = COUNT_COLUMNS
    row = case_row({name: value for name, value in described.items() if name not in later})
    assert row[first] == [1, 2, 3]
    assert [row[name] for name in later] == [None] * 5


def test_the_row_of_a_case_without_tumour_has_zeros() -> None:
    row = case_row(case_of(labels=labels_of(0, 0, 0), flair=image(0, np.int16, 1, 99)).describe())
    assert (row["n_voxels_et"], row["volume_ml_wt"], row["tumour_per_slice"]) == (0, 0, [0, 0, 0])


# The folder


def test_row_comes_back_from_the_table_with_the_columns_that_it_has(tmp_path: Path) -> None:
    row = case_row(case_of("a", labels_of(), flair=image(0, np.int16, 1, 99)).describe())
    assert not is_prepared(str(tmp_path))
    storage.write_table(cases_path(str(tmp_path)), PREPARED_CASES, PREPARED_CASES.table([row]))
    assert is_prepared(str(tmp_path))
    assert read_case_table(str(tmp_path)) == [{**row, "split": None, "fold": None}]


def test_folder_without_a_table_is_not_a_prepared_dataset(tmp_path: Path) -> None:
    with pytest.raises(BratsError, match=rf"^{tmp_path}: not a prepared dataset \(it has no cases\.parquet\)$"):
        read_case_table(str(tmp_path))


def test_case_lies_among_the_slices_of_its_dataset() -> None:
    assert slices_path("/prepared", "a-1") == "/prepared/slices/a-1.parquet"


@pytest.mark.parametrize("case_id", ["../../elsewhere", "/etc/x", ".hidden", "", "a/b", "a" * 201, "a\n"])
def test_case_id_that_leads_elsewhere_is_refused(case_id: str) -> None:
    with pytest.raises(StorageError, match="cannot name a file; prepare the cases again"):
        slices_path("/prepared", case_id)
