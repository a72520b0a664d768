"""The cases to predict: found in case folders and in prepared datasets, chosen by split, read."""

from pathlib import Path

import numpy as np
import pytest

from brats import storage
from brats.data.cases import CaseFiles, Hdf5Options, spacing_note
from brats.data.dataset import PREPARED_CASES, case_row, cases_path
from brats.data.items import PreparedCase, find_items, read_source
from brats.data.run_split import COLUMNS, SPLIT, split_path
from brats.data.slices import SliceFile
from brats.errors import BratsError, CaseError, ConfigError
from tests.support.prepared import MODALITIES, tiny_case, write_prepared
from tests.support.synthetic import write_case

SPLITS = {"a": "train", "b": "test"}


def described(path: str) -> dict[str, object]:
    return {**case_row(SliceFile(path).description), "patient_id": "p", "split": "val", "fold": 0}


@pytest.fixture
def prepared(tmp_path: Path) -> str:
    """A prepared dataset of the cases a and b, of one patient."""
    root = str(tmp_path / "prepared")
    paths = write_prepared(root, [tiny_case(case_id) for case_id in SPLITS])
    storage.write_table(cases_path(root), PREPARED_CASES, PREPARED_CASES.table([described(path) for path in paths]))
    return root


@pytest.fixture
def run(tmp_path: Path, prepared: str) -> str:
    """A run with a on its train and b on its test split."""
    root = str(tmp_path / "run")
    rows = [
        {**row, "split": SPLITS[row["case_id"]]}
        for row in storage.read_table(cases_path(prepared), PREPARED_CASES).to_pylist()
    ]
    storage.write_table(
        split_path(root), SPLIT, SPLIT.table([{name: row[name] for name in COLUMNS} for row in rows])
    )
    return root


def test_prepared_case_has_its_file_its_hash_and_the_patient_of_the_table(prepared: str) -> None:
    items, rejects, _ = find_items(prepared, "bundle", MODALITIES, "all")
    assert rejects == []
    assert [(item.case_id, item.patient_id, item.split) for item in items] == [("a", "p", None), ("b", "p", None)]
    source = items[0].source
    assert source == PreparedCase(path=f"{prepared}/slices/a.parquet", voxel_hash=tiny_case("a").voxel_hash)


def test_case_folder_has_its_files(tmp_path: Path) -> None:
    write_case(str(tmp_path), "case_0")
    (item,), rejects, _ = find_items(str(tmp_path), "bundle", MODALITIES, "all")
    assert rejects == []
    assert isinstance(item.source, CaseFiles)
    assert item.sources == item.source.sources(MODALITIES)
    assert [file.kind for file in item.sources] == [*MODALITIES, "seg"]


def test_folder_is_read_in_the_coding_asked_for_and_its_other_files_are_noted(tmp_path: Path) -> None:
    write_case(str(tmp_path), "BraTS-PED-00001-000", edition=2023)
    (tmp_path / "BraTS-PED-00001-000-seg-auto.nii.gz").write_bytes(b"x")
    with pytest.raises(BratsError, match="add --coding brats2023-ped"):
        find_items(str(tmp_path), "bundle", MODALITIES, "all")
    (item,), rejects, notes = find_items(str(tmp_path), "bundle", MODALITIES, "all", "brats2023-ped")
    assert isinstance(item.source, CaseFiles)
    assert item.source.coding == "brats2023-ped"
    assert rejects == []
    assert notes == ["1 NIfTI file belongs to no case: BraTS-PED-00001-000-seg-auto.nii.gz"]


def test_coding_of_prepared_cases_cannot_be_asked_for(prepared: str) -> None:
    with pytest.raises(ConfigError, match=r"^--coding: the cases of .* are prepared"):
        find_items(prepared, "bundle", MODALITIES, "all", "brats2024-ped")


def test_split_of_the_run_chooses_the_cases(prepared: str, run: str) -> None:
    (item,), _, _ = find_items(prepared, run, MODALITIES, "test")
    assert (item.case_id, item.split) == ("b", "test")


