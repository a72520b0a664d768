"""HDF5 files of one slice: what is read from good files, and what is said about bad ones."""

import io
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from brats.data.hdf5 import MAX_SLICE_FILE_BYTES, read_hdf5_slice
from brats.errors import CaseError
from brats.storage import FileInfo
from tests.support.hdf5_files import IMAGE, MASK, STORED, hdf5, hdf5_slice


def as_file(folder: Path, content: bytes) -> FileInfo:
    path = folder / "volume_1_slice_77.h5"
    path.write_bytes(content)
    return FileInfo(str(path), len(content))


def reason(folder: Path, content: bytes) -> str:
    """What is said of a file that is refused for good."""
    file = as_file(folder, content)
    with pytest.raises(CaseError) as caught:
        read_hdf5_slice(file)
    assert caught.value.path == file.path
    assert not caught.value.transient
    assert "\n" not in caught.value.reason
    return caught.value.reason


def with_dataset(**options: Any) -> bytes:
    """A file whose mask is right, and whose image is made with these options of h5py."""
    target = io.BytesIO()
    with h5py.File(target, "w") as file:
        file["mask"] = MASK
        file.create_dataset("image", **options)
    return target.getvalue()


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", ">f8"])
def test_images_come_back_in_their_own_precision_and_masks_as_bytes(
    tmp_path: Path, dtype: str, stored: str
) -> None:
    images = IMAGE.astype(dtype)
    image, mask = read_hdf5_slice(as_file(tmp_path, hdf5_slice(images, stored=stored)))
    assert image.dtype == np.dtype(dtype).newbyteorder("=")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(image, images)
    np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize("missing", ["image", "mask"])
def test_a_missing_name_is_named_beside_those_there_are(tmp_path: Path, missing: str) -> None:
    datasets = {"image": IMAGE, "mask": MASK, "other": MASK}
    del datasets[missing]
    expected = f"no dataset {missing!r} in it; it has {', '.join(sorted(datasets))}"
    assert reason(tmp_path, hdf5(datasets)) == expected


def test_a_file_without_datasets_is_refused(tmp_path: Path) -> None:
    assert reason(tmp_path, hdf5({})) == "no dataset 'image' in it; it has none"


