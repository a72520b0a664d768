"""NIfTI bytes to arrays and back; headers are validated before memory is allocated.

A header means what `nibabel.load` makes of it, repairs included: nibabel itself reads it here. What it refuses is
refused, and so are a few files that it opens; tests/support/nifti_files.py lists them with the reasons.
"""

import logging
import math
import struct
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import nibabel.affines
import numpy as np
import numpy.typing as npt
from isal import igzip
from nibabel.spatialimages import HeaderDataError

from brats import storage
from brats.data.inflate import GZIP_MAGIC, inflate, inflate_start
from brats.errors import CaseError, StorageError
from brats.storage import FileInfo

# 15 times BraTS's 240 x 240 x 155. At 8 bytes a voxel 1 GiB, which a worker can still hold.
MAX_VOXELS = 512**3
# Voxels of the widest dtype, and room for a header with extensions.
MAX_FILE_BYTES = 8 * MAX_VOXELS + 2**20
# Tables count slices, rows and columns in 16 bits.
MAX_SIDE = 2**15 - 1
# Room for extensions, which are walked through one by one.
MAX_HEADER_BYTES = 2**24
# Deflate cannot expand further (zlib, technical notes, "Maximum Compression Factor").
MAX_DEFLATE_RATIO = 1032
# What an affine may hold: no scanner has voxels of a micrometre or a table of a kilometre.
MIN_VOXEL_SIZE_MM, MAX_LENGTH_MM = 1e-3, 1e6

