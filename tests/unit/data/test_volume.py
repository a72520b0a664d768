"""Volumes in RAS+: checks of values, labels, and masks on the source's grid."""

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from brats.data.cases import find_cases
from brats.data.codings import CODINGS
from brats.data.grid import Grid, from_ras
from brats.data.volume import mask_bytes, nifti_bytes, read_channels, read_segmentation, read_volume
from brats.errors import CaseError
from brats.labels import ED, ET, NCR, Labels
from brats.storage import FileInfo
from tests.support.mha_files import mha
from tests.support.saved_volumes import BRATS_AFFINE, VOXELS, grid_of, load, rotation, save
from tests.support.volumes import oriented_affine


def read_labels(file: FileInfo, coding: str) -> tuple[Labels, Grid]:
    """The labels (X, Y, Z) in RAS+ and the grid of a segmentation."""
    found = read_segmentation(file, coding)
    return found.labels, found.grid


def test_scaling_is_kept_apart_from_the_stored_numbers(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS, BRATS_AFFINE)
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([0.5, -3], "<f4").tobytes()  # scl_slope, scl_inter
    path = tmp_path / "x.nii"
    path.write_bytes(content)
    volume = read_volume(FileInfo(str(path), len(content)))
    assert (volume.slope, volume.inter) == (0.5, -3)
    np.testing.assert_array_equal(volume.voxels, VOXELS[::-1, ::-1, :])


def test_nan_and_infinite_voxels_are_counted(tmp_path: Path) -> None:
    voxels = VOXELS.astype(np.float32)
    voxels[0, 0] = [np.nan, np.nan, np.inf, 1]
    file = save(tmp_path / "x.nii.gz", voxels)
    with pytest.raises(CaseError) as caught:
        read_volume(file)
    assert str(caught.value) == f"{file.path}: 2 NaN and 1 infinite voxels of 24; set those that have no value to 0"


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_one_voxel_that_is_not_finite_is_enough(tmp_path: Path, value: float) -> None:
    voxels = np.ones((2, 3, 4), np.float64)
    voxels[1, 2, 3] = value
    with pytest.raises(CaseError, match=r"[01] NaN and [01] infinite voxels of 24"):
        read_volume(save(tmp_path / "x.nii.gz", voxels))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_an_image_that_is_zero_everywhere_is_refused(tmp_path: Path, dtype: Any) -> None:
    with pytest.raises(CaseError, match=r"x\.nii\.gz: every voxel is 0"):
        read_volume(save(tmp_path / "x.nii.gz", np.zeros((2, 3, 4), dtype)))


def test_an_image_that_the_header_scales_to_zero_is_refused(tmp_path: Path) -> None:
    content = bytearray(nib.Nifti1Image(np.full((2, 3, 4), 6, np.int16), BRATS_AFFINE).to_bytes())
    content[112:120] = np.array([0.5, -3], "<f4").tobytes()
    path = tmp_path / "x.nii"
    path.write_bytes(content)
    with pytest.raises(CaseError, match="every voxel is 0"):
        read_volume(FileInfo(str(path), len(content)))


@pytest.mark.parametrize("value", [-1, 1])
def test_one_voxel_that_is_not_zero_makes_an_image(tmp_path: Path, value: int) -> None:
    voxels = np.zeros((2, 3, 4), np.int16)
    voxels[0, 1, 2] = value
    assert read_volume(save(tmp_path / "x.nii.gz", voxels)).voxels.sum() == value


def codes_2020() -> npt.NDArray[np.uint8]:
    codes = np.zeros((2, 3, 4), np.uint8)
    codes[0, 0] = [0, 1, 2, 4]
    return codes


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_labels_are_decoded_from_any_number_type(tmp_path: Path, dtype: Any) -> None:
    labels, grid = read_labels(save(tmp_path / "x_seg.nii.gz", codes_2020().astype(dtype)), "brats2018")
    assert labels.dtype == np.uint8
    assert labels.shape == (2, 3, 4)
    assert labels[1, 2].tolist() == [0, NCR, ED, ET]  # (0, 0) of an LPS file
    assert np.count_nonzero(labels) == 3
    assert grid.shape == (2, 3, 4)