@pytest.mark.parametrize("shape", [(12, 10, 3), (12, 10), (4, 12, 10), (1025, 1024, 4), (0, 10, 4), ()])
def test_an_image_of_another_shape_is_refused_before_memory_is_taken(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    expected = f"image has shape {shape}, where H x W x 4 with 1048576 pixels at most is expected"
    tracemalloc.start()
    try:
        content = with_dataset(shape=shape, dtype="f4", **({"chunks": True} if 1025 in shape else {}))
        assert reason(tmp_path, content) == expected
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_image_and_mask_of_different_sizes_are_refused(tmp_path: Path) -> None:
    expected = "image has shape (12, 10, 4), but mask has (12, 9, 3)"
    assert reason(tmp_path, hdf5_slice(mask=MASK[:, :9])) == expected


@pytest.mark.parametrize("dtype", ["i2", "f2", "u1", "S3"])
def test_an_image_of_another_type_is_refused(tmp_path: Path, dtype: str) -> None:
    assert reason(tmp_path, hdf5_slice(IMAGE.astype(dtype))).startswith("image is of type ")
    assert reason(tmp_path, hdf5_slice(mask=MASK.astype(np.int64))).startswith("mask is of type <i8, where ")


def test_a_group_in_place_of_a_dataset_is_refused(tmp_path: Path) -> None:
    target = io.BytesIO()
    with h5py.File(target, "w") as file:
        file.create_group("image")
    assert reason(tmp_path, target.getvalue()) == "image is no dataset"


def test_links_to_other_files_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other.h5").write_bytes(hdf5_slice())
    target = io.BytesIO()
    with h5py.File(target, "w") as file:
        file["image"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "image")
        file["mask"] = MASK
    assert reason(tmp_path, target.getvalue()) == "no dataset 'image' in it; it has image, mask"


def test_a_dataset_that_lies_in_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "voxels").write_bytes(IMAGE.tobytes())
    content = with_dataset(
        shape=IMAGE.shape, dtype="f8", external=[(str(tmp_path / "voxels"), 0, h5py.h5f.UNLIMITED)]
    )
    assert reason(tmp_path, content) == "image lies in another file; save it in this one"
    target = io.BytesIO()
    with h5py.File(target, "w") as file:
        layout = h5py.VirtualLayout(IMAGE.shape, "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "image", IMAGE.shape)
        file.create_virtual_dataset("image", layout)
    assert reason(tmp_path, target.getvalue()) == "image lies in another file; save it in this one"


def test_images_that_were_never_written_are_refused(tmp_path: Path) -> None:
    assert reason(tmp_path, with_dataset(shape=IMAGE.shape, dtype="f8")) == "image is not complete"
    content = with_dataset(shape=IMAGE.shape, dtype="f8", chunks=(6, 10, 4))
    assert reason(tmp_path, content) == "image is not complete: 2 of 2 parts are missing"


def test_a_filter_that_is_not_one_of_h5pys_own_is_refused(tmp_path: Path) -> None:
    content = with_dataset(data=IMAGE.astype("f4"), scaleoffset=2)
    expected = "image is stored with the HDF5 filters (6,); save it with gzip, lzf or none"
    assert reason(tmp_path, content) == expected


@pytest.mark.parametrize("chunks", [(2**12, 2**10, 4), (1, 1, 1)])
def test_parts_that_no_slice_has_are_refused(tmp_path: Path, chunks: tuple[int, int, int]) -> None:
    content = with_dataset(shape=(200, 200, 4), dtype="f4", maxshape=(None, None, 4), chunks=chunks)
    expected = f"image is stored in parts of shape {chunks}, which is no slice of an image"
    assert reason(tmp_path, content) == expected


def test_a_part_that_expands_beyond_its_size_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    target = io.BytesIO()
    with h5py.File(target, "w") as file:
        file["mask"] = MASK
        dataset = file.create_dataset("image", IMAGE.shape, "f8", chunks=IMAGE.shape, compression="gzip")
        dataset.id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(2**27)))
    tracemalloc.start()
    try:
        expected = f"damaged gzip data in image: a part does not have its {IMAGE.nbytes} bytes"
        assert reason(tmp_path, target.getvalue()) == expected
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_damaged_gzip_data_are_refused(tmp_path: Path) -> None:
    target = io.BytesIO()
    with h5py.File(target, "w") as file:
        file["mask"] = MASK
        dataset = file.create_dataset("image", IMAGE.shape, "f8", chunks=IMAGE.shape, compression="gzip")
        dataset.id.write_direct_chunk((0, 0, 0), b"\x00" * 50)
    assert reason(tmp_path, target.getvalue()).startswith("damaged gzip data in image (")


@pytest.mark.parametrize("content", [b"x", b"\x89HDF\r\n\x1a\n", bytes(4096)])
def test_a_file_that_is_no_hdf5_file_is_refused(tmp_path: Path, content: bytes) -> None:
    assert reason(tmp_path, content).startswith("not a whole HDF5 file (")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    assert reason(tmp_path, hdf5_slice()[:-100]).startswith("not a whole HDF5 file (")


def test_a_file_that_is_gone_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="cannot read it: no longer there") as caught:
        read_hdf5_slice(FileInfo(str(tmp_path / "x.h5"), 100))
    assert caught.value.transient
    with pytest.raises(CaseError, match=f"a slice has {MAX_SLICE_FILE_BYTES} at most"):
        read_hdf5_slice(FileInfo(str(tmp_path / "x.h5"), MAX_SLICE_FILE_BYTES + 1))
