"""NIfTI files of every kind, mutated, and what nibabel and this program make of each."""

import contextlib
import gzip
import itertools
import logging
import re
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import nibabel.affines
import nibabel.imageglobals
import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from nibabel.eulerangles import euler2mat
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from brats.data.codings import BRATS_2018, INTERPOLATED
from brats.data.grid import from_ras
from brats.data.nifti import read_nifti
from brats.data.volume import nifti_bytes, read_segmentation, read_volume
from brats.errors import CaseError
from brats.storage import FileInfo
from tests.support.fuzzing import Choices, choices

REFUSED_HERE = {
    r"not a single NIfTI file \(magic b'ni": "the header of a pair; its voxels are in another file",
    r"a CIFTI-2 file": "surfaces and time series",
    r"impossible shape in its header": "an axis without voxels, or not 1 to 7 axes",
    r"stands for a surface of FreeSurfer": "a list of vertices, written in three axes",
    r"an axis has \d+ voxels at most": "the tables count slices, rows and columns in 16 bits",
    r"its header claims .* (are read|at most|cannot hold)": "larger than a worker can hold",
    r"impossible vox_offset": "the voxels would begin within the header",
    r"impossible size -?\d+ of a header extension": "it ends among the voxels, and nibabel goes on there",
    r"integers or floats of at most 64 bits": "colours, complex numbers, floats of 128 bits",
    r"in (micro)?metres, where mm are expected": "nibabel leaves the unit to the caller, who never asks",
    r"its affine is not finite, or exceeds 1 km": "no place in a head",
    r"its affine is singular": "voxels without extent, or axes that coincide",
    r"damaged gzip data|the checksum at the end of its gzip data": "nibabel reads what it needs and stops there",
    r"\d+ NaN and \d+ infinite voxels": "an image without values",
    r"every voxel is 0": "an image without values",
    r"unknown label": "a segmentation in another coding",
}
"""What is refused here though nibabel opens it as one 3-D volume of real numbers: the message, and the reason."""

VOXELS = np.array([0, 1, 2, 4, 0, 4, 2, 1] * 3, np.uint8).reshape(2, 3, 4)
_SPECIAL = (0, 1, -1, 2, 3, 4, 5, 7, 8, 13, 16, 64, 255, 256, 348, 352, 540, 544, 32767, -32768, 2**31 - 1, 3001)
_SPECIAL_FLOATS = (*_SPECIAL, 0.5, 352.5, 1e-3, 1e-30, -1e-3, 1e6, 1e38, -1e38, np.nan, np.inf, -np.inf)
_MAGICS = (b"n+1", b"ni1", b"n+2", b"ni2", b"", b"n+3", b"x")
_UNUSED = ("data_type", "db_name", "descrip", "aux_file", "intent_name", "unused_str")
FIELDS = {
    version: [name for name in header.template_dtype.names if name not in _UNUSED]
    for version, header in ((1, nib.Nifti1Header), (2, nib.Nifti2Header))
}


@dataclass(frozen=True, kw_only=True)
class Base:
    """A good file: its header, what lies between header and voxels, and the voxels."""

    version: int
    header: Any
    extensions: bytes
    voxels: bytes

    def content(self) -> bytes:
        block: bytes = self.header.binaryblock
        return block + self.extensions + self.voxels


def base_file(version: int, byte_order: str, dtype: str, forms: str, extension: bytes = b"") -> Base:
    """A file whose affine comes from its sform (forms "s"), its qform ("q"), both or neither of them ("")."""
    header = {1: nib.Nifti1Header, 2: nib.Nifti2Header}[version](endianness=byte_order)
    header.set_data_shape(VOXELS.shape)
    header.set_data_dtype(np.dtype(dtype))
    header["pixdim"][1:4] = (1, 2, 3)
    affine = nib.affines.from_matvec(euler2mat(0.1, 0.2, 0.3) * (-1, 2, 3), (10, 20, -30))
    if "s" in forms:
        header.set_sform(affine, code=1)
    if "q" in forms:
        header.set_qform(affine, code=1)
    header["vox_offset"] = header.single_vox_offset + len(extension)
    flags = bytes([bool(extension), 0, 0, 0])
    voxels = VOXELS.astype(header.get_data_dtype()).tobytes(order="F")
    return Base(version=version, header=header, extensions=flags + extension, voxels=voxels)


def extension_of(byte_order: str, size: int = 32) -> bytes:
    return np.array([size, 6], f"{byte_order}i4").tobytes() + b"a comment".ljust(24, b"\0")


BASES = [
    base_file(version, byte_order, dtype, forms, extension_of(byte_order) if extended else b"")
    for (version, byte_order), forms, (dtype, extended) in itertools.product(
        itertools.product((1, 2), "<>"), ("s", "q", "sq", ""), (("u1", False), ("i2", True), ("f4", False))
    )
]


def mutated_files() -> st.SearchStrategy[bytes]:
    """Good files of any kind with up to four changes: of header fields, of bytes anywhere, of the length."""
    return choices().map(mutated_file)


def mutated_file(choose: Choices) -> bytes:
    base = BASES[choose(len(BASES))]
    header = base.header.copy()
    for _ in range(choose(3)):
        _mutate_field(choose, header, FIELDS[base.version][choose(len(FIELDS[base.version]))])
    content = bytearray(header.binaryblock + base.extensions + base.voxels)
    for _ in range(choose(3)):
        content[choose(len(content))] = choose(256)
    if choose(8) == 7:
        content = content[: choose(len(content))]
    if choose(2):
        return bytes(content)
    packed = bytearray(gzip.compress(bytes(content), 1, mtime=0))
    if choose(4) == 3:
        packed[choose(len(packed))] = choose(256)
    return bytes(packed)


