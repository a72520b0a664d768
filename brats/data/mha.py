"""MetaImage files (.mha) to arrays and back: a text of lines `key = value`, and the voxels behind it.

BRATS 2012 and 2013 came as such files. What is read means what ITK makes of it: lengths are in mm, and positions
grow towards the patient's left, back and head (LPS), whatever `AnatomicalOrientation` says.
"""

import re
from collections.abc import Mapping
from typing import Any

import nibabel as nib
import nibabel.affines
import numpy as np
import numpy.typing as npt

from brats.data.nifti import Header, check_affine, check_shape, geometry_fields, read_content
from brats.errors import CaseError
from brats.storage import FileInfo

LINES = "meta_image"
"""The key of `Header.geometry` that holds the header lines of the geometry, as the file has them."""

_MAX_HEADER_BYTES = 2**16
_LAST = re.compile(rb"^[ \t]*ElementDataFile[ \t]*=[^\n]*\n", re.MULTILINE)  # the voxels follow
_SIZE = re.compile(r"0*[1-9]\d{0,9}", re.ASCII)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_DTYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
"""By `ElementType`: MetaIO counts 4 bytes for a long on every machine."""
_OTHER_NAMES = {
    "Position": "Offset", "Origin": "Offset", "Rotation": "TransformMatrix", "Orientation": "TransformMatrix",
    "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}  # fmt: skip
"""Names of before, which MetaIO takes for the same."""
_EXPECTED = {
    "ObjectType": ("Image", "an image is expected"),
    "NDims": ("3", "one 3-D volume is expected"),
    "BinaryData": ("True", "save it as binary data"),
    "CompressedData": ("False", "save it without compression"),
    "ElementDataFile": ("LOCAL", "its voxels are in another file: save both as one .mha file"),
    "ElementNumberOfChannels": ("1", "one value for each voxel is expected"),
    "HeaderSize": ("0", "voxels are read from the end of the header on"),
    "ElementToIntensityFunctionSlope": ("1", "voxels are read as they are stored"),
    "ElementToIntensityFunctionOffset": ("0", "voxels are read as they are stored"),
    "DistanceUnits": ("mm", "lengths in mm are expected"),
}
"""Keys that may have one value only, and what to say of another one."""
_REQUIRED = (
    "ObjectType", "NDims", "BinaryData", "TransformMatrix", "Offset", "ElementSpacing", "DimSize", "ElementType",
)  # fmt: skip
# What a mask takes over: no name, no comment, and nothing of the values.
_KEPT = ("TransformMatrix", "Offset", "CenterOfRotation", "AnatomicalOrientation", "ElementSpacing", "DimSize")


def read_mha(file: FileInfo, content: bytes | None = None) -> tuple[npt.NDArray[Any], Header]:
    """The raw values, flat in file order (first axis fastest) and in native bytes, and the header.

    Uncompressed files that hold header and voxels of one 3-D volume, of any number type. `Header.geometry` is
    that of the NIfTI file with the same grid, and under `LINES` what `encode_mha` needs. Not to be written to.

    content: the bytes of the file, where they were read already, by `read_content`

    Raises CaseError for a file that cannot be read (transient), is no such file, lacks a key or has it twice, does
    not have the size that its header claims, is larger than `read_nifti` takes, or has no usable affine.
    """
    content = read_content(file) if content is None else content
    header = _parse_header(file.path, content)
    if (n_missing := header.n_bytes - len(content)) > 0:
        raise CaseError(file.path, f"truncated: {n_missing} of {header.n_bytes} bytes are missing")
    if n_missing < 0:
        raise CaseError(file.path, f"{-n_missing} bytes more than its DimSize and ElementType give")
    raw = np.frombuffer(content, header.dtype, header.n_voxels, header.offset)
    return raw.astype(header.dtype.newbyteorder("="), copy=False), header


def encode_mha(voxels: npt.NDArray[np.uint8], geometry: Mapping[str, Any]) -> bytes:
    """An .mha file of a 3-D uint8 array, with the geometry of another .mha file's `Header`.

    Its lines of the geometry are those of the other file, to the letter.
    """
    lines = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        **geometry[LINES],
        "ElementType": "MET_UCHAR",
        "ElementDataFile": "LOCAL",
    }
    assert [*map(int, lines["DimSize"].split())] == [*voxels.shape], f"{voxels.shape}, {lines['DimSize']}"
    header = "".join(f"{key} = {value}\n" for key, value in lines.items())
    return header.encode("latin-1") + voxels.tobytes(order="F")


