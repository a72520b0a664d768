"""Small volumes in memory, stored in any orientation, and the cases cropped from them."""

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from brats.data.case import Case
from brats.data.cases import CaseFiles
from brats.data.grid import Grid, from_ras, to_ras
from brats.data.preprocess import crop_case
from brats.data.sources import source_hash
from brats.data.stacks import SliceBatch
from brats.data.trim import trim
from brats.data.volume import Volume
from brats.labels import ED, ET, NCR, Labels
from brats.storage import FileInfo

Array = npt.NDArray[Any]

ORIENTATIONS = [
    (order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((1, -1), repeat=3)
]
"""All 48: source axis i runs along RAS+ axis order[i], in the direction flips[i]."""

SHAPE = (9, 8, 7)


def oriented_affine(order: tuple[int, ...], flips: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """The affine of one of `ORIENTATIONS`, with spacing 1, 2 and 4 mm along the source axes."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for source, (ras, flip) in enumerate(zip(order, flips, strict=True)):
        affine[ras, source] = flip * 2**source
    affine[:3, 3] = (10, -20, 30)
    return affine


def grid_of(shape: tuple[int, ...], affine: Array | None = None) -> Grid:
    """The grid of a file of this shape, by default in RAS+ and of 1 mm voxels."""
    x, y, z = shape
    rows = (np.eye(4) if affine is None else affine).tolist()
    return Grid.of((x, y, z), tuple(tuple(row) for row in rows), {"pixdim": [1.0, 0.1]})


def oriented_grid(ras_shape: tuple[int, int, int], order: tuple[int, ...], flips: tuple[int, ...]) -> Grid:
    """The grid of a file in one of `ORIENTATIONS` whose volume has this shape in RAS+."""
    return grid_of(tuple(ras_shape[axis] for axis in order), oriented_affine(order, flips))


def stored(voxels: Array, grid: Grid) -> Array:
    """An array in RAS+ as it comes from a file of this grid: the same voxels in the memory order of the file."""
    return to_ras(np.asfortranarray(from_ras(voxels, grid)), grid)


def volume_of(voxels: Array, slope: float = 1.0, inter: float = 0.0, grid: Grid | None = None) -> Volume:
    """An image with these voxels (X, Y, Z) in RAS+, by default stored so."""
    return Volume(voxels=voxels, slope=slope, inter=inter, grid=grid or grid_of(voxels.shape))


def files_of(modalities: Iterable[str], case_id: str = "case") -> CaseFiles:
    """Files of 10 bytes each, with a segmentation of 5; they are not there."""
    return CaseFiles(
        case_id=case_id,
        patient_id=f"patient of {case_id}",
        layout="brats2018",
        coding="brats2018",
        images={name: FileInfo(f"/data/{case_id}_{name}.nii.gz", 10) for name in modalities},
        segmentation=FileInfo(f"/data/{case_id}_seg.nii.gz", 5),
        grade="LGG",
    )


def case_of(
    case_id: str = "case",
    labels: Labels | None = None,
    *,
    slope: float = 1.0,
    inter: float = 0.0,
    grid: Grid | None = None,
    **images: Array,
) -> Case:
    """The case of these images and labels (X, Y, Z) in RAS+."""
    trimmed = {name: trim(volume_of(voxels, slope, inter, grid)) for name, voxels in images.items()}
    return crop_case(files_of(images, case_id), trimmed, labels)


def image(seed: int, dtype: npt.DTypeLike, low: float, high: float, background: float = 0) -> Array:
    """A volume of `SHAPE` whose inner 5 x 4 x 3 voxels are drawn from low to high, both of which occur."""
    voxels = np.full(SHAPE, background, dtype)
    inner = np.random.default_rng(seed).uniform(low, high, (5, 4, 3))
    inner[0, 0, :2] = (low, high)
    voxels[2:7, 3:7, 1:4] = inner.astype(dtype)
    return voxels


def labels_of(n_ncr: int = 1, n_ed: int = 2, n_et: int = 3) -> Labels:
    """So many voxels of each tissue in `SHAPE`: NCR in the first slice of the crop of `image`, ED, then ET."""
    labels = np.zeros(SHAPE, np.uint8)
    for z, (n_voxels, label) in enumerate(((n_ncr, NCR), (n_ed, ED), (n_et, ET)), start=1):
        labels[3, 3 : 3 + n_voxels, z] = label
    return labels


def assert_same_case(one: Case, other: Case) -> None:
    """Two cases agree in every value and every number type."""
    assert list(one.images) == list(other.images)
    for name, voxels in one.images.items():
        np.testing.assert_array_equal(other.images[name], voxels)
        assert other.images[name].dtype == voxels.dtype
    if one.labels is None:
        assert other.labels is None
    else:
        np.testing.assert_array_equal(np.asarray(other.labels), one.labels)
    for field in (
        "case_id",
        "patient_id",
        "layout",
        "grade",
        "grid",
        "box",
        "voxel_hash",
        "warnings",
    ):
        assert getattr(other, field) == getattr(one, field)
    assert source_hash(other.sources) == source_hash(one.sources)
    assert dict(other.intensities) == dict(one.intensities)


def assert_same_batch(one: SliceBatch, other: SliceBatch) -> None:
    """Two batches agree bit for bit."""
    for field in dataclasses.fields(SliceBatch):
        array, expected = getattr(one, field.name), getattr(other, field.name)
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
