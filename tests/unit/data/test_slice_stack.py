"""Volumes put together from files of single slices."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from brats.data.slice_stack import read_stack, stack_grid
from brats.data.sources import content_hash
from brats.errors import CaseError
from brats.labels import ED, ET, NCR
from brats.storage import FileInfo
from tests.support.hdf5_files import IMAGE, MASK, hdf5_slice

ONE_EACH = np.eye(3, dtype=np.uint8)[np.arange(120).reshape(12, 10) % 3]
"""Masks of which each pixel is in one."""


def written(folder: Path, *contents: bytes) -> list[FileInfo]:
    files = []
    for number, content in enumerate(contents):
        path = folder / f"volume_1_slice_{number}.h5"
        path.write_bytes(content)
        files.append(FileInfo(str(path), len(content)))
    return files


def refused(folder: Path, image: npt.NDArray[np.float64] = IMAGE, mask: npt.NDArray[np.uint8] = ONE_EACH) -> str:
    """The reason why a second slice like this is refused."""
    files = written(folder, hdf5_slice(IMAGE, ONE_EACH), hdf5_slice(image, mask))
    with pytest.raises(CaseError) as error:
        read_stack(files)
    assert error.value.path == files[1].path
    return error.value.reason


def test_slices_are_stacked_in_order(tmp_path: Path) -> None:
    contents = [hdf5_slice(IMAGE + number, ONE_EACH) for number in range(3)]
    stack = read_stack(written(tmp_path, *contents))
    assert stack.images.dtype == np.float32
    for number in range(3):
        np.testing.assert_array_equal(stack.images[2, number].T, np.float32(IMAGE[:, :, 2] + number))
    assert stack.hashes == tuple(map(content_hash, contents))


def test_masks_stand_for_the_three_tissues(tmp_path: Path) -> None:
    stack = read_stack(written(tmp_path, hdf5_slice(IMAGE, ONE_EACH)))
    assert stack.labels[0].T[0, :4].tolist() == [NCR, ED, ET, NCR]


def test_grid_lies_as_brats_stores_its_volumes(tmp_path: Path) -> None:
    grid = stack_grid(read_stack(written(tmp_path, hdf5_slice(IMAGE, ONE_EACH))), (1, 2, 3))
    assert grid.shape == (12, 10, 1)
    np.testing.assert_array_equal(grid.affine, [[-1, 0, 0, 0], [0, -2, 0, 18], [0, 0, 3, 0], [0, 0, 0, 1]])
    assert grid.spacing_xyz_mm == (1, 2, 3)


def test_pixel_in_two_masks_is_refused(tmp_path: Path) -> None:
    both = int((MASK.sum(axis=2) > 1).sum())
    assert refused(tmp_path, mask=MASK) == f"{both} pixels are in two of its masks, which stand for NCR, ED and ET"


def test_mask_that_is_none_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, mask=255 * ONE_EACH) == "mask holds the value 255; each of its three masks is 0 or 1"


def test_slice_of_another_size_is_refused(tmp_path: Path) -> None:
    reason = refused(tmp_path, IMAGE[:6], ONE_EACH[:6])
    assert reason == "a slice of (6, 10) pixels, but volume_1_slice_0.h5 has (12, 10)"


def test_pixel_without_value_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, np.where(IMAGE.max() <= IMAGE, np.nan, IMAGE)).startswith("NaN or infinite pixels")