def test_labels_follow_the_scaling_of_the_header(tmp_path: Path) -> None:
    content = bytearray(nib.Nifti1Image(codes_2020() * 2 + 6, BRATS_AFFINE).to_bytes())
    content[112:120] = np.array([0.5, -3], "<f4").tobytes()
    path = tmp_path / "x_seg.nii"
    path.write_bytes(content)
    labels, _ = read_labels(FileInfo(str(path), len(content)), "brats2018")
    assert labels[1, 2].tolist() == [0, NCR, ED, ET]


def test_a_segmentation_without_tumour_is_fine(tmp_path: Path) -> None:
    labels, _ = read_labels(save(tmp_path / "x_seg.nii.gz", np.zeros((2, 3, 4), np.uint8)), "brats2023")
    assert not labels.any()


@pytest.mark.parametrize(("value", "said"), [(7, "7"), (-1, "-1"), (np.nan, "nan"), (np.inf, "inf")])
def test_an_unknown_label_is_named_with_its_count(tmp_path: Path, value: float, said: str) -> None:
    codes = codes_2020().astype(np.float32)
    codes[1, 1, :2] = value
    file = save(tmp_path / "x_seg.nii.gz", codes)
    with pytest.raises(CaseError) as caught:
        read_labels(file, "brats2018")
    assert str(caught.value) == (f"{file.path}: unknown label {said} in 2 voxels; brats2018 defines [0, 1, 2, 4]")


def scaled(path: Path, raw: npt.NDArray[Any], slope: float, inter: float) -> FileInfo:
    """A file of these raw values, and this scaling in its header."""
    content = bytearray(nib.Nifti1Image(raw, BRATS_AFFINE).to_bytes())
    content[112:120] = np.array([slope, inter], "<f4").tobytes()
    path.write_bytes(content)
    return FileInfo(str(path), len(content))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("towards", [0, 9])
def test_labels_one_rounding_off_their_codes_are_rounded_and_counted(
    tmp_path: Path, dtype: Any, towards: float
) -> None:
    codes = np.nextafter(codes_2020().astype(dtype), dtype(towards))
    found = read_segmentation(save(tmp_path / "x_seg.nii.gz", codes), "brats2018")
    assert found.labels[1, 2].tolist() == [0, NCR, ED, ET]
    assert np.count_nonzero(found.labels) == 3
    assert found.n_rounded == np.count_nonzero(codes != codes_2020())


def test_whole_labels_are_not_rounded(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.int16, np.float32):
        file = save(tmp_path / f"x_{np.dtype(dtype)}.nii", codes_2020().astype(dtype))
        assert read_segmentation(file, "brats2018").n_rounded == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_floats_that_nibabel_saved_as_whole_numbers_with_a_slope_are_rounded(tmp_path: Path, dtype: Any) -> None:
    image = nib.Nifti1Image(codes_2020().astype(float), BRATS_AFFINE)
    image.header.set_data_dtype(dtype)
    nib.save(image, tmp_path / "x_seg.nii.gz")  # as bytes, 1 is 1.0039
    found = read_segmentation(FileInfo(str(tmp_path / "x_seg.nii.gz"), 1), "brats2018")
    assert found.labels[1, 2].tolist() == [0, NCR, ED, ET]
    assert found.n_rounded >= 2


def test_steps_too_coarse_to_tell_codes_by_are_not_rounded(tmp_path: Path) -> None:
    raw = np.array([[[0, 8, 16]]], np.uint8)
    with pytest.raises(CaseError, match=r"unknown label 0\.9[56]\d* in 1 voxels"):  # 8 steps of 0.12
        read_segmentation(scaled(tmp_path / "x_seg.nii", raw, 0.12, 0), "brats2018")