# In the order in which nibabel tries them: the first by its magic string, the second by its `sizeof_hdr`.
_HEADER_TYPES: dict[int, Any] = {348: nib.Nifti1Header, 540: nib.Nifti2Header}  # by `sizeof_hdr`
_CIFTI_INTENTS = range(3000, 3100)  # `intent_code` of NIfTI-2 files that are CIFTI-2
_QUIET = logging.Logger("nifti", logging.CRITICAL + 1)  # nibabel tells its own logger of each repair
_GEOMETRY_FIELDS = (
    "sizeof_hdr", "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip
_FOREIGN_UNITS = {1: "metres", 3: "micrometres"}  # `xyzt_units`: 2 is mm, and 0 (unknown) is taken for mm


@dataclass(frozen=True, kw_only=True)
class Header:
    """A validated NIfTI header: where the voxels lie in the file and in space."""

    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    """4 x 4, voxel indices to RAS+ mm: the sform where set, else the qform, else the voxel sizes."""
    geometry: dict[str, Any]
    """The header fields of the geometry, repaired: pixdim, units, qform and sform with their codes. JSON-able."""
    dtype: np.dtype[Any]
    byte_order: str
    """Of the whole file: "<" or ">"."""
    offset: int
    """Bytes before the first voxel."""
    slope: float
    inter: float
    """The value of a voxel is `slope * raw + inter`."""
    n_channels: int = 1
    """Volumes of this shape that follow each other in the file."""

    @property
    def n_voxels(self) -> int:
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """Size of the whole file, uncompressed."""
        return self.offset + self.n_channels * self.n_voxels * self.dtype.itemsize


def read_nifti(
    file: FileInfo, content: bytes | None = None, n_channels: int = 1
) -> tuple[npt.NDArray[Any], Header]:
    """The raw values, flat in file order (first axis fastest) and in native bytes, and the header.

    NIfTI-1 and -2, compressed or not, of any integer or floating type up to 64 bits. Sizes in the header
    are checked against the limits and the file's size before memory is allocated. Not to be written to.

    content:    the bytes of the file, where they were read already, by `read_content`
    n_channels: volumes that it is to have along its fourth axis, one behind the other in the values

    Raises CaseError for a file that cannot be read (transient), is no NIfTI, is damaged or truncated, is not
    one 3-D volume of plausible size, or as many as asked for, or has no usable affine.
    """
    stored = read_content(file) if content is None else content
    whole: bytes | memoryview = stored
    if stored.startswith(GZIP_MAGIC):
        header = _parse_header(
            file.path, inflate_start(file.path, stored[: 2**16], max(_HEADER_TYPES))[0], n_channels
        )
        if header.n_bytes > MAX_DEFLATE_RATIO * len(stored):
            reason = f"its header claims {header.n_bytes} bytes, which {len(stored)} of gzip cannot hold"
            raise CaseError(file.path, reason)
        whole = inflate(file.path, stored, header.n_bytes)
    else:
        header = _parse_header(file.path, stored[: max(_HEADER_TYPES)], n_channels)
    if len(whole) < header.n_bytes:
        n_missing = header.n_bytes - len(whole)
        raise CaseError(file.path, f"truncated: {n_missing} of {header.n_bytes} bytes are missing")
    _check_extensions(file.path, whole, header)
    raw = np.frombuffer(whole, header.dtype, n_channels * header.n_voxels, header.offset)
    return raw.astype(header.dtype.newbyteorder("="), copy=False), header


def encode_nifti(voxels: npt.NDArray[np.uint8], geometry: dict[str, Any], slope: float = 1.0) -> bytes:
    """A .nii.gz file of a 3-D uint8 array, with the geometry of another file's `Header`.

    slope: the values of the file are `slope * voxels`

    Free-text fields stay empty, and the same input gives the same bytes.
    """
    header = _HEADER_TYPES[geometry["sizeof_hdr"]]()
    header.set_data_shape(voxels.shape)
    header.set_data_dtype(voxels.dtype)
    header["scl_slope"], header["scl_inter"] = slope, 0
    for field in _GEOMETRY_FIELDS:
        header[field] = geometry[field]
    no_extensions = bytes(4)
    header["vox_offset"] = geometry["sizeof_hdr"] + len(no_extensions)
    return igzip.compress(header.binaryblock + no_extensions + voxels.tobytes(order="F"), mtime=0)


def read_content(file: FileInfo) -> bytes:
    """The bytes of a file as stored. Raises CaseError for one that is empty, too large or unreadable."""
    if file.size > MAX_FILE_BYTES:
        raise CaseError(file.path, f"{file.size} bytes; a volume has {MAX_FILE_BYTES} at most")
    try:
        content = storage.read_bytes(file.path)
    except FileNotFoundError as error:
        raise CaseError(file.path, "cannot read it: no longer there", transient=True) from error
    except StorageError as error:
        raise CaseError(file.path, str(error).removeprefix(f"{file.path}: "), transient=True) from error
    if len(content) < file.size:
        reason = f"cannot read it: {len(content)} of {file.size} bytes came back"
        raise CaseError(file.path, reason, transient=True)
    if not content:
        raise CaseError(file.path, "the file is empty")
    return content


def _parse_header(path: str, start: bytes, n_channels: int) -> Header:
    """Parse the first bytes of a file, and refuse what cannot be one 3-D volume, or so many."""
    fields = _find_header(path, start)
    shape, dtype, offset = _shape(path, fields, n_channels), _dtype(path, fields), _offset(path, fields)
    slope, inter = _scaling(path, fields)
    try:
        fields.check_fix(logger=_QUIET)
    except HeaderDataError as error:
        raise CaseError(path, f"impossible header ({error})") from error
    header = Header(
        shape=shape,
        affine=check_affine(path, fields),
        geometry=geometry_fields(fields),
        dtype=dtype,
        byte_order=fields.endianness,
        offset=offset,
        slope=slope,
        inter=inter,
        n_channels=n_channels,
    )
    if header.n_bytes > MAX_FILE_BYTES:
        reason = f"its header claims {header.n_bytes} bytes; a volume has {MAX_FILE_BYTES} at most"
        raise CaseError(path, reason)
    return header


def _find_header(path: str, start: bytes) -> Any:
    """The header as it stands in the first bytes of a file, of the kind that nibabel takes it for."""
    if len(start) < 4:
        raise CaseError(path, f"too short for a NIfTI file: {len(start)} bytes")
    kind = next((kind for kind in _HEADER_TYPES.values() if kind.may_contain_header(start)), None)
    if kind is None:
        size = next((size for size in _HEADER_TYPES if size in _both_ways(start)), 0)
        if len(start) < size:
            raise CaseError(path, f"truncated: {size - len(start)} of the {size} bytes of its header are missing")
        magic = f" and has the magic {start[344:348]!r}" if size else ""
        raise CaseError(path, f"not a NIfTI file: it begins with {start[:8]!r}{magic}")
    fields = kind(start[: kind.sizeof_hdr], check=False)
    magic = fields["magic"].item()
    if magic != kind.single_magic:
        raise CaseError(path, f"not a single NIfTI file (magic {magic!r}); convert .hdr/.img to .nii.gz")
    if kind is nib.Nifti2Header and (intent := int(fields["intent_code"])) in _CIFTI_INTENTS:
        raise CaseError(path, f"a CIFTI-2 file (intent code {intent}), where one 3-D volume is expected")
    return fields


def _both_ways(start: bytes) -> tuple[int, int]:
    return int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")


def _check_extensions(path: str, content: bytes | memoryview, header: Header) -> None:
    """Refuse header extensions that do not end before the voxels: nibabel takes what follows for one more."""
    position = header.geometry["sizeof_hdr"] + 4
    if not content[position - 4]:
        return  # there are none
    while (room := header.offset - position) >= 16:
        (size,) = struct.unpack_from(f"{header.byte_order}i", content, position)
        if not 8 <= size <= room:
            raise CaseError(path, f"impossible size {size} of a header extension at byte {position}")
        position += size


def geometry_fields(fields: Any) -> dict[str, Any]:
    """The fields of a NIfTI header that a mask takes over, as `Header.geometry` has them."""
    return {name: _finite(fields[name]) for name in _GEOMETRY_FIELDS}


def _finite(field: npt.NDArray[Any]) -> Any:
    """A header field as JSON takes it. NaN, found in fields that are not in use, becomes 0."""
    return np.nan_to_num(field, posinf=0, neginf=0).tolist()


def _shape(path: str, fields: Any, n_channels: int) -> tuple[int, int, int]:
    """The first three sizes. The fourth axis has the channels; further ones must have length 1."""
    n_axes, *sizes = fields["dim"].tolist()
    if not 1 <= n_axes <= 7 or min(sizes[:n_axes]) < 1:
        raise CaseError(path, f"impossible shape in its header (dim {[n_axes, *sizes]})")
    shape = tuple(sizes[:n_axes])
    n_found, *further = [*shape[3:], 1]
    if n_axes < 3 or n_found != n_channels or max(further, default=1) > 1:
        expected = "one 3-D volume is expected" if n_channels == 1 else f"{n_channels} volumes are expected"
        raise CaseError(path, f"{n_axes}-D with shape {shape}, where {expected}")
    x, y, z = shape[:3]
    check_shape(path, (x, y, z))
    if fields.get_data_shape()[:3] != (x, y, z):
        raise CaseError(path, f"shape {x} x {y} x {z} stands for a surface of FreeSurfer, not for a volume")
    return x, y, z


def check_shape(path: str, shape: tuple[int, int, int]) -> None:
    """Raise CaseError for more voxels than a worker can hold, or than the tables can count."""
    x, y, z = shape
    if x * y * z > MAX_VOXELS:
        raise CaseError(path, f"its header claims {x} x {y} x {z} voxels; at most {MAX_VOXELS} are read")
    if max(shape) > MAX_SIDE:
        raise CaseError(path, f"shape {x} x {y} x {z}; an axis has {MAX_SIDE} voxels at most")


def _dtype(path: str, fields: Any) -> np.dtype[Any]:
    code = int(fields["datatype"])
    try:
        dtype: np.dtype[Any] = fields.get_data_dtype()
    except KeyError as error:
        raise CaseError(path, f"unknown NIfTI data type {code}") from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise CaseError(path, f"NIfTI data type {code}; integers or floats of at most 64 bits are expected")
    return dtype


def _offset(path: str, fields: Any) -> int:
    """Where the voxels begin. A fraction is dropped, as nibabel does."""
    offset, least = float(fields["vox_offset"]), fields.single_vox_offset
    if not least <= offset < math.inf:
        raise CaseError(path, f"impossible vox_offset {offset:g} in its header; {least} is the least")
    if offset > MAX_HEADER_BYTES:
        reason = f"its header claims {offset:.0f} bytes for itself; at most {MAX_HEADER_BYTES} are read"
        raise CaseError(path, reason)
    return int(offset)


def _scaling(path: str, fields: Any) -> tuple[float, float]:
    """Slope and intercept. As NIfTI-1 has it, a slope of 0 (or NaN) says that there is no scaling."""
    slope, inter = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0
    if not math.isfinite(inter):
        raise CaseError(path, f"impossible scl_inter {inter:g} in its header")
    return slope, inter


def check_affine(path: str, fields: Any) -> tuple[tuple[float, ...], ...]:
    """The affine of a NIfTI header, 4 x 4. Raises CaseError for one that no scanner could make."""
    unit = int(fields["xyzt_units"]) & 7
    if unit in _FOREIGN_UNITS:
        raise CaseError(path, f"its header gives lengths in {_FOREIGN_UNITS[unit]}, where mm are expected")
    try:
        with np.errstate(all="ignore"):  # malformed headers overflow here; reported below
            affine = fields.get_best_affine()
    except (ValueError, HeaderDataError) as error:
        raise CaseError(path, f"impossible qform in its header ({error})") from error
    if not (np.abs(affine) <= MAX_LENGTH_MM).all():
        raise CaseError(path, f"its affine is not finite, or exceeds 1 km: {affine[:3].tolist()}")
    sizes_mm = nib.affines.voxel_sizes(affine)
    if sizes_mm.min() < MIN_VOXEL_SIZE_MM or abs(np.linalg.det(affine[:3, :3])) < 1e-3 * sizes_mm.prod():
        reason = "its affine is singular: an axis has no length, or its axes are not independent"
        raise CaseError(path, f"{reason}: {affine[:3].tolist()}")
    return tuple(tuple(row) for row in affine.tolist())
