"""Submissions: names, grids and codes that a challenge takes, and the archive of them."""

import io
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brats.data.layouts import BRATS_SHAPE
from brats.data.submission import SHAPE_AFTER_TREATMENT, archive, doubled_scans, find_masks, read_mask
from brats.errors import CaseError
from tests.support.synthetic import save


def write_mask(out: Path, case_id: str, shape: tuple[int, int, int] = BRATS_SHAPE, code: int = 1) -> None:
    voxels = np.zeros(shape, np.uint8)
    voxels[-1, -1, -1] = code
    (out / "nifti").mkdir(exist_ok=True)
    save(voxels, str(out / "nifti" / f"{case_id}.nii.gz"))


@pytest.mark.parametrize(
    ("case_id", "coding", "shape"),
    [
        ("BraTS-GLI-00005-000", "brats2023", BRATS_SHAPE),
        ("BraTS2021_00001", "brats2018", BRATS_SHAPE),
        ("BraTS20_Validation_001", "brats2018", BRATS_SHAPE),
        ("BraTS-GLI-00005-100", "brats2024-gli", SHAPE_AFTER_TREATMENT),
    ],
)
def test_a_mask_as_a_challenge_asks_for_it_is_taken_as_it_is(
    case_id: str, coding: str, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    write_mask(tmp_path, case_id, shape)
    (file,) = find_masks(str(tmp_path)).values()
    assert read_mask(file, case_id, coding) == Path(file.path).read_bytes()


@pytest.mark.parametrize(
    ("case_id", "coding", "shape", "code", "reason"),
    [
        ("patient_7", "brats2018", BRATS_SHAPE, 1, "no challenge names its cases so"),
        ("BraTS-GLI-5-0", "brats2023", BRATS_SHAPE, 1, "no challenge names its cases so"),
        ("BraTS2021_00001", "brats2018", (240, 240, 154), 1, "grid 240 x 240 x 154, where .* 240 x 240 x 155;"),
        ("BraTS-GLI-00005-100", "brats2024-gli", BRATS_SHAPE, 1, "where the challenge asks for 182 x 218 x 182;"),
        ("BraTS2021_00001", "brats2018", BRATS_SHAPE, 3, "unknown label 3 in 1 voxels"),
    ],
)
def test_what_a_challenge_refuses_is_refused_with_the_file_and_the_value(
    case_id: str, coding: str, shape: tuple[int, int, int], code: int, reason: str, tmp_path: Path
) -> None:
    write_mask(tmp_path, case_id, shape, code)
    (file,) = find_masks(str(tmp_path)).values()
    with pytest.raises(CaseError, match=reason) as caught:
        read_mask(file, case_id, coding)
    assert caught.value.path == file.path


def test_only_masks_are_found_and_none_without_a_folder(tmp_path: Path) -> None:
    assert find_masks(str(tmp_path)) == {}
    (tmp_path / "nifti").mkdir()
    (tmp_path / "nifti" / "labels_brats2018.txt").touch()
    (tmp_path / "nifti" / "a.nii.gz").touch()
    assert list(find_masks(str(tmp_path))) == ["a"]


def test_one_patient_and_visit_of_two_challenges_is_found_twice() -> None:
    names = ["BraTS-GLI-00005-000", "BraTS-SSA-00005-000", "BraTS-GLI-00005-001", "BraTS2021_00005"]
    assert doubled_scans(names) == dict.fromkeys(names[:2], "00005-000")


def test_the_archive_has_the_masks_at_its_root_and_always_the_same_bytes(tmp_path: Path) -> None:
    write_mask(tmp_path, "BraTS-GLI-00005-000", (4, 5, 6))
    mask = (tmp_path / "nifti" / "BraTS-GLI-00005-000.nii.gz").read_bytes()
    content = archive({"BraTS-GLI-00005-001": b"other", "BraTS-GLI-00005-000": mask})
    assert content == archive({"BraTS-GLI-00005-000": mask, "BraTS-GLI-00005-001": b"other"})
    beside = archive({"BraTS-GLI-00005-000": mask}, [("probabilities/x.nii.gz", b"map")])
    with zipfile.ZipFile(io.BytesIO(beside)) as file:
        assert file.read("probabilities/x.nii.gz") == b"map"
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        assert file.namelist() == ["BraTS-GLI-00005-000.nii.gz", "BraTS-GLI-00005-001.nii.gz"]
        file.extractall(tmp_path)
    assert nib.load(tmp_path / "BraTS-GLI-00005-000.nii.gz").shape == (4, 5, 6)