def test_a_label_off_by_more_is_shown_in_full(tmp_path: Path) -> None:
    codes = codes_2020().astype(np.float32)
    codes[0, 0, 1] = 0.9985
    file = save(tmp_path / "x_seg.nii.gz", codes)
    with pytest.raises(CaseError) as caught:
        read_labels(file, "brats2018")
    assert caught.value.reason == (
        "unknown label 0.9985 in 1 voxels; brats2018 defines [0, 1, 2, 4]; a code may be 0.001 off"
    )


def test_an_interpolated_segmentation_is_called_so(tmp_path: Path) -> None:
    codes = codes_2020().astype(np.float64)
    codes[1, 0] = [0.25, 0.25, 1.5, 3]
    with pytest.raises(CaseError) as caught:
        read_labels(save(tmp_path / "x_seg.nii.gz", codes), "brats2018")
    assert caught.value.reason == (
        "unknown label 0.25 in 2 voxels; brats2018 defines [0, 1, 2, 4]; 2 of its values lie between whole "
        "numbers, so it looks interpolated: resample segmentations with nearest neighbour"
    )


def test_absurd_scaling_of_labels_is_refused_without_a_warning(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"unknown label inf in 1 voxels"):
        read_labels(scaled(tmp_path / "x_seg.nii", np.eye(1)[None] * 1e308, 3e38, 0), "brats2018")


def test_a_4_in_a_2023_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"unknown label 4 in 1 voxels; .* resection cavity after treatment"):
        read_labels(save(tmp_path / "x-seg.nii.gz", codes_2020()), "brats2023")


def headers() -> dict[str, nib.Nifti1Header]:
    """Headers that place a volume in space in each of the ways NIfTI has."""
    affine = rotation(20) @ oriented_affine((1, 2, 0), (-1, 1, 1))
    by_name = {name: nib.Nifti1Header() for name in ("sform", "qform", "both", "neither")}
    by_name["sform"].set_sform(affine, code=4)
    by_name["qform"].set_qform(affine, code=1)
    by_name["both"].set_sform(affine, code=2)
    by_name["both"].set_qform(BRATS_AFFINE, code=1)
    by_name["both"].set_xyzt_units("mm", "sec")
    by_name["neither"]["pixdim"][1:4] = (1, 2, 3)
    return by_name


@pytest.mark.parametrize("name", headers())
def test_a_written_mask_overlays_its_source(tmp_path: Path, name: str) -> None:
    source = nib.Nifti1Image(codes_2020(), None, headers()[name])
    nib.save(source, tmp_path / "x_seg.nii.gz")
    path = str(tmp_path / "x_seg.nii.gz")
    source = load(path)
    labels, grid = read_labels(FileInfo(path, 0), "brats2018")
    grid = Grid.from_json(json.loads(json.dumps(grid.to_json())))
    content = nifti_bytes(from_ras(labels, grid), grid, "brats2018")
    written = nib.Nifti1Image.from_bytes(gzip.decompress(content))
    np.testing.assert_array_equal(np.asarray(written.dataobj), codes_2020())
    np.testing.assert_array_equal(written.affine, source.affine)
    for form in ("get_sform", "get_qform"):
        (matrix, code), (source_matrix, source_code) = (
            getattr(image, form)(coded=True) for image in (written, source)
        )
        assert code == source_code
        np.testing.assert_array_equal(matrix, source_matrix)
    np.testing.assert_array_equal(written.header["pixdim"], source.header["pixdim"])
    assert written.header["xyzt_units"] == source.header["xyzt_units"]


@pytest.mark.parametrize(("layout", "code_of_et"), [("brats2018", 4), ("brats2023", 3)])
def test_a_written_mask_has_the_codes_of_its_layout(tmp_path: Path, layout: str, code_of_et: int) -> None:
    grid = grid_of(save(tmp_path / "x.nii"))
    labels = np.zeros((2, 3, 4), np.uint8)
    labels[0, 0] = [0, NCR, ED, ET]
    written = nib.Nifti1Image.from_bytes(gzip.decompress(nifti_bytes(from_ras(labels, grid), grid, layout)))
    assert np.asarray(written.dataobj)[1, 2].tolist() == [0, 1, 2, code_of_et]
    assert written.get_data_dtype() == np.uint8