def _mutate_field(choose: Choices, header: Any, field: str) -> None:
    """Set one item of a header field to a value that is special, or to a small one."""
    items = header[field].reshape(-1)
    if items.dtype.kind == "S":
        header[field] = _MAGICS[choose(len(_MAGICS))]
        return
    special = _SPECIAL_FLOATS if items.dtype.kind == "f" else _SPECIAL
    value = special[choose(len(special))] if choose(2) else (choose(2**16) - 2**15) / 2**13
    with np.errstate(all="ignore"):
        items[choose(items.size)] = np.array(value).astype(items.dtype)
    header[field] = items.reshape(header[field].shape)


NIBABEL_ERRORS = (ImageFileError, HeaderDataError, zlib.error, OSError, EOFError, ValueError, OverflowError)
"""What nibabel raises for files that it does not read: it does not check everything itself."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What nibabel makes of a file."""

    affine: npt.NDArray[np.float64]
    values: npt.NDArray[Any]
    """(X, Y, Z) in the file's axes, scaled."""


def by_nibabel(path: Path) -> Expected | None:
    """None for what nibabel does not open as one 3-D volume of real numbers with all its voxels."""
    nib.imageglobals.logger.setLevel(logging.CRITICAL + 1)  # it would print every repair
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            image: Any = nib.load(path)
            shape = image.shape
            if len(shape) < 3 or set(shape[3:]) - {1} or image.dataobj.offset + _n_bytes(image) > 2**20:
                return None  # as long a file as none of these is
            values = np.asanyarray(image.dataobj).reshape(shape[:3])
        except NIBABEL_ERRORS:
            return None
        return Expected(affine=image.affine, values=values) if values.dtype.kind in "iuf" else None


def _n_bytes(image: Any) -> int:
    size = image.dataobj.dtype.itemsize
    for length in image.shape:
        size *= length
    return int(size)


def difference(content: bytes, folder: Path) -> str:
    """How this program and nibabel differ over a file: "" where they agree or the difference is a known one."""
    packed = content.startswith(b"\x1f\x8b")
    path = _write(folder / ("x_seg.nii.gz" if packed else "x_seg.nii"), content)
    expected = by_nibabel(path)
    if packed and expected is None:  # it looks at 1,024 bytes, here the whole file: past the voxels, too
        expected = by_nibabel(_write(folder / "unpacked.nii", _inflate(content)))
    file = FileInfo(str(path), len(content))
    differences = (_difference_of(file, expected, look) for look in (_as_read, _as_image, _as_labels))
    return next((found for found in differences if found), "")


def _write(path: Path, content: bytes) -> Path:
    """Write a file over what it holds: emptying it first takes a thousand times as long on some file systems."""
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.write(content)
        file.truncate()
    return path


def _inflate(content: bytes) -> bytes:
    """What can be read of gzip data before their end or the first damage."""
    inflater, inflated = zlib.decompressobj(31), b""
    with contextlib.suppress(zlib.error):
        for byte in content:
            inflated += inflater.decompress(bytes([byte]))
    return inflated


def _difference_of(file: FileInfo, expected: Expected | None, look: Any) -> str:
    try:
        wrong = look(file, expected)
    except CaseError as error:
        if not error.reason or "\n" in str(error):
            return f"not a message of one line: {error}"
        known = any(re.search(message, error.reason) for message in REFUSED_HERE)
        return "" if expected is None or known else f"refused here, though nibabel opens it: {error.reason}"
    return wrong if expected is not None else "read here, though nibabel refuses it"


def _as_read(file: FileInfo, expected: Expected | None) -> str:
    raw, header = read_nifti(file)
    if expected is None:
        return ""
    if not np.array_equal(header.affine, expected.affine):
        return f"another affine: {header.affine}, not {expected.affine.tolist()}"
    values = raw.reshape(header.shape, order="F")
    return "" if np.array_equal(_scaled(values, header), expected.values, equal_nan=True) else "other voxels"


def _scaled(values: npt.NDArray[Any], scale: Any) -> npt.NDArray[Any]:
    with np.errstate(all="ignore"):
        return values if (scale.slope, scale.inter) == (1, 0) else np.float64(scale.slope) * values + scale.inter


def _as_image(file: FileInfo, expected: Expected | None) -> str:
    volume = read_volume(file)
    if expected is None:
        return ""
    orientation = nib.io_orientation(expected.affine)
    if not np.array_equal(volume.grid.orientation, orientation):
        return "another orientation"
    turned = nib.apply_orientation(expected.values, orientation)
    return "" if np.array_equal(_scaled(volume.voxels, volume), turned) else "other voxels in RAS+"


def _as_labels(file: FileInfo, expected: Expected | None) -> str:
    found = read_segmentation(file, BRATS_2018.name)
    if expected is None:
        return ""
    source = from_ras(found.labels, found.grid)
    mask = Path(file.path).with_name("mask.nii.gz")
    written = by_nibabel(_write(mask, nifti_bytes(source, found.grid, BRATS_2018.name)))
    codes = BRATS_2018.encode(source)
    if written is None or not np.array_equal(written.affine, expected.affine):
        return "a mask with another affine"
    if not np.array_equal(written.values, codes):
        return "a mask with other voxels"
    return "" if np.abs(codes - expected.values).max() <= INTERPOLATED else "other labels"


def fields_set(base: Base, **fields: Any) -> bytes:
    """The content of a good file with some header fields set, an item of an array as `pixdim_1`."""
    header = base.header.copy()
    for field, value in fields.items():
        name, _, index = field.rpartition("_")
        if index.isdigit() and name:
            header[name][int(index)] = value
        else:
            header[field] = value
    content: bytes = header.binaryblock + base.extensions + base.voxels
    return content
