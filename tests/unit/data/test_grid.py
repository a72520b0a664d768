"""Grids: orientation and back, and whether two files lie on one grid."""

import json
import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from brats.data.cases import find_cases
from brats.data.grid import Grid, check_same_grid, from_ras, to_ras, turn_alike
from brats.data.volume import read_volume
from brats.errors import CaseError
from tests.support.saved_volumes import BRATS_AFFINE, VOXELS, grid_of, load, rotation, save
from tests.support.volumes import ORIENTATIONS, oriented_affine

WIDE = (240, 200, 2)


def test_an_lps_file_is_flipped_along_x_and_y(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "x.nii.gz"))
    np.testing.assert_array_equal(volume.voxels, VOXELS[::-1, ::-1, :])
    assert volume.voxels.dtype == np.int16
    assert (volume.slope, volume.inter) == (1, 0)
    assert volume.grid.shape == (2, 3, 4)
    np.testing.assert_array_equal(
        volume.grid.ras_affine, [[1, 0, 0, -1], [0, 1, 0, 237], [0, 0, 1, 0], [0, 0, 0, 1]]
    )


def test_an_ras_file_is_left_as_it_is(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "x.nii", affine=np.eye(4)))
    np.testing.assert_array_equal(volume.voxels, VOXELS)


@pytest.mark.parametrize("degrees", [0, 20])
@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_every_orientation_is_turned_as_nibabel_does_and_back(
    tmp_path: Path, order: tuple[int, ...], flips: tuple[int, ...], degrees: float
) -> None:
    file = save(tmp_path / "x.nii", affine=rotation(degrees) @ oriented_affine(order, flips))
    volume = read_volume(file)
    grid = volume.grid
    expected = nib.as_closest_canonical(load(file.path))
    np.testing.assert_array_equal(volume.voxels, np.asarray(expected.dataobj))
    np.testing.assert_allclose(grid.ras_affine, expected.affine, atol=1e-12)
    assert grid.ras_shape == volume.voxels.shape
    assert grid.spacing_xyz_mm == pytest.approx([2.0 ** order.index(axis) for axis in range(3)], abs=1e-6)
    assert grid.spacing_shw_mm == pytest.approx([4, 1, 2], abs=1e-6)  # of slices along the file's third axis
    np.testing.assert_array_equal(from_ras(volume.voxels, grid), VOXELS)
    np.testing.assert_array_equal(to_ras(VOXELS, grid), volume.voxels)


def test_turning_copies_nothing(tmp_path: Path) -> None:
    grid = grid_of(save(tmp_path / "x.nii"))
    assert np.shares_memory(to_ras(VOXELS, grid), VOXELS)
    assert np.shares_memory(from_ras(VOXELS, grid), VOXELS)


def test_a_grid_survives_json_exactly(tmp_path: Path) -> None:
    affine = rotation(33.3) @ oriented_affine((2, 0, 1), (1, -1, 1))
    grid = grid_of(save(tmp_path / "x.nii", affine=affine))
    assert Grid.from_json(json.loads(json.dumps(grid.to_json()))) == grid


def test_files_on_one_grid_agree(tmp_path: Path) -> None:
    flair, t1 = save(tmp_path / "x_flair.nii"), save(tmp_path / "x_t1.nii.gz")
    check_same_grid(flair, grid_of(flair), t1, grid_of(t1))


def test_files_on_one_grid_agree_whatever_the_order_of_their_axes(tmp_path: Path) -> None:
    flair = save(tmp_path / "x_flair.nii")
    turned = nib.as_closest_canonical(load(flair.path))
    t1 = save(tmp_path / "x_t1.nii", np.asarray(turned.dataobj).transpose(2, 0, 1), turned.affine[:, [2, 0, 1, 3]])
    check_same_grid(flair, grid_of(flair), t1, grid_of(t1))
    np.testing.assert_array_equal(read_volume(t1).voxels, read_volume(flair).voxels)


def test_shapes_that_differ_are_named_with_both_files(tmp_path: Path) -> None:
    flair, t1 = save(tmp_path / "x_flair.nii"), save(tmp_path / "x_t1.nii", VOXELS[:, :, :3])
    with pytest.raises(CaseError) as caught:
        check_same_grid(flair, grid_of(flair), t1, grid_of(t1))
    assert str(caught.value) == f"{t1.path}: shape (2, 3, 3), but x_flair.nii has (2, 3, 4)"


def agree(folder: Path, affine: Any, other_affine: Any, shape: tuple[int, int, int] = (2, 3, 4)) -> str:
    """What is said of a second file with another affine: "" where both lie on one grid."""
    voxels = np.arange(math.prod(shape), dtype=np.int16).reshape(shape)
    flair = save(folder / "x_flair.nii", voxels, affine)
    t1 = save(folder / "x_t1.nii", voxels, other_affine)
    volume = read_volume(flair)
    other = read_volume(t1).turned_like(volume.grid)
    try:
        check_same_grid(flair, volume.grid, t1, other.grid)
    except CaseError as error:
        return error.reason if error.path == t1.path else error.path
    np.testing.assert_array_equal(volume.voxels, other.voxels)
    return ""


@pytest.mark.parametrize("voxel_mm", [0.5, 1, 3])
@pytest.mark.parametrize(("voxels", "agrees"), [(0.004, True), (-0.049, True), (0.051, False), (-0.1, False)])
def test_files_may_lie_a_twentieth_of_a_voxel_apart(
    tmp_path: Path, voxels: float, agrees: bool, voxel_mm: float
) -> None:
    affine = BRATS_AFFINE @ np.diag([voxel_mm, voxel_mm, voxel_mm, 1])
    shifted = affine.copy()
    shifted[2, 3] += voxels * voxel_mm
    assert (agree(tmp_path, affine, shifted) == "") == agrees


