"""Small NIfTI files, saved and loaded by nibabel, and their grids."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brats.data.grid import Grid
from brats.data.volume import read_volume
from brats.storage import FileInfo

VOXELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
BRATS_AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])  # stored LPS


def save(path: Path, voxels: npt.NDArray[Any] = VOXELS, affine: Any = BRATS_AFFINE) -> FileInfo:
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return FileInfo(str(path), path.stat().st_size)


def load(path: str) -> nib.Nifti1Image:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return image


def grid_of(file: FileInfo) -> Grid:
    return read_volume(file).grid


def rotation(degrees: float) -> npt.NDArray[np.float64]:
    """4 x 4, about the z axis."""
    affine = np.eye(4)
    angle = np.deg2rad(degrees)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return affine