def test_rejects_are_those_of_the_split(tmp_path: Path, run: str) -> None:
    for case_id in SPLITS:
        write_case(str(tmp_path / "cases"), case_id, modalities=("t1",))
    write_case(str(tmp_path / "cases"), "c")
    assert [reject.case_id for reject in find_items(str(tmp_path / "cases"), run, MODALITIES, "all")[1]] == [
        "a",
        "b",
    ]
    write_case(str(tmp_path / "cases"), "b")
    items, rejects, _ = find_items(str(tmp_path / "cases"), run, MODALITIES, "test")
    assert [item.case_id for item in items] == ["b"]
    assert rejects == []


def test_split_is_refused_for_a_bundle_on_its_own(prepared: str) -> None:
    with pytest.raises(ConfigError, match=r"^--split: test is known only for a run of train.py; bundle has no"):
        find_items(prepared, "bundle", MODALITIES, "test")


def test_split_without_a_case_is_refused(prepared: str, run: str) -> None:
    with pytest.raises(ConfigError, match=r"none of its 2 usable cases is in the val split"):
        find_items(prepared, run, MODALITIES, "val")


def test_only_unusable_cases_are_refused_with_the_first_reason(tmp_path: Path) -> None:
    write_case(str(tmp_path), "case_0", modalities=("t1",))
    with pytest.raises(BratsError, match=r"no usable case; the first of 1 rejected: case_0: .*lacks flair"):
        find_items(str(tmp_path), "bundle", MODALITIES, "all")


def test_prepared_case_is_read_as_it_was_written(prepared: str) -> None:
    case = read_source(PreparedCase(path=f"{prepared}/slices/a.parquet", voxel_hash=""), MODALITIES)
    for name, image in tiny_case("a").images.items():
        np.testing.assert_array_equal(case.images[name], image)


@pytest.mark.parametrize("content", [None, b"not a table"])
def test_prepared_file_that_cannot_be_read_is_a_transient_error_of_its_case(
    content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    if content:
        path.write_bytes(content)
    with pytest.raises(CaseError) as refused:
        read_source(PreparedCase(path=str(path), voxel_hash=""), MODALITIES)
    assert refused.value.path == str(path)
    assert refused.value.transient


def test_modality_that_a_prepared_case_lacks_is_no_passing_fault(prepared: str) -> None:
    with pytest.raises(CaseError, match="no t2; the case has flair, t1ce") as refused:
        read_source(PreparedCase(path=f"{prepared}/slices/a.parquet", voxel_hash=""), ("t2",))
    assert not refused.value.transient


@pytest.mark.parametrize(
    ("hdf5", "option"),
    [
        (Hdf5Options(channels=("flair", "t1", "t1ce", "t2")), "--hdf5-channels"),
        (Hdf5Options(spacing_hwz_mm=(1.0, 1.0, 2.0)), "--hdf5-spacing-mm"),
    ],
)
def test_options_of_slices_are_refused_for_cases_that_are_prepared(
    prepared: str, hdf5: Hdf5Options, option: str
) -> None:
    with pytest.raises(ConfigError, match=f"{option}: the cases of {prepared} are prepared; leave {option} out"):
        find_items(prepared, "bundle", MODALITIES, "all", hdf5=hdf5)


def test_voxel_size_that_no_file_states_is_noted_of_prepared_cases_too(prepared: str) -> None:
    assert find_items(prepared, "bundle", MODALITIES, "all").notes == []
    rows = storage.read_table(cases_path(prepared), PREPARED_CASES).to_pylist()
    rows[0] |= {"layout": "hdf5-slices", "spacing_mm": [1.0, 1.0, 2.5]}
    storage.write_table(cases_path(prepared), PREPARED_CASES, PREPARED_CASES.table(rows))
    (note,) = find_items(prepared, "bundle", MODALITIES, "all").notes
    assert note == spacing_note((1, 1, 2.5))
    assert "ml and mm of its cases are of voxels of 1 x 1 x 2.5 mm" in note
