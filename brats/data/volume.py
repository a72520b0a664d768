"""Volumes in RAS+: images and segmentations read and checked, label maps written back on the source's grid.

Axes: `X Y Z` voxel axes in RAS+ (growing towards the patient's right, front and head). "Source axes" are
those of the file, in any order and direction. Whole axes are swapped and flipped; nothing is resampled.
"""

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import nibabel as nib
import nibabel.affines
import numpy as np
import numpy.typing as npt
from nibabel import orientations

from brats.data.codings import CODINGS
from brats.data.nifti import Header, encode_nifti, read_nifti
from brats.errors import CaseError, UnknownLabelError
from brats.labels import Labels
from brats.storage import FileInfo

Array = npt.NDArray[Any]

# The headers of one case are rounded differently; a true shift is far larger.
GRID_TOLERANCE_MM = 1e-3


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The voxel grid of one NIfTI file, with all that another file needs to overlay it exactly. JSON-able."""

    shape: tuple[int, int, int]
    """In source axes."""
    affine: tuple[tuple[float, ...], ...]
    """4 x 4, source voxel indices to RAS+ mm."""
    header: dict[str, Any]
    """The NIfTI header fields of the geometry as stored: pixdim, units, qform and sform with their codes."""

    @cached_property
    def orientation(self) -> Array:
        """(3, 2): for each source axis the RAS+ axis it runs along, and its direction, 1 or -1."""
        return np.asarray(nib.io_orientation(np.array(self.affine)))

    @cached_property
    def ras_affine(self) -> npt.NDArray[np.float64]:
        """4 x 4, RAS+ voxel indices to RAS+ mm."""
        to_source = orientations.inv_ornt_aff(self.orientation, self.shape)
        return np.asarray(np.array(self.affine) @ to_source, np.float64)

    @property
    def ras_shape(self) -> tuple[int, int, int]:
        x, y, z = np.argsort(self.orientation[:, 0])
        return self.shape[x], self.shape[y], self.shape[z]

    @property
    def spacing_xyz_mm(self) -> tuple[float, float, float]:
        """Voxel size along X, Y, Z."""
        x, y, z = nib.affines.voxel_sizes(self.ras_affine).tolist()
        return x, y, z

    @property
    def spacing_shw_mm(self) -> tuple[float, float, float]:
        """Voxel size of slices along the source file's third axis: that axis first, then the other two."""
        x, y, z = (self.spacing_xyz_mm[int(axis)] for axis in self.orientation[:, 0])
        return z, x, y

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Grid":
        """The inverse of `to_json`, exact also after a passage through JSON text."""
        x, y, z = value["shape"]
        affine = tuple(tuple(row) for row in value["affine"])
        return cls(shape=(x, y, z), affine=affine, header=value["header"])


@dataclass(frozen=True, kw_only=True)
class Volume:
    """One image. The value of a voxel is `slope * voxels + inter`."""

    voxels: Array
    """(X, Y, Z) in RAS+, the raw values of the file in their own dtype: a view, not to be written to."""
    slope: float
    inter: float
    grid: Grid


def to_ras(array: Array, grid: Grid) -> Array:
    """A view in RAS+ of an array in the source axes of `grid`."""
    assert array.shape == grid.shape, f"{array.shape} is not the source shape {grid.shape}"
    reoriented: Array = orientations.apply_orientation(array, grid.orientation)
    return reoriented


def from_ras(array: Array, grid: Grid) -> Array:
    """A view in the source axes of `grid` of an array in RAS+, a volume or a part of one: `to_ras` undone."""
    ras = orientations.axcodes2ornt("RAS")
    reoriented: Array = orientations.apply_orientation(array, orientations.ornt_transform(ras, grid.orientation))
    return reoriented


def read_volume(file: FileInfo, content: bytes | None = None) -> Volume:
    """Read an image of any integer or floating type and any orientation.

    content: the bytes of the file, where they were read already

    Raises CaseError for a file that `read_nifti` refuses, with NaN or infinite voxels, or 0 everywhere.
    """
    raw, header = read_nifti(file, content)
    _check_values(file.path, raw, header)
    grid = _grid(header)
    voxels = to_ras(raw.reshape(grid.shape, order="F"), grid)
    return Volume(voxels=voxels, slope=header.slope, inter=header.inter, grid=grid)


def read_labels(file: FileInfo, coding: str, content: bytes | None = None) -> tuple[Labels, Grid]:
    """Read a segmentation in the codes of `coding`: labels (X, Y, Z) in RAS+, and the file's grid.

    Any dtype will do, as long as every value, scaled as the header says, is exactly a code. No tumour
    at all is fine. Raises CaseError for a file that `read_nifti` refuses, and for a value that the
    coding does not define.
    """
    raw, header = read_nifti(file, content)
    codes = raw if (header.slope, header.inter) == (1, 0) else header.slope * raw + header.inter
    try:
        labels = CODINGS[coding].decode(codes)
    except UnknownLabelError as error:
        raise CaseError(file.path, str(error)) from error
    grid = _grid(header)
    return to_ras(labels.reshape(grid.shape, order="F"), grid), grid


def nifti_bytes(labels: Labels, grid: Grid, coding: str) -> bytes:
    """The .nii.gz file (uint8, codes of `coding`) of a label map in the source axes of `grid`.

    Shape, affine, qform and sform with their codes, voxel sizes and units are the source's. Free-text fields
    stay empty, and the same labels give the same bytes.
    """
    return encode_nifti(CODINGS[coding].encode(labels), grid.header)


def check_same_grid(file: FileInfo, grid: Grid, other_file: FileInfo, other_grid: Grid) -> None:
    """Raise CaseError for `other_file` unless the two files, reoriented to RAS+, lie voxel on voxel.

    Entries of the affines may differ by `GRID_TOLERANCE_MM`. The files may store their axes in different orders.
    """
    if other_grid.ras_shape != grid.ras_shape:
        reason = f"shape {other_grid.ras_shape}, but {file.name} has {grid.ras_shape}"
        raise CaseError(other_file.path, reason)
    affine, other_affine = grid.ras_affine, other_grid.ras_affine
    differences = np.abs(other_affine - affine)
    if differences.max() > GRID_TOLERANCE_MM:
        row, column = np.unravel_index(differences.argmax(), differences.shape)
        reason = (
            f"its affine differs from that of {file.name}: in RAS+, row {row} column {column} is "
            f"{other_affine[row, column]:g} here and {affine[row, column]:g} there"
        )
        raise CaseError(other_file.path, reason)


def _grid(header: Header) -> Grid:
    return Grid(shape=header.shape, affine=header.affine, header=header.geometry)


def _check_values(path: str, raw: Array, header: Header) -> None:
    """Refuse an image with NaN or infinite voxels, and one that is 0 everywhere."""
    x, y, z = header.shape
    centre = x // 2 + x * (y // 2 + y * (z // 2))
    if raw.dtype.kind != "f" and raw[0] != raw[centre]:
        return  # whole numbers that differ, which corner and centre nearly always settle
    low, high = raw.min().item(), raw.max().item()
    if not (math.isfinite(low) and math.isfinite(high)):  # one NaN voxel makes both NaN
        n_nan, n_infinite = np.count_nonzero(np.isnan(raw)), np.count_nonzero(np.isinf(raw))
        raise CaseError(path, f"{n_nan} NaN and {n_infinite} infinite voxels of {raw.size}")
    if low == high and header.slope * low + header.inter == 0:
        raise CaseError(path, "every voxel is 0")
