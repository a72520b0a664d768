"""Probabilities as NIfTI: the values that nibabel reads, on the grid of the mask."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from brats.data.masks import write_probabilities
from brats.data.probability_maps import find_grids, has_probabilities, probability_maps
from brats.errors import CaseError
from tests.support.mha_files import mha

SHAPE = (4, 5, 6)
LEVELS = np.arange(120, dtype=np.uint8).reshape(SHAPE) * 2
LEVELS[0, 0, 1] = 255
TURNED = np.array([[0.0, -2, 0, 3], [1, 0, 0, -239], [0, 0, 1.5, 7], [0, 0, 0, 1]])


def write_mask(out: Path, case_id: str, shape: tuple[int, ...] = SHAPE) -> None:
    """A mask whose first axis runs to the front, with voxels of 1 x 2 x 1.5 mm."""
    (out / "nifti").mkdir(exist_ok=True)
    image = nib.Nifti1Image(np.zeros(shape, np.uint8), TURNED)
    image.set_qform(TURNED, 2)
    nib.save(image, out / "nifti" / f"{case_id}.nii.gz")


def maps_of(out: Path, case_id: str) -> dict[str, bytes]:
    return probability_maps(str(out), case_id, find_grids(str(out)).get(case_id))


def loaded(out: Path, name: str, content: bytes) -> Any:
    (out / name).write_bytes(content)
    return nib.load(out / name)


def values(image: Any) -> npt.NDArray[np.float64]:
    return np.asarray(image.get_fdata(), np.float64)


def test_nibabel_reads_the_probabilities_of_each_region_on_the_grid_of_the_mask(tmp_path: Path) -> None:
    write_mask(tmp_path, "a")
    write_probabilities(str(tmp_path), "a", {"WT": LEVELS, "TC": LEVELS // 2, "ET": LEVELS // 3})
    maps = maps_of(tmp_path, "a")
    assert list(maps) == ["a_wt.nii.gz", "a_tc.nii.gz", "a_et.nii.gz"]
    mask = nib.load(tmp_path / "nifti" / "a.nii.gz")
    for (name, content), levels in zip(maps.items(), (LEVELS, LEVELS // 2, LEVELS // 3), strict=True):
        image = loaded(tmp_path, name, content)
        np.testing.assert_allclose(values(image), levels / 255, rtol=0, atol=1e-7)
        np.testing.assert_array_equal(np.asarray(image.dataobj.get_unscaled()), levels)
        assert image.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(image.affine, mask.affine)
        np.testing.assert_array_equal(image.header.get_qform(), mask.header.get_qform())
        assert image.header["qform_code"] == mask.header["qform_code"] == 2


def test_no_probability_is_above_1(tmp_path: Path) -> None:
    write_mask(tmp_path, "a")
    write_probabilities(str(tmp_path), "a", {"WT": LEVELS})
    image = loaded(tmp_path, *maps_of(tmp_path, "a").popitem())
    assert 1 - 1e-7 < values(image).max() <= 1
    assert np.asarray(image.dataobj, np.float32).max() <= 1


def test_a_region_that_the_model_does_not_tell_has_no_file(tmp_path: Path) -> None:
    write_mask(tmp_path, "a")
    write_probabilities(str(tmp_path), "a", {"WT": LEVELS})
    assert list(maps_of(tmp_path, "a")) == ["a_wt.nii.gz"]


def test_the_grid_is_that_of_a_metaimage_where_the_mask_is_one(tmp_path: Path) -> None:
    (tmp_path / "nifti").mkdir()
    lines = {"Offset": "1 2 3", "ElementSpacing": "0.5 2 3"}
    (tmp_path / "nifti" / "a.mha").write_bytes(mha(np.zeros(SHAPE, np.uint8), **lines))
    write_probabilities(str(tmp_path), "a", {"WT": LEVELS})
    image = loaded(tmp_path, *maps_of(tmp_path, "a").popitem())
    np.testing.assert_allclose(values(image), LEVELS / 255, rtol=0, atol=1e-7)
    expected = [[-0.5, 0, 0, -1], [0, -2, 0, -2], [0, 0, 3, 3], [0, 0, 0, 1]]  # LPS to RAS
    np.testing.assert_array_equal(image.affine, expected)


def test_a_case_without_probabilities_or_mask_is_refused_with_the_option_that_adds_them(tmp_path: Path) -> None:
    write_mask(tmp_path, "a")
    with pytest.raises(CaseError, match=r"^it has no probabilities; run predict\.py again with --probabilities"):
        maps_of(tmp_path, "a")
    write_probabilities(str(tmp_path), "b", {"WT": LEVELS})
    with pytest.raises(CaseError, match=r"^it has no NIfTI mask, .*; run predict\.py again with --nifti and the"):
        maps_of(tmp_path, "b")


def test_probabilities_of_another_grid_than_the_mask_are_refused(tmp_path: Path) -> None:
    write_mask(tmp_path, "a", (4, 5, 7))
    write_probabilities(str(tmp_path), "a", {"WT": LEVELS})
    with pytest.raises(CaseError, match=r"a\.parquet: shape \(4, 5, 6\), but a\.nii\.gz has \(4, 5, 7\)"):
        maps_of(tmp_path, "a")


def test_grids_and_probabilities_are_found_by_their_files(tmp_path: Path) -> None:
    assert find_grids(str(tmp_path)) == {}
    assert not has_probabilities(str(tmp_path))
    write_mask(tmp_path, "a")
    (tmp_path / "nifti" / "b.mha").touch()
    (tmp_path / "nifti" / "labels_brats2018.txt").touch()
    write_probabilities(str(tmp_path), "a", {"WT": LEVELS})
    assert sorted(find_grids(str(tmp_path))) == ["a", "b"]
    assert has_probabilities(str(tmp_path))
