"""From the files of a case to its crop: read, find the brain, cut it out, measure its intensities.

Axes: `X Y Z` voxel axes of a RAS+ volume; `Z H W` slices of a crop with H = X and W = Y.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import xxhash

from brats.data.background import Background
from brats.data.case import HASH_VERSION, Array, Case, Intensity, crop
from brats.data.cases import CaseFiles
from brats.data.grid import check_same_grid, turn_alike
from brats.data.plausibility import find_warnings
from brats.data.read_files import read_files
from brats.data.trim import Trimmed, brain_box, used_box
from brats.data.volume import Volume
from brats.errors import CaseError
from brats.labels import Labels

_BLOCK_SLICES = 4
_BLOCK_VOXELS = 2**15  # times the square of 16 bits: a sum of 47 bits


def read_case(files: CaseFiles, modalities: Sequence[str]) -> Case:
    """Read and crop one case. Raises CaseError naming the file at fault."""
    read = read_files(files, modalities)
    images = dict(read.images)
    first, *others = modalities
    grid = images[first].volume.grid
    for name in others:
        images[name] = images[name].turned_like(grid)
        check_same_grid(files.images[first], grid, files.images[name], images[name].volume.grid)
    labels = None
    if files.segmentation and read.segmentation:
        found = read.segmentation
        labels, labels_grid = turn_alike(found.labels, found.grid, grid)
        check_same_grid(files.images[first], grid, files.segmentation, labels_grid)
    case = crop_case(files, images, labels)
    return replace(case, sources=read.sources, warnings=(*case.warnings, *read.warnings))


def crop_case(files: CaseFiles, trimmed: Mapping[str, Trimmed], labels: Labels | None) -> Case:
    """Crop images and labels (X, Y, Z) to the box around the brain and every labelled voxel."""
    first = next(iter(trimmed.values()))
    tumour = None if labels is None else used_box(labels, first.volume.grid, Background(0))
    box = brain_box([*(image.used for image in trimmed.values()), tumour])
    if box is None:
        paths = ", ".join(file.path for name, file in files.images.items() if name in trimmed)
        raise CaseError(paths, "every voxel has the background value; there is no brain in these images")
    images = {name: image.crop(box) for name, image in trimmed.items()}
    case = Case(
        case_id=files.case_id,
        patient_id=files.patient_id,
        layout=files.layout,
        coding=files.coding,
        grade=files.grade,
        images=images,
        labels=None if labels is None else crop(labels, box),
        intensities={
            name: measure_intensity(images[name], image.volume, image.background, files.images[name].path)
            for name, image in trimmed.items()
        },
        grid=first.volume.grid,
        box=box,
        voxel_hash=hash_brain(next(iter(images.values())), first.volume, first.background),
        sources=files.sources(list(trimmed)),
    )
    return replace(case, warnings=find_warnings(case, files))


def measure_intensity(image: Array, volume: Volume, background: Background, path: str) -> Intensity:
    """Mean and standard deviation of the values of a cropped image's own non-background voxels."""
    n, mean, std = (_exact_moments if image.dtype.kind != "f" and image.itemsize <= 2 else _moments)(
        image, background
    )
    if not n:
        raise CaseError(path, f"every voxel is {background.level:g}; the image is empty")
    if std == 0:
        raise CaseError(path, f"every brain voxel is {mean:g}; the image has no contrast")
    return Intensity(
        dtype=image.dtype.str,
        slope=volume.slope,
        inter=volume.inter,
        background=background.level,
        tolerance=background.tolerance,
        mean=mean * volume.slope + volume.inter,
        std=std * abs(volume.slope),
    )


def _exact_moments(image: Array, background: Background) -> tuple[int, float, float]:
    """Number, mean and standard deviation of the raw values that are not background, of at most 16 bits each.

    The sums of a block fit into the 53 bits of a float: they are exact, and the same on every machine.
    """
    flat = image.reshape(-1)
    numbers = np.empty(min(flat.size, _BLOCK_VOXELS), np.float64)
    n = total = squares = 0
    for start in range(0, flat.size, _BLOCK_VOXELS):
        block = flat[start : start + _BLOCK_VOXELS]
        # A background of 0 adds nothing: leaving it out takes longer than adding it up.
        brain = block if background == Background(0) else block[background.is_brain(block)]
        values = numbers[: brain.size]
        values[:] = brain
        n += int(np.count_nonzero(block)) if brain is block else brain.size
        total += int(values.sum())
        squares += int(values @ values)
    return n, total / max(1, n), math.sqrt(n * squares - total**2) / max(1, n)


def _moments(image: Array, background: Background) -> tuple[int, float, float]:
    """Number, mean and standard deviation of the raw values that are not background, of any type.

    In one pass over blocks that the cache holds, and about the first of the numbers, so that no digits cancel out.
    """
    n, first, total, squares = 0, 0.0, 0.0, 0.0
    for block in _blocks(image):
        brain: Array = block[background.is_brain(block)].astype(np.float64)
        if not n and brain.size:
            first = float(brain[0])
        brain -= first
        n += brain.size
        total += float(brain.sum())
        squares += float(brain @ brain)
    mean = total / max(1, n)
    return n, first + mean, math.sqrt(squares / max(1, n) - mean**2)


def hash_brain(image: Array, volume: Volume, background: Background) -> str:
    """A hash of the values inside the brain: the same for one patient under two editions' names.

    It does not depend on the size of the volume around the brain, the dtype or the orientation of the file.
    """
    brain_hash = xxhash.xxh3_128()
    scaled = (volume.slope, volume.inter) != (1, 0)
    for block in _blocks(image):
        brain: Array = block[background.is_brain(block)]
        values = brain * volume.slope + volume.inter if scaled else brain
        brain_hash.update(values.astype(np.float32).data)
    return HASH_VERSION + brain_hash.hexdigest()


def _blocks(image: Array) -> Iterator[Array]:
    """A cropped image in blocks that the cache holds, in order."""
    return (image[start : start + _BLOCK_SLICES] for start in range(0, len(image), _BLOCK_SLICES))