def test_a_shift_is_given_in_mm_and_voxels(tmp_path: Path) -> None:
    affine = np.diag([0.5, 2, 4, 1])
    shifted = affine.copy()
    shifted[1, 3] += 0.2
    assert agree(tmp_path, affine, shifted) == (
        "its affine differs from that of x_flair.nii: a corner of the volume lies 0.2 mm (0.4 voxels) off, at most "
        "0.05 are accepted; resample one to the other's grid"
    )


def test_small_rotations_and_voxel_sizes_are_judged_at_the_corners(tmp_path: Path) -> None:
    degrees = np.rad2deg(1e-3)  # at 240 voxels from the origin: 0.24 voxels
    assert "(0.312 voxels) off" in agree(tmp_path, np.eye(4), rotation(degrees), WIDE)
    assert agree(tmp_path, np.eye(4), rotation(degrees / 10), WIDE) == ""
    assert "(0.24 voxels) off" in agree(tmp_path, np.eye(4), np.diag([1.001, 1, 1, 1]), WIDE)


def test_voxel_sizes_rounded_to_four_decimals_are_accepted(tmp_path: Path) -> None:
    exact = np.diag([240 / 256, 1 / 1.1, 1.23456, 1])
    assert agree(tmp_path, exact, np.round(exact, 4), WIDE) == ""


@pytest.mark.parametrize("off", [1e-7, -1e-7, 1e-6, -1e-5])
@pytest.mark.parametrize("axis_order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_files_at_45_degrees_are_turned_alike_whatever_rounding_does(
    tmp_path: Path, off: float, axis_order: tuple[int, ...]
) -> None:
    oblique, other = BRATS_AFFINE @ rotation(45 - off), BRATS_AFFINE @ rotation(45 + off)
    flair = save(tmp_path / "x_flair.nii", affine=oblique)
    t1 = save(tmp_path / "x_t1.nii", VOXELS.transpose(axis_order), other[:, [*axis_order, 3]])
    volume = read_volume(flair)
    turned = read_volume(t1).turned_like(volume.grid)
    check_same_grid(flair, volume.grid, t1, turned.grid)
    np.testing.assert_array_equal(turned.voxels, volume.voxels)
    np.testing.assert_array_equal(from_ras(turned.voxels, turned.grid), VOXELS.transpose(axis_order))
    labels, grid = turn_alike(read_volume(t1).voxels, grid_of(t1), volume.grid)
    np.testing.assert_array_equal(labels, volume.voxels)
    assert grid == turned.grid


def test_a_grid_keeps_its_orientation_in_json(tmp_path: Path) -> None:
    first = grid_of(save(tmp_path / "x.nii", affine=BRATS_AFFINE @ rotation(44.9)))
    second = grid_of(save(tmp_path / "y.nii", affine=BRATS_AFFINE @ rotation(45.1)))
    assert first.orientation.tolist() != second.orientation.tolist()
    turned = Grid.from_json(json.loads(json.dumps(second.turned_like(first).to_json())))
    assert turned.orientation.tolist() == first.orientation.tolist()
    assert turned.affine == second.affine


def test_a_flipped_affine_differs(tmp_path: Path) -> None:
    flair, t1 = save(tmp_path / "x_flair.nii"), save(tmp_path / "x_t1.nii", affine=np.eye(4))
    with pytest.raises(CaseError, match=r"lies 237 mm \(237 voxels\) off"):
        check_same_grid(flair, grid_of(flair), t1, grid_of(t1))


@pytest.mark.parametrize(
    ("affine", "what"),
    [
        (np.eye(4), "identity affine"),
        (np.diag([-1, -1, 1, 1]), "identity affine"),
        (np.diag([1, 1, 2, 1]), "an affine of voxel sizes alone"),
        (None, "no affine in it"),
    ],
    ids=["identity", "identity of DICOM", "voxel sizes", "none"],
)
def test_a_lost_header_is_named_with_the_file_that_has_the_right_one(
    tmp_path: Path, affine: Any, what: str
) -> None:
    assert agree(tmp_path, BRATS_AFFINE, affine).endswith(
        f"; its header seems lost ({what}): copy the header of x_flair.nii"
    )
    assert agree(tmp_path, affine, BRATS_AFFINE).endswith(
        f"; the header of x_flair.nii seems lost ({what}): copy the header of x_t1.nii"
    )


def test_a_lost_header_of_turned_axes_is_named_beside_the_shapes(tmp_path: Path) -> None:
    turned = BRATS_AFFINE[:, [2, 0, 1, 3]]  # the first axis of the file runs upwards
    flair, t1 = save(tmp_path / "x_flair.nii", VOXELS, turned), save(tmp_path / "x_t1.nii", affine=np.eye(4))
    with pytest.raises(CaseError) as caught:
        check_same_grid(flair, grid_of(flair), t1, grid_of(t1))
    assert caught.value.reason == (
        "shape (2, 3, 4), but x_flair.nii has (3, 4, 2); its header seems lost (identity affine): copy the header "
        "of x_flair.nii"
    )


def test_two_files_that_both_lost_their_headers_are_not_told_to_copy_one(tmp_path: Path) -> None:
    assert agree(tmp_path, np.eye(4), np.diag([9, 9, 9, 1])).endswith("; resample one to the other's grid")


@pytest.mark.real
def test_the_files_of_every_real_case_lie_on_one_grid(real_data_dir: str) -> None:
    for case in find_cases(real_data_dir).cases:
        first, *others = case.images.values()
        assert case.segmentation is not None
        for other in (*others, case.segmentation):
            check_same_grid(first, grid_of(first), other, grid_of(other))
