"""References without their images: on the grid of an image of the case, which has the grid of its masks."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brats.data.cases import CaseFiles, find_cases
from brats.data.grid import Grid
from brats.data.items import PreparedCase
from brats.data.preprocess import read_case
from brats.data.references import read_on_image_grid
from brats.errors import CaseError
from brats.labels import ED, ET, NCR, Labels
from tests.support.prepared import SHAPE, tiny_case, write_prepared
from tests.support.volumes import ORIENTATIONS, oriented_affine

CODES = np.random.default_rng(0).choice(np.array([0, 0, 1, 2, 4], np.uint8), (6, 5, 4))  # without any symmetry
LABELS = np.array([0, NCR, ED, 0, ET], np.uint8)[CODES]


def write_files(folder: Path, order: tuple[int, ...] = (0, 1, 2), flips: tuple[int, ...] = (1, 1, 1)) -> CaseFiles:
    """A case whose segmentation is stored in RAS+ and its image in one of `ORIENTATIONS`."""
    segmentation = nib.Nifti1Image(CODES, np.diag([1.0, 2, 4, 1]))
    nib.save(segmentation, folder / "case_seg.nii.gz")
    image = nib.Nifti1Image(np.arange(1, 1 + CODES.size, dtype=np.int16).reshape(CODES.shape), segmentation.affine)
    target = nib.orientations.io_orientation(oriented_affine(order, flips))
    nib.save(
        image.as_reoriented(nib.orientations.ornt_transform(target, [[0, 1], [1, 1], [2, 1]])),
        folder / "case_flair.nii.gz",
    )
    (files,) = find_cases(str(folder), ()).cases
    return files


def labels_and_grid(files: CaseFiles, modality: str) -> tuple[Labels, Grid]:
    found = read_on_image_grid(files, modality)
    assert found is not None
    return found.labels, found.grid


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS[::7])
def test_reference_lies_on_the_grid_of_the_image_as_the_predicted_mask_does(
    order: tuple[int, ...], flips: tuple[int, ...], tmp_path: Path
) -> None:
    files = write_files(tmp_path, order, flips)
    case = read_case(files, ("flair",))
    assert case.labels is not None
    labels, grid = labels_and_grid(files, "flair")
    np.testing.assert_array_equal(labels, case.on_source_grid(case.labels))
    assert grid == case.grid


def test_another_image_stands_for_one_that_is_not_there(tmp_path: Path) -> None:
    files = write_files(tmp_path, (2, 0, 1))
    assert labels_and_grid(files, "t1ce")[1] == labels_and_grid(files, "flair")[1]


def test_reference_without_an_image_lies_on_its_own_grid(tmp_path: Path) -> None:
    write_files(tmp_path, (2, 0, 1))
    (tmp_path / "case_flair.nii.gz").unlink()
    labels, grid = labels_and_grid(find_cases(str(tmp_path), ()).cases[0], "flair")
    np.testing.assert_array_equal(labels, LABELS)
    assert grid.spacing_shw_mm == (4, 1, 2)


def test_reference_of_a_prepared_case_is_its_segmentation_on_the_full_grid(tmp_path: Path) -> None:
    case = tiny_case()
    (path,) = write_prepared(str(tmp_path), [case])
    found = read_on_image_grid(PreparedCase(path=path, voxel_hash=""))
    assert found is not None
    assert case.labels is not None
    assert found.labels.shape == SHAPE
    np.testing.assert_array_equal(found.labels, case.on_source_grid(case.labels))


def test_case_without_a_segmentation_has_no_reference(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "case_seg.nii.gz").unlink()
    assert read_on_image_grid(find_cases(str(tmp_path), ()).cases[0]) is None


def test_reference_that_lies_elsewhere_than_the_image_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path)
    nib.save(nib.Nifti1Image(CODES, np.diag([1.0, 2, 5, 1])), tmp_path / "case_seg.nii.gz")
    with pytest.raises(CaseError, match=r"its affine differs from that of case_flair\.nii\.gz"):
        read_on_image_grid(find_cases(str(tmp_path), ()).cases[0], "flair")


def test_prepared_case_that_is_gone_may_come_back(tmp_path: Path) -> None:
    with pytest.raises(CaseError) as caught:
        read_on_image_grid(PreparedCase(path=str(tmp_path / "a.parquet"), voxel_hash=""))
    assert caught.value.transient
