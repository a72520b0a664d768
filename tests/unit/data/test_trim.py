"""Images cut down to their brain as they are read: the box, what is kept, and the crop of any box around it."""

from dataclasses import replace

import numpy as np
import pytest

from brats.data.background import Background
from brats.data.case import Box, crop
from brats.data.grid import turn_alike
from brats.data.trim import brain_box, trim, used_box, whole_box
from brats.labels import ET, NCR
from tests.support.volumes import ORIENTATIONS, grid_of, oriented_grid, stored, volume_of

SHAPE = (6, 5, 4)
GRID = grid_of(SHAPE)
ZERO = Background(0)
HEAD = (24, 20, 16)


def test_the_box_is_the_smallest_around_every_mask() -> None:
    first, second = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    first[2, 1, 3] = True
    second[4, 2, 1] = True
    box = brain_box([used_box(first, GRID, ZERO), used_box(second, GRID, ZERO)])
    assert box == Box(start=(2, 1, 1), stop=(5, 3, 4))


def test_an_image_of_background_alone_leaves_the_box_to_the_others() -> None:
    empty, mask = np.zeros(SHAPE, np.int16), np.zeros(SHAPE, np.uint8)
    mask[2, 1, 3] = 1
    boxes = [used_box(empty, GRID, ZERO), used_box(mask, GRID, ZERO)]
    assert boxes[0] is None
    assert brain_box(boxes) == Box(start=(2, 1, 3), stop=(3, 2, 4))


def test_the_box_may_be_the_whole_volume_or_one_voxel() -> None:
    assert used_box(np.ones(SHAPE, bool), GRID, ZERO) == Box(start=(0, 0, 0), stop=SHAPE)
    mask = np.zeros(SHAPE, bool)
    mask[5, 4, 3] = True
    assert used_box(mask, GRID, ZERO) == Box(start=(5, 4, 3), stop=SHAPE)


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
@pytest.mark.parametrize(("dtype", "background"), [("int16", 0), ("int16", -7), ("float32", 0), ("float32", -0.1)])
def test_the_box_is_found_in_every_orientation(
    order: tuple[int, ...], flips: tuple[int, ...], dtype: str, background: float
) -> None:
    voxels = np.full((7, 9, 5), background, dtype)
    voxels[1, 2:6, 3], voxels[4, 7, 1] = 5, -3
    used = np.argwhere(voxels != voxels[0, 0, 0])
    expected = Box(start=(1, 2, 1), stop=(5, 8, 4))
    assert (list(expected.start), list(expected.stop)) == (used.min(0).tolist(), (used.max(0) + 1).tolist())
    grid = oriented_grid((7, 9, 5), order, flips)
    assert used_box(stored(voxels, grid), grid, Background(float(voxels[0, 0, 0]))) == expected


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_the_box_of_labels_is_found_whatever_orientation_they_are_stored_in(
    order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    labels = np.zeros((7, 9, 5), np.uint8)
    labels[1, 2:6, 3], labels[4, 7, 1] = NCR, ET
    grid_of_images = oriented_grid((7, 9, 5), (2, 0, 1), (1, -1, 1))
    own_grid = oriented_grid((7, 9, 5), order, flips)
    assert used_box(stored(labels, own_grid), grid_of_images, ZERO) == Box(start=(1, 2, 1), stop=(5, 8, 4))


def test_without_any_voxel_there_is_no_box() -> None:
    assert used_box(np.full(SHAPE, 3, np.int16), GRID, Background(3)) is None
    assert used_box(np.zeros(SHAPE, bool), GRID, ZERO) is used_box(np.zeros(SHAPE, np.uint8), GRID, ZERO) is None
    assert brain_box([None, None]) is None


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
@pytest.mark.parametrize(("dtype", "background"), [("int16", 0), ("int16", -7), ("uint8", 9), ("float32", -0.5)])
def test_a_trimmed_image_gives_every_box_around_its_brain_as_the_whole_one_does(
    order: tuple[int, ...], flips: tuple[int, ...], dtype: str, background: float
) -> None:
    voxels = np.full((9, 10, 11), background, dtype)
    voxels[3:5, 2:7, 4:6] = np.arange(20).reshape(2, 5, 2) + 20
    grid = oriented_grid((9, 10, 11), order, flips)
    volume = volume_of(stored(voxels, grid), grid=grid)
    trimmed = trim(volume)
    assert trimmed.used == Box(start=(3, 2, 4), stop=(5, 7, 6))
    assert (trimmed.kept == trimmed.used) == (dtype != "float32")
    whole = Box(start=(0, 0, 0), stop=(9, 10, 11))
    for box in (trimmed.used, trimmed.kept, Box(start=(1, 2, 0), stop=(9, 10, 6)), whole):
        found = trimmed.crop(box)
        np.testing.assert_array_equal(found, crop(volume.voxels, box))
        assert found.dtype == voxels.dtype
        assert found.flags.c_contiguous


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_a_trimmed_image_turns_as_the_whole_one_does(order: tuple[int, ...], flips: tuple[int, ...]) -> None:
    shape = (9, 9, 9)  # that of every orientation
    voxels = np.zeros(shape, np.int16)
    voxels[3:5, 2:7, 4:6] = np.arange(20).reshape(2, 5, 2) + 20
    volume = volume_of(voxels)
    turned_grid = replace(volume.grid, axes=oriented_grid(shape, order, flips).axes)
    like = replace(turned_grid, affine=volume.grid.affine)
    expected, own = turn_alike(voxels, volume.grid, like)
    turned = trim(volume).turned_like(like)
    assert turned.volume.grid == own
    assert turned.used == turned.kept == used_box(expected, own, ZERO)
    np.testing.assert_array_equal(turned.crop(whole_box(own)), crop(expected, whole_box(own)))


def test_of_an_image_with_noise_around_the_brain_nothing_is_left_out() -> None:
    voxels = np.random.default_rng(0).integers(0, 3, HEAD, np.int16)
    voxels[8:16, 8:14, 6:10] = 1000
    trimmed = trim(volume_of(voxels))
    assert trimmed.background.tolerance > 0
    assert trimmed.used == Box(start=(8, 8, 6), stop=(16, 14, 10))
    whole = Box(start=(0, 0, 0), stop=HEAD)
    assert trimmed.kept == whole
    np.testing.assert_array_equal(trimmed.crop(whole), crop(voxels, whole))
