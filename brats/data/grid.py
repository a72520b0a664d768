"""The voxel grid of a file: its place in space, its turn to RAS+ and back, and whether two files lie on one.

Axes: `X Y Z` voxel axes in RAS+ (growing towards the patient's right, front and head). "Source axes" are
those of the file, in any order and direction. Whole axes are swapped and flipped; nothing is resampled.
"""

import itertools
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import nibabel as nib
import nibabel.affines
import numpy as np
import numpy.typing as npt
from nibabel import orientations

from brats.data.mha import LINES
from brats.errors import CaseError
from brats.storage import FileInfo

Array = npt.NDArray[Any]
Affine = tuple[tuple[float, ...], ...]
Axes = tuple[tuple[int, int], ...]

# How far two files of one case may lie apart, as a share of a voxel. Voxel sizes or directions that were rounded to
# four decimals move the far end of 240 voxels by 0.01 to 0.02; a true shift is 0.1 or more.
GRID_TOLERANCE = 0.05
# Files this much farther apart were not resampled or cropped a little differently: one has lost its place.
FAR_VOXELS = 5


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The voxel grid of one file, with all that another file needs to overlay it exactly. JSON-able."""

    shape: tuple[int, int, int]
    """In source axes."""
    affine: Affine
    """4 x 4, source voxel indices to RAS+ mm."""
    header: dict[str, Any]
    """The NIfTI header fields of the geometry, repaired: pixdim, units, qform and sform with their codes; with the
    lines of a MetaImage file, if it is of one."""
    axes: Axes
    """The orientation as it was found where the file was read: for each source axis the RAS+ axis, and direction.

    At 45 degrees two axes are equally near, and rounding decides: another file or machine may find the other one.
    """

    @cached_property
    def orientation(self) -> Array:
        """(3, 2): for each source axis the RAS+ axis it runs along, and its direction, 1 or -1."""
        return np.array(self.axes, np.float64)

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

    @property
    def ras_corners_mm(self) -> npt.NDArray[np.float64]:
        """(8, 3): the corners of the volume, in the order of its RAS+ voxel axes."""
        edges = itertools.product(*((-0.5, size - 0.5) for size in self.ras_shape))
        return np.asarray(nib.affines.apply_affine(self.ras_affine, np.array([*edges])), np.float64)

    @property
    def is_mha(self) -> bool:
        """Whether it is that of a MetaImage file."""
        return LINES in self.header

    def turned_like(self, other: "Grid") -> "Grid":
        """This grid, its axes turned to lie on the other's in RAS+, where both are the same grid."""
        to_other = np.linalg.inv(other.ras_affine) @ np.array(self.affine)
        return replace(self, axes=_find_axes(to_other))

    @classmethod
    def of(cls, shape: tuple[int, int, int], affine: Affine, header: dict[str, Any]) -> "Grid":
        """The grid of these, its axes those nearest to the affine."""
        return cls(shape=shape, affine=affine, header=header, axes=_find_axes(np.array(affine)))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Grid":
        """The inverse of `to_json`, exact also after a passage through JSON text."""
        x, y, z = value["shape"]
        affine = tuple(tuple(row) for row in value["affine"])
        axes = tuple((axis, direction) for axis, direction in value["axes"])
        return cls(shape=(x, y, z), affine=affine, header=value["header"], axes=axes)


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


def turn_alike(array: Array, grid: Grid, like: Grid) -> tuple[Array, Grid]:
    """A view of a RAS+ array and its grid, turned so that they lie on those of another file of the same case.

    array: a volume, or a part of one

    That changes nothing but for files whose orientation rounding decides, at 45 degrees.
    """
    turned = grid.turned_like(like)
    in_ras: Array = orientations.apply_orientation(from_ras(array, grid), turned.orientation)
    return in_ras, turned


def check_same_grid(file: FileInfo, grid: Grid, other_file: FileInfo, other_grid: Grid) -> None:
    """Raise CaseError for `other_file` unless the two files, reoriented to RAS+, lie voxel on voxel.

    No corner of the volume may be farther off than `GRID_TOLERANCE`, which finds shifts, other voxel sizes and
    rotations alike. The files may store their axes in different orders.
    """
    lost = _lost_header(file, grid, other_file, other_grid)
    if other_grid.ras_shape != grid.ras_shape:
        reason = f"shape {other_grid.ras_shape}, but {file.name} has {grid.ras_shape}" + (
            f"; {lost}" if lost else ""
        )
        raise CaseError(other_file.path, reason)
    apart_mm = np.linalg.norm(other_grid.ras_corners_mm - grid.ras_corners_mm, axis=1).max()
    apart = apart_mm / min(*grid.spacing_xyz_mm, *other_grid.spacing_xyz_mm)
    if not apart <= GRID_TOLERANCE:
        reason = (
            f"its affine differs from that of {file.name}: a corner of the volume lies {apart_mm:.3g} mm "
            f"({apart:.3g} voxels) off, at most {GRID_TOLERANCE:g} are accepted; "
            + ((apart >= FAR_VOXELS and lost) or "resample one to the other's grid")
        )
        raise CaseError(other_file.path, reason)


def _lost_header(file: FileInfo, grid: Grid, other_file: FileInfo, other_grid: Grid) -> str:
    """What to do where one of two files of equal shape has the affine of a program that knew none; "" elsewhere."""
    lost, other_lost = _default_affine(grid), _default_affine(other_grid)
    if grid.shape != other_grid.shape or bool(lost) == bool(other_lost):
        return ""
    if other_lost:
        return f"its header seems lost ({other_lost}): copy the header of {file.name}"
    return f"the header of {file.name} seems lost ({lost}): copy the header of {other_file.name}"


def _default_affine(grid: Grid) -> str:
    """What the affine is where it tells no position, as nobody has set one; "" elsewhere."""
    affine = np.array(grid.affine)
    if grid.header["qform_code"] == grid.header["sform_code"] == 0:
        return "no affine in it"
    if np.array_equal(np.abs(affine), np.eye(4)):
        return "identity affine"
    return "an affine of voxel sizes alone" if np.array_equal(affine, np.diag(affine.diagonal())) else ""


def _find_axes(affine: npt.NDArray[np.float64]) -> Axes:
    """For each input axis of an affine the output axis nearest to it, and its direction, as nibabel has them."""
    return tuple((int(axis), int(direction)) for axis, direction in nib.io_orientation(affine))
