"""HDF5 files of single slices, as BraTS 2020 lies on Kaggle: four images and three masks of one slice each.

Axes: `H W` slice axes; the last axis holds the images or the masks.
"""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from brats.data.nifti import read_content
from brats.errors import CaseError
from brats.storage import FileInfo

# 18 times a slice of BraTS. 32 MiB of images, which the limit of a file holds uncompressed.
MAX_PIXELS = 1024**2
MAX_SLICE_FILE_BYTES = 2**26
# h5py divides a slice of BraTS into 64.
_MAX_CHUNKS = 2**14

_IMAGE, _MASK = ("image", 4, ("<f4", "<f8", ">f4", ">f8")), ("mask", 3, ("|u1",))
_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF = 1, 2, 3, 32000  # as HDF5 numbers its filters
# Those of h5py's own, in its order. Others, or one twice, might expand without bounds.
_PIPELINES = [(), (_SHUFFLE,), (_DEFLATE,), (_SHUFFLE, _DEFLATE), (_LZF,), (_SHUFFLE, _LZF)]


def read_hdf5_slice(file: FileInfo, content: bytes | None = None) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
    """The images (H, W, 4), float32 or float64 as stored, and the masks (H, W, 3) uint8 of one slice.

    They are the datasets "image" and "mask" of the file, in native bytes. Their sizes, and those that their
    compressed parts expand to, are checked before memory is allocated.

    content: the bytes of the file, where they were read already, by `read_content`

    Raises CaseError for a file that cannot be read (transient), is no HDF5 file or a damaged one, lacks one of the
    names, has another shape or type under it, or is larger than a slice can be.
    """
    if file.size > MAX_SLICE_FILE_BYTES:
        raise CaseError(file.path, f"{file.size} bytes; a slice has {MAX_SLICE_FILE_BYTES} at most")
    content = read_content(file) if content is None else content
    with _one_line(file.path), h5py.File(io.BytesIO(content), "r") as opened:
        image, mask = (_read(file.path, opened, *expected) for expected in (_IMAGE, _MASK))
    if image.shape[:2] != mask.shape[:2]:
        raise CaseError(file.path, f"image has shape {image.shape}, but mask has {mask.shape}")
    return image, mask


@contextmanager
def _one_line(path: str) -> Iterator[None]:
    """Turn what h5py raises for a file that is none, or a damaged one, into a CaseError."""
    try:
        yield
    except (ArithmeticError, OSError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CaseError(path, f"not a whole HDF5 file ({reason})") from error


def _read(path: str, opened: Any, name: str, n_channels: int, dtypes: tuple[str, ...]) -> npt.NDArray[Any]:
    """The dataset of this name, with its shape and type checked."""
    if not isinstance(opened.get(name, getlink=True), h5py.HardLink):  # a link may lead to another file
        raise CaseError(path, f"no dataset {name!r} in it; it has {', '.join(sorted(opened)[:8]) or 'none'}")
    dataset = opened[name]
    if not isinstance(dataset, h5py.Dataset):
        raise CaseError(path, f"{name} is no dataset")
    if dataset.dtype.str not in dtypes:
        raise CaseError(path, f"{name} is of type {dataset.dtype.str}, where {' or '.join(dtypes)} is expected")
    shape = dataset.shape
    if shape is None or len(shape) != 3 or shape[2] != n_channels or not 0 < shape[0] * shape[1] <= MAX_PIXELS:
        expected = f"H x W x {n_channels} with {MAX_PIXELS} pixels at most"
        raise CaseError(path, f"{name} has shape {shape}, where {expected} is expected")
    _check_storage(path, name, dataset)
    values: npt.NDArray[Any] = dataset[()]
    return values.astype(dataset.dtype.newbyteorder("="), copy=False)


def _check_storage(path: str, name: str, dataset: Any) -> None:
    """Refuse a dataset that is incomplete, lies in another file or expands to more than it claims."""
    if dataset.external or dataset.is_virtual:
        raise CaseError(path, f"{name} lies in another file; save it in this one")
    if dataset.chunks is None:
        if dataset.id.get_storage_size() != dataset.nbytes:
            raise CaseError(path, f"{name} is not complete")
        return
    filters = _filters(dataset)
    if filters not in _PIPELINES:
        raise CaseError(path, f"{name} is stored with the HDF5 filters {filters}; save it with gzip, lzf or none")
    n_chunks = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    n_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if n_chunks > _MAX_CHUNKS or n_bytes > 8 * 4 * MAX_PIXELS:
        raise CaseError(path, f"{name} is stored in parts of shape {dataset.chunks}, which is no slice of an image")
    offsets: list[tuple[int, ...]] = []
    dataset.id.chunk_iter(lambda chunk: offsets.append(chunk.chunk_offset))
    if len(offsets) != n_chunks:
        raise CaseError(path, f"{name} is not complete: {n_chunks - len(offsets)} of {n_chunks} parts are missing")
    if _DEFLATE in filters:
        for offset in offsets:
            _check_deflated(path, name, dataset.id.read_direct_chunk(offset)[1], n_bytes)


def _filters(dataset: Any) -> tuple[int, ...]:
    """The filters of a dataset in the order in which they were applied, without a checksum at the end."""
    properties = dataset.id.get_create_plist()
    filters = tuple(properties.get_filter(i)[0] for i in range(properties.get_nfilters()))
    return filters[:-1] if filters[-1:] == (_FLETCHER32,) else filters


def _check_deflated(path: str, name: str, content: bytes, n_bytes: int) -> None:
    """Refuse a part that expands to another size than it claims: HDF5 would make room for it without bounds."""
    inflater = isal_zlib.decompressobj()
    try:
        inflated = inflater.decompress(content, max_length=n_bytes + 1)
    except isal_zlib.error as error:  # type: ignore[misc]  # isal's stub declares an instance, not a class
        raise CaseError(path, f"damaged gzip data in {name} ({error})") from error
    if len(inflated) != n_bytes or not inflater.eof:
        raise CaseError(path, f"damaged gzip data in {name}: a part does not have its {n_bytes} bytes")