def _parse_header(path: str, content: bytes) -> Header:
    """Parse the lines before the voxels, and refuse what cannot be one 3-D volume."""
    lines, offset = _read_lines(path, content)
    for key, (value, remedy) in _EXPECTED.items():
        if lines.get(key, value) != value:
            raise CaseError(path, f"{key} = {lines[key]!r} in its header; {remedy}")
    dtype = _dtype(path, lines)
    shape = _shape(path, lines)
    fields = _nifti_fields(path, shape, lines)
    return Header(
        shape=shape,
        affine=check_affine(path, fields),
        geometry={**geometry_fields(fields), LINES: {key: lines[key] for key in _KEPT if key in lines}},
        dtype=dtype,
        byte_order=">" if lines.get("BinaryDataByteOrderMSB") == "True" else "<",
        offset=offset,
        slope=1.0,
        inter=0.0,
    )


def _read_lines(path: str, content: bytes) -> tuple[dict[str, str], int]:
    """The values of the header by key, and where the voxels begin."""
    if not content.lstrip().startswith(b"ObjectType"):
        raise CaseError(path, f"not a MetaImage file: it begins with {content[:8]!r}")
    last = _LAST.search(content, 0, _MAX_HEADER_BYTES)
    if last is None:
        raise CaseError(path, f"no line ElementDataFile within its first {_MAX_HEADER_BYTES} bytes")
    lines: dict[str, str] = {}
    for line in content[: last.end()].decode("latin-1").split("\n"):
        if not line.strip():
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        key = _OTHER_NAMES.get(name, name)
        if not equals:
            raise CaseError(path, f"a line of its header is no `key = value`: {line[:40]!r}")
        if key in lines:
            raise CaseError(path, f"its header has {key} twice: {lines[key][:40]!r} and {value[:40]!r}")
        lines[key] = value
    if missing := [key for key in _REQUIRED if key not in lines]:
        raise CaseError(path, f"no {', '.join(missing)} in its header")
    return lines, last.end()


def _dtype(path: str, lines: Mapping[str, str]) -> np.dtype[Any]:
    kind = lines["ElementType"]
    if kind not in _DTYPES:
        raise CaseError(path, f"ElementType = {kind!r} in its header; one of {', '.join(_DTYPES)} is expected")
    dtype = np.dtype(_DTYPES[kind])
    big_endian = lines.get("BinaryDataByteOrderMSB", "False" if dtype.itemsize == 1 else "")
    if big_endian not in ("True", "False"):
        raise CaseError(path, f"BinaryDataByteOrderMSB = {big_endian!r} in its header; True or False is expected")
    return dtype.newbyteorder(">" if big_endian == "True" else "<")


def _shape(path: str, lines: Mapping[str, str]) -> tuple[int, int, int]:
    sizes = lines["DimSize"].split()
    if len(sizes) != 3 or not all(_SIZE.fullmatch(size) for size in sizes):
        raise CaseError(path, f"DimSize = {lines['DimSize']!r} in its header; three sizes are expected")
    x, y, z = (int(size) for size in sizes)
    check_shape(path, (x, y, z))
    return x, y, z


def _numbers(path: str, lines: Mapping[str, str], key: str, n: int) -> npt.NDArray[np.float64]:
    numbers = lines[key].split()
    if len(numbers) != n or not all(_NUMBER.fullmatch(number) for number in numbers):
        raise CaseError(path, f"{key} = {lines[key]!r} in its header; {n} numbers are expected")
    return np.array([float(number) for number in numbers])


def _nifti_fields(path: str, shape: tuple[int, int, int], lines: Mapping[str, str]) -> Any:
    """The NIfTI header with this geometry. Its affine has 32 bits, as that of every NIfTI file."""
    axes = _numbers(path, lines, "TransformMatrix", 9).reshape(3, 3)  # a row for the direction of each axis
    spacing_mm = _numbers(path, lines, "ElementSpacing", 3)
    if spacing_mm.min() <= 0:
        raise CaseError(path, f"ElementSpacing = {lines['ElementSpacing']!r} in its header; it must be positive")
    offset_mm = _numbers(path, lines, "Offset", 3)
    fields = nib.Nifti1Header()
    fields.set_data_shape(shape)
    fields.set_xyzt_units("mm")
    with np.errstate(all="ignore"):  # absurd numbers overflow; refused by `check_affine`
        affine = _LPS_TO_RAS @ nib.affines.from_matvec(axes.T * spacing_mm, offset_mm)
        fields.set_sform(affine, code=1)
    check_affine(path, fields)
    fields.set_qform(affine, code=1)
    if not np.allclose(fields.get_qform(), affine, atol=1e-3):  # a qform cannot tell sheared axes
        fields["qform_code"] = 0
    return fields
