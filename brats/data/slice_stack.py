"""A volume put together from files of single slices, which say neither its voxel size nor where it lies.

Axes: `C` channel, `Z` slice, `H W` axes of a slice as its file has them, H = X and W = Y.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brats.data.grid import Grid
from brats.data.hdf5 import read_hdf5_slice
from brats.data.nifti import geometry_fields, read_content
from brats.data.sources import content_hash
from brats.errors import CaseError
from brats.labels import ED, ET, NCR, Labels
from brats.storage import FileInfo, is_remote

MASKS = (NCR, ED, ET)
"""The label of each mask of a slice."""

_AT_ONCE = 16  # files read side by side from S3, where their latencies overlap


@dataclass(frozen=True, kw_only=True)
class SliceStack:
    """The slices of a case.

    images: (C, Z, W, H), float32, so that the transpose of a channel is (H, W, Z) in the memory order of NIfTI
    labels: (Z, W, H)
    hashes: of the content of each file
    """

    images: npt.NDArray[np.float32]
    labels: Labels
    hashes: tuple[str, ...]


def read_stack(files: Sequence[FileInfo]) -> SliceStack:
    """Read slices, the lowest first. 64 bits are rounded to 32.

    Raises CaseError for a file that `read_hdf5_slice` refuses, a slice of another shape than the first, pixels
    without a value, and masks that overlap or hold another value than 0 and 1.
    """
    first = _read(files[0])
    height, width, n_channels = first[0].shape
    images = np.empty((n_channels, len(files), width, height), np.float32)
    labels = np.empty((len(files), width, height), np.uint8)

    def fill(number: int) -> str:
        image, mask, found_hash = _read(files[number]) if number else first
        if image.shape != first[0].shape:
            reason = f"a slice of {image.shape[:2]} pixels, but {files[0].name} has {first[0].shape[:2]}"
            raise CaseError(files[number].path, reason)
        if not np.isfinite(image).all():
            raise CaseError(files[number].path, "NaN or infinite pixels; set those that have no value to 0")
        images[:, number] = image.transpose(2, 1, 0)
        labels[number] = _labels(files[number], mask).T
        return found_hash

    with ThreadPoolExecutor(_AT_ONCE if is_remote(files[0].path) else 1) as pool:
        hashes = tuple(pool.map(fill, range(len(files))))
    return SliceStack(images=images, labels=labels, hashes=hashes)


def stack_grid(stack: SliceStack, spacing_hwz_mm: Sequence[float]) -> Grid:
    """The grid of a stack, (H, W, Z) in its source axes, with voxels of this size along these.

    It lies as BraTS stores its volumes, of which such slices are cut: H grows to the left, W to the back, Z
    upwards.
    """
    n_slices, width, height = stack.labels.shape
    x, y, z = spacing_hwz_mm
    affine = np.diag([-x, -y, z, 1.0])
    affine[1, 3] = y * (width - 1)
    fields = nib.Nifti1Header()
    fields.set_data_shape((height, width, n_slices))
    fields.set_xyzt_units("mm")
    fields.set_qform(affine, code=1)
    fields.set_sform(affine, code=1)
    rows = tuple(tuple(row) for row in fields.get_sform().tolist())
    return Grid.of((height, width, n_slices), rows, geometry_fields(fields))


def _read(file: FileInfo) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.uint8], str]:
    """The images and masks of a slice, and the hash of its file."""
    content = read_content(file)
    image, mask = read_hdf5_slice(file, content)
    return image, mask, content_hash(content)


def _labels(file: FileInfo, mask: npt.NDArray[np.uint8]) -> Labels:
    """The labels (H, W) of masks (H, W, 3)."""
    if mask.max(initial=0) > 1:
        raise CaseError(file.path, f"mask holds the value {mask.max()}; each of its three masks is 0 or 1")
    if n_both := np.count_nonzero(mask.sum(axis=2) > 1):
        raise CaseError(file.path, f"{n_both} pixels are in two of its masks, which stand for NCR, ED and ET")
    return mask @ np.array(MASKS, np.uint8)
