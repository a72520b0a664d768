"""Volumes in RAS+: images and segmentations read and checked, label maps written back on the source's grid.

Axes: as in `brats.data.grid`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from brats.data.codings import CODE_TOLERANCE, CODINGS, INTERPOLATED, Coding, count_rounded
from brats.data.grid import Array, Grid, to_ras, turn_alike
from brats.data.mha import encode_mha, read_mha
from brats.data.nifti import Header, encode_nifti, read_nifti
from brats.errors import CaseError, UnknownLabelError
from brats.labels import Labels
from brats.storage import FileInfo


@dataclass(frozen=True, kw_only=True)
class Volume:
    """One image. The value of a voxel is `slope * voxels + inter`."""

    voxels: Array
    """(X, Y, Z) in RAS+, the raw values of the file in their own dtype: a view, not to be written to."""
    slope: float
    inter: float
    grid: Grid

    def turned_like(self, grid: Grid) -> "Volume":
        """This image with its voxels turned as `turn_alike` does."""
        voxels, own = turn_alike(self.voxels, self.grid, grid)
        return replace(self, voxels=voxels, grid=own)


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """One segmentation."""

    labels: Labels
    """(X, Y, Z) in RAS+."""
    grid: Grid
    n_rounded: int
    """Voxels whose value was not exactly a code, but as near to one as rounding brings it."""

    def warnings(self, file: FileInfo) -> Iterator[str]:
        """What to say of it, naming its file."""
        if self.n_rounded:
            yield f"{file.name}: {self.n_rounded} voxels were not exactly at a code, and were rounded to it"


def read_volume(file: FileInfo, content: bytes | None = None) -> Volume:
    """Read an image, NIfTI or MetaImage by the name of its file, of any number type and any orientation.

    content: the bytes of the file, where they were read already

    Raises CaseError for a file that `read_nifti` or `read_mha` refuses, with NaN or infinite voxels, or 0
    everywhere.
    """
    return _volume(file.path, *_read_raw(file, content))


def read_channels(file: FileInfo, n_channels: int, content: bytes | None = None) -> list[Volume]:
    """Read a 4-D NIfTI image as so many volumes, in their order. Raises CaseError as `read_volume` does."""
    raw, header = read_nifti(file, content, n_channels)
    return [_volume(file.path, channel, header) for channel in raw.reshape(n_channels, -1)]


def _read_raw(file: FileInfo, content: bytes | None) -> tuple[Array, Header]:
    return (read_mha if file.name.lower().endswith(".mha") else read_nifti)(file, content)


def _volume(path: str, raw: Array, header: Header) -> Volume:
    """The image of raw values in file order. Raises CaseError for values that are none."""
    _check_values(path, raw, header)
    grid = Grid.of(header.shape, header.affine, header.geometry)
    voxels = to_ras(raw.reshape(grid.shape, order="F"), grid)
    return Volume(voxels=voxels, slope=header.slope, inter=header.inter, grid=grid)


def read_segmentation(file: FileInfo, coding: str | Coding, content: bytes | None = None) -> Segmentation:
    """Read a segmentation in the codes of `coding`.

    Any dtype will do, as long as every value, scaled as the header says, is a code, or as near to one as rounding
    brings it. No tumour at all is fine. Raises CaseError for a file that `read_nifti` or `read_mha` refuses, and
    for a value that the coding does not define.

    content: the bytes of the file, where they were read already
    """
    raw, header = _read_raw(file, content)
    codes = _scaled(raw, header)
    try:
        labels = (CODINGS[coding] if isinstance(coding, str) else coding).decode(codes, _code_tolerance(header))
    except UnknownLabelError as error:
        raise CaseError(file.path, str(error)) from error
    grid = Grid.of(header.shape, header.affine, header.geometry)
    labels = to_ras(labels.reshape(grid.shape, order="F"), grid)
    return Segmentation(labels=labels, grid=grid, n_rounded=count_rounded(codes))


def nifti_bytes(labels: Labels, grid: Grid, coding: str) -> bytes:
    """The .nii.gz file (uint8, codes of `coding`) of a label map in the source axes of `grid`.

    Shape, affine, qform and sform with their codes, voxel sizes and units are the source's. Free-text fields
    stay empty, and the same labels give the same bytes.
    """
    return encode_nifti(CODINGS[coding].encode(labels), grid.header)


def mask_bytes(labels: Labels, grid: Grid, coding: str) -> bytes:
    """The file of a label map in the source axes of `grid`, in the form of its images: .mha, or else .nii.gz."""
    if grid.is_mha:
        return encode_mha(CODINGS[coding].encode(labels), grid.header)
    return nifti_bytes(labels, grid, coding)


def _code_tolerance(header: Header) -> float:
    """How far values may lie from their codes: half a step where whole numbers times a slope stand for them.

    nibabel saves the codes 0 to 4 as 0 to 255 where it is given floats for a file of bytes: 1 comes back as 1.0039.
    """
    step = abs(header.slope) if header.dtype.kind != "f" and header.slope != 1 else 0.0
    half = 0.5001 * step  # the slope itself is rounded
    return max(CODE_TOLERANCE, half if half < INTERPOLATED else 0.0)


def _scaled(raw: Array, header: Header) -> Array:
    """The values of raw numbers, in 64 bits where they are scaled, as nibabel computes them."""
    if (header.slope, header.inter) == (1, 0):
        return raw
    with np.errstate(all="ignore"):  # absurd scaling overflows; infinity is no code
        values: Array = np.float64(header.slope) * raw + header.inter
    return values


def _check_values(path: str, raw: Array, header: Header) -> None:
    """Refuse an image with NaN or infinite voxels, and one that is 0 everywhere."""
    x, y, z = header.shape
    centre = x // 2 + x * (y // 2 + y * (z // 2))
    if raw.dtype.kind != "f" and raw[0] != raw[centre]:
        return  # whole numbers that differ, which corner and centre nearly always settle
    low, high = raw.min().item(), raw.max().item()
    if not (math.isfinite(low) and math.isfinite(high)):  # one NaN voxel makes both NaN
        n_nan, n_infinite = np.count_nonzero(np.isnan(raw)), np.count_nonzero(np.isinf(raw))
        raise CaseError(
            path, f"{n_nan} NaN and {n_infinite} infinite voxels of {raw.size}; set those that have no value to 0"
        )
    if low == high and header.slope * low + header.inter == 0:
        raise CaseError(path, "every voxel is 0")
