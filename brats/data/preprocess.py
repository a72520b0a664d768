"""From the files of a case to its crop: read, find the brain, cut it out, measure its intensities.

Axes: `X Y Z` voxel axes of a RAS+ volume; `Z H W` slices of a crop with H = X and W = Y.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import xxhash

from brats.data.background import Background, find_background
from brats.data.case import HASH_VERSION, Array, Box, Case, Intensity, crop
from brats.data.cases import CaseFiles
from brats.data.plausibility import find_warnings
from brats.data.read_files import read_files
from brats.data.volume import Grid, Volume, check_same_grid, from_ras, turn_alike
from brats.errors import CaseError
from brats.labels import Labels

_BLOCK_SLICES = 4


def read_case(files: CaseFiles, modalities: Sequence[str]) -> Case:
    """Read and crop one case. Raises CaseError naming the file at fault."""
    read = read_files(files, modalities)
    volumes = dict(read.volumes)
    first, *others = modalities
    for name in others:
        volumes[name] = volumes[name].turned_like(volumes[first].grid)
        check_same_grid(files.images[first], volumes[first].grid, files.images[name], volumes[name].grid)
    labels = None
    if files.segmentation and read.segmentation:
        found = read.segmentation
        labels, labels_grid = turn_alike(found.labels, found.grid, volumes[first].grid)
        check_same_grid(files.images[first], volumes[first].grid, files.segmentation, labels_grid)
    case = crop_case(files, volumes, labels)
    return replace(case, sources=read.sources, warnings=(*case.warnings, *read.warnings))


def crop_case(files: CaseFiles, volumes: Mapping[str, Volume], labels: Labels | None) -> Case:
    """Crop volumes (X, Y, Z) and labels to the box around the brain and every labelled voxel."""
    backgrounds = {name: find_background(volume) for name, volume in volumes.items()}
    first = next(iter(volumes))
    arrays = [(volume.voxels, volume.grid, backgrounds[name]) for name, volume in volumes.items()]
    box = brain_box(arrays if labels is None else [*arrays, (labels, volumes[first].grid, Background(0))])
    if box is None:
        paths = ", ".join(file.path for name, file in files.images.items() if name in volumes)
        raise CaseError(paths, "every voxel has the background value; there is no brain in these images")
    images = {name: crop(volume.voxels, box) for name, volume in volumes.items()}
    case = Case(
        case_id=files.case_id,
        patient_id=files.patient_id,
        layout=files.layout,
        coding=files.coding,
        grade=files.grade,
        images=images,
        labels=None if labels is None else crop(labels, box),
        intensities={
            name: measure_intensity(images[name], volume, backgrounds[name], files.images[name].path)
            for name, volume in volumes.items()
        },
        grid=volumes[first].grid,
        box=box,
        voxel_hash=hash_brain(images[first], volumes[first], backgrounds[first]),
        sources=files.sources(list(volumes)),
    )
    return replace(case, warnings=find_warnings(case, files))


def brain_box(volumes: Sequence[tuple[Array, Grid, Background]]) -> Box | None:
    """The smallest box around every voxel of every volume that is not its background; None without any.

    volumes: images, and labels as one more, (X, Y, Z) in RAS+, each with its grid and its background. In real cases
             some labelled voxels lie outside the brain of some modality, which may be the only one used.
    """
    boxes = [box for volume in volumes if (box := used_box(*volume))]
    if not boxes:
        return None
    x0, y0, z0 = np.min([box.start for box in boxes], axis=0).tolist()
    x1, y1, z1 = np.max([box.stop for box in boxes], axis=0).tolist()
    return Box(start=(x0, y0, z0), stop=(x1, y1, z1))


def used_box(voxels: Array, grid: Grid, background: Background) -> Box | None:
    """The smallest box around every voxel of a RAS+ volume that is not the background, None without any.

    Searched in the order of the file, in which NumPy's fast loops run; the box is reoriented instead of the voxels.
    The slices without brain are left out from either end, so that what lies between is read just once.
    """
    slices = from_ras(voxels, grid).T  # the last axis of a file is its slowest
    first, stop = 0, len(slices)
    while first < stop and not _used(slices[first], background).any():
        first += 1
    if first == stop:
        return None
    while not _used(slices[stop - 1], background).any():
        stop -= 1
    projection = np.bitwise_or.reduce(_used(slices[first:stop], background), axis=0)
    (x0, x1), (y0, y1) = (_range(projection.any(axis=axis)) for axis in (0, 1))
    return Box(start=(x0, y0, first), stop=(x1, y1, stop)).in_ras_axes(grid)


def _used(image: Array, background: Background) -> Array:
    """Not 0 where a voxel is not the background. Whole numbers over a background of 0 say so as they are."""
    return image if background == Background(0) and image.dtype.kind != "f" else background.is_brain(image)


def _range(used: npt.NDArray[np.bool_]) -> tuple[int, int]:
    indices = np.flatnonzero(used)
    return int(indices[0]), int(indices[-1]) + 1


def measure_intensity(image: Array, volume: Volume, background: Background, path: str) -> Intensity:
    """Mean and standard deviation of the values of a cropped image's own non-background voxels.

    In one pass over blocks that the cache holds, and about the first of the numbers, so that no digits cancel out.
    """
    n, first, total, squares = 0, 0.0, 0.0, 0.0
    for start in range(0, len(image), _BLOCK_SLICES):
        block = image[start : start + _BLOCK_SLICES]
        brain: Array = block[background.is_brain(block)].astype(np.float64)
        if not n and brain.size:
            first = float(brain[0])
        brain -= first
        n += brain.size
        total += float(brain.sum())
        squares += float(brain @ brain)
    if not n:
        raise CaseError(path, f"every voxel is {background.level:g}; the image is empty")
    if squares == 0:
        raise CaseError(path, f"every brain voxel is {first:g}; the image has no contrast")
    mean, std = first + total / n, math.sqrt(squares / n - (total / n) ** 2)
    return Intensity(
        dtype=image.dtype.str,
        slope=volume.slope,
        inter=volume.inter,
        background=background.level,
        tolerance=background.tolerance,
        mean=mean * volume.slope + volume.inter,
        std=std * abs(volume.slope),
    )


def hash_brain(image: Array, volume: Volume, background: Background) -> str:
    """A hash of the values inside the brain: the same for one patient under two editions' names.

    It does not depend on the size of the volume around the brain, the dtype or the orientation of the file.
    """
    brain: Array = image[background.is_brain(image)]
    values: Array = brain if (volume.slope, volume.inter) == (1, 0) else brain * volume.slope + volume.inter
    return HASH_VERSION + xxhash.xxh3_128_hexdigest(values.astype(np.float32).data)