@pytest.mark.real
def test_every_real_image_equals_what_nibabel_reads(real_data_dir: str) -> None:
    for case in find_cases(real_data_dir).cases:
        for file in case.images.values():
            volume = read_volume(file)
            expected = nib.as_closest_canonical(load(file.path))
            stored = np.asarray(expected.dataobj)
            assert volume.voxels.dtype == stored.dtype
            np.testing.assert_array_equal(volume.voxels, stored)
            np.testing.assert_array_equal(volume.grid.ras_affine, expected.affine)
            assert list(volume.grid.spacing_xyz_mm) == [1, 1, 1]
            assert list(volume.grid.shape) == [240, 240, 155]


@pytest.mark.real
def test_every_real_reference_mask_is_written_as_it_was_read(real_data_dir: str) -> None:
    for case in find_cases(real_data_dir).cases:
        assert case.segmentation is not None
        source = load(case.segmentation.path)
        labels, grid = read_labels(case.segmentation, case.coding)
        content = nifti_bytes(from_ras(labels, grid), grid, case.coding)
        written = nib.Nifti1Image.from_bytes(gzip.decompress(content))
        np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(source.dataobj))
        np.testing.assert_array_equal(from_ras(CODINGS[case.coding].encode(labels), grid), source.dataobj)
        np.testing.assert_array_equal(written.affine, source.affine)
        for field in ("dim", "pixdim", "sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_d"):
            np.testing.assert_array_equal(written.header[field], source.header[field])


def test_mask_of_a_metaimage_grid_is_one_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.mha"
    path.write_bytes(mha(VOXELS, ElementSpacing="1 2 3.5", Offset="5 6 -7"))
    grid = read_volume(FileInfo(str(path), path.stat().st_size)).grid
    grid = Grid.from_json(json.loads(json.dumps(grid.to_json())))
    assert list(grid.spacing_xyz_mm) == [1, 2, 3.5]
    labels = (VOXELS % 4).astype(np.uint8)
    path.write_bytes(mask_bytes(labels, grid, "brats2018"))
    assert b"ElementSpacing = 1 2 3.5\n" in path.read_bytes()
    found, found_grid = read_labels(FileInfo(str(path), 0), "brats2018")
    np.testing.assert_array_equal(from_ras(found, found_grid), labels)
    assert found_grid.affine == grid.affine


def test_mask_of_a_nifti_grid_is_nifti(tmp_path: Path) -> None:
    grid = read_volume(save(tmp_path / "x.nii.gz")).grid
    labels = (VOXELS % 4).astype(np.uint8)
    assert mask_bytes(labels, grid, "brats2018") == nifti_bytes(labels, grid, "brats2018")


def test_channels_of_a_4d_image_are_volumes_in_their_order(tmp_path: Path) -> None:
    file = save(tmp_path / "x.nii.gz", np.stack([VOXELS, VOXELS + 100, -VOXELS], axis=3))
    volumes = read_channels(file, 3)
    for volume, expected in zip(volumes, (VOXELS, VOXELS + 100, -VOXELS), strict=True):
        np.testing.assert_array_equal(from_ras(volume.voxels, volume.grid), expected)
        assert volume.grid.shape == (2, 3, 4)


@pytest.mark.parametrize(("n_stored", "n_asked"), [(3, 4), (4, 3), (1, 4)])
def test_another_number_of_channels_is_refused(tmp_path: Path, n_stored: int, n_asked: int) -> None:
    file = save(tmp_path / "x.nii.gz", np.stack([VOXELS] * n_stored, axis=3))
    with pytest.raises(CaseError, match=f"where {n_asked} volumes are expected"):
        read_channels(file, n_asked)


def test_values_of_a_channel_are_checked(tmp_path: Path) -> None:
    file = save(tmp_path / "x.nii.gz", np.stack([VOXELS, 0 * VOXELS], axis=3))
    with pytest.raises(CaseError, match="every voxel is 0"):
        read_channels(file, 2)
