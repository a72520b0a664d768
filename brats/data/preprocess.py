"""From the files of a case to its crop: read, find the brain, cut it out, measure its intensities.

Axes: `X Y Z` voxel axes of a RAS+ volume; `Z H W` slices of a crop with H = X and W = Y.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import xxhash

from brats.data.background import Background, find_background
from brats.data.case import HASH_VERSION, Array, Box, Case, Intensity, crop
from brats.data.cases import CaseFiles
from brats.data.layouts import SEGMENTATION
from brats.data.nifti import read_content
from brats.data.plausibility import find_warnings
from brats.data.sources import content_hash
from brats.data.volume import (
    Grid,
    Segmentation,
    Volume,
    check_same_grid,
    from_ras,
    read_segmentation,
    read_volume,
    turn_alike,
)
from brats.errors import CaseError
from brats.labels import Labels
from brats.storage import FileInfo, is_remote

_BLOCK_SLICES = 4
_BLOCK_VOXELS = 2**15  # times the square of 16 bits: a sum of 47 bits


@dataclass(frozen=True, kw_only=True)
class Trimmed:
    """An image as it is kept until the box of its case is known.

    volume: of its voxels those in `kept` alone, where all others are the one background value; else all
    kept:   where these voxels lie in the volume
    used:   the box around what is not background; None where all is
    """

    volume: Volume
    kept: Box
    used: Box | None
    background: Background

    def crop(self, box: Box) -> Array:
        """The voxels in a box that holds the brain, as contiguous slices (Z, H, W)."""
        inner = self.kept.overlap(box)
        x, y, z = inner.slices(self.kept.start)
        inside = np.ascontiguousarray(np.moveaxis(self.volume.voxels[x, y, z], 2, 0))
        if inner == box:
            return inside
        width, height, depth = box.shape
        image = np.full((depth, width, height), self.background.level, inside.dtype)
        x, y, z = inner.slices(box.start)
        image[z, x, y] = inside
        return image


def trim(volume: Volume, around: Box | None = None) -> Trimmed:
    """Find the background of an image and leave out what surrounds the brain, where that is one whole number.

    A case then takes the memory of one volume and of its crops, not of all volumes.

    around: what is kept too, because it is likely to belong to the box of the case
    """
    background = find_background(volume)
    used = used_box(volume.voxels, volume.grid, background)
    low, high = background.limits(volume.voxels.dtype)
    kept = Box(start=(0, 0, 0), stop=volume.grid.ras_shape)
    if used and low == high and volume.voxels.dtype.kind != "f":  # floats have two zeros
        kept = brain_box([used, around]) or kept
        volume = replace(volume, voxels=np.moveaxis(crop(volume.voxels, kept), 0, 2))
    return Trimmed(volume=volume, kept=kept, used=used, background=background)


def read_case(files: CaseFiles, modalities: Sequence[str]) -> Case:
    """Read and crop one case. Raises CaseError naming the file at fault."""
    wanted = [files.images[name] for name in modalities]
    on_s3 = any(is_remote(file.path) for file in wanted)
    images: dict[str, Trimmed] = {}
    hashes: dict[str, str] = {}
    with ThreadPoolExecutor(len(wanted) + 1) as pool:  # on S3 the latencies of the files of a case overlap
        reading = [
            pool.submit(_read_image, file).result if on_s3 else partial(_read_image, file) for file in wanted
        ]
        segmented = pool.submit(_read_segmentation, files).result if on_s3 else partial(_read_segmentation, files)
        for name, read in zip(modalities, reading, strict=True):
            images[name], hashes[name] = _trim_beside(files, name, read, images)
        segmentation, hashes[SEGMENTATION] = segmented()
    sources = tuple(replace(file, hash=hashes[file.kind]) for file in files.sources(modalities))
    if files.segmentation is None or segmentation is None:
        return replace(_crop_trimmed(files, images, None), sources=sources)
    first = modalities[0]
    grid = images[first].volume.grid
    labels, labels_grid = turn_alike(segmentation.labels, segmentation.grid, grid)
    check_same_grid(files.images[first], grid, files.segmentation, labels_grid)
    case = _crop_trimmed(files, images, labels)
    rounded = segmentation.warnings(files.segmentation)
    return replace(case, sources=sources, warnings=(*case.warnings, *rounded))


def _trim_beside(
    files: CaseFiles, name: str, read: Callable[[], tuple[Volume, str]], images: Mapping[str, Trimmed]
) -> tuple[Trimmed, str]:
    """An image of a case, trimmed and turned to lie on those read before, and the hash of its file."""
    volume, image_hash = read()
    if not images:
        return trim(volume), image_hash
    first, reference = next(iter(images.items()))
    volume = volume.turned_like(reference.volume.grid)
    check_same_grid(files.images[first], reference.volume.grid, files.images[name], volume.grid)
    return trim(volume, brain_box([image.used for image in images.values()])), image_hash


def _read_image(file: FileInfo) -> tuple[Volume, str]:
    """An image, and the hash of its file."""
    content = read_content(file)
    return read_volume(file, content), content_hash(content)


def _read_segmentation(files: CaseFiles) -> tuple[Segmentation | None, str]:
    """The segmentation of a case, and the hash of its file; None and "" without one."""
    if files.segmentation is None:
        return None, ""
    content = read_content(files.segmentation)
    return read_segmentation(files.segmentation, files.coding, content), content_hash(content)


def crop_case(files: CaseFiles, volumes: Mapping[str, Volume], labels: Labels | None) -> Case:
    """Crop volumes (X, Y, Z) and labels to the box around the brain and every labelled voxel."""
    return _crop_trimmed(files, {name: trim(volume) for name, volume in volumes.items()}, labels)


def _crop_trimmed(files: CaseFiles, trimmed: Mapping[str, Trimmed], labels: Labels | None) -> Case:
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


def brain_box(boxes: Sequence[Box | None]) -> Box | None:
    """The smallest box around others, those of the images and of the labels of a case; None without any.

    In real cases some labelled voxels lie outside the brain of some modality, which may be the only one used.
    """
    found = [box for box in boxes if box is not None]
    if not found:
        return None
    x0, y0, z0 = np.min([box.start for box in found], axis=0).tolist()
    x1, y1, z1 = np.max([box.stop for box in found], axis=0).tolist()
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
