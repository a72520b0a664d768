"""From the files of a case to its crop: read, find the brain, cut it out, measure its intensities.

Axes: `X Y Z` voxel axes of a RAS+ volume. A crop is stored slice by slice, `Z H W` with H = X and W = Y, so that
`crop[k]` is one contiguous slice.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from nibabel import orientations

from brats.data.cases import CaseFiles
from brats.data.volume import Grid, Volume, check_same_grid, read_labels, read_volume
from brats.errors import CaseError
from brats.labels import Labels
from brats.storage import is_remote

Array = npt.NDArray[Any]

_BLOCK_SLICES = 4


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box of voxels in the RAS+ volume: `start` included, `stop` excluded, in the order X Y Z."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        x, y, z = (stop - start for start, stop in zip(self.start, self.stop, strict=True))
        return x, y, z

    def slices(self) -> tuple[slice, slice, slice]:
        x, y, z = (slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True))
        return x, y, z


@dataclass(frozen=True, kw_only=True)
class Intensity:
    """How the stored numbers of one image become network input.

    Values are `slope * stored + inter`. Mean and standard deviation are of the values of the voxels that are not
    background; `background` is a stored number, 0 in every BraTS edition.
    """

    dtype: str
    slope: float
    inter: float
    background: float
    mean: float
    std: float

    def stored_offset_scale(self) -> tuple[float, float]:
        """Offset and scale of the stored numbers: `(stored - offset) / scale` has mean 0 and std 1."""
        return (self.mean - self.inter) / self.slope, self.std / self.slope


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case, cropped: all that training, prediction and scoring need of it.

    images: stored numbers of each modality, (Z, H, W), in the file's own number type
    labels: (Z, H, W), None for a case without segmentation
    box:    where the crop lies in the RAS+ volume; slice k of the crop is z = box.start[2] + k
    """

    case_id: str
    patient_id: str
    layout: str
    grade: str
    images: Mapping[str, Array]
    labels: Labels | None
    intensities: Mapping[str, Intensity]
    grid: Grid
    box: Box
    voxel_hash: str
    source_bytes: int

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel spacing of the crop, in its order Z H W."""
        x, y, z = self.grid.spacing_mm
        return z, x, y

    @property
    def n_outside(self) -> int:
        """Voxels of the full volume that lie outside the crop."""
        return int(np.prod(self.grid.shape)) - int(np.prod(self.box.shape))

    def uncropped(self, crop: Array, fill: float = 0) -> Array:
        """A crop (Z, H, W) back in its place in the RAS+ volume (X, Y, Z)."""
        return uncrop(crop, self.box, self.grid.ras_shape, fill)

    def only(self, modalities: Sequence[str]) -> Self:
        """This case without the modalities that are not asked for.

        Raises CaseError naming the modality that the case lacks.
        """
        check_modalities(self.images, modalities)
        return replace(self, images={name: self.images[name] for name in modalities})


def check_modalities(available: Mapping[str, Any], wanted: Sequence[str]) -> None:
    """Raise CaseError naming the modalities that a case lacks."""
    missing = [name for name in wanted if name not in available]
    if missing:
        raise CaseError("", f"no {' and no '.join(missing)}; the case has {', '.join(available)}")


def in_source_axes(case: Case, labels: Labels) -> tuple[Labels, int]:
    """A crop (Z, H, W) as slices along the source file's third axis, in its axes, and the index of the first."""
    ras = orientations.axcodes2ornt("RAS")
    orientation = case.grid.orientation
    turn = orientations.ornt_transform(ras, orientation)
    turned = orientations.apply_orientation(np.moveaxis(labels, 0, 2), turn)
    axis, direction = int(orientation[2, 0]), orientation[2, 1]
    first = case.box.start[axis] if direction > 0 else case.grid.ras_shape[axis] - case.box.stop[axis]
    return np.moveaxis(turned, 2, 0), first


def read_case(files: CaseFiles, modalities: Sequence[str]) -> Case:
    """Read and crop one case. Raises CaseError naming the file at fault."""
    wanted = [files.images[name] for name in modalities]
    workers = len(wanted) + 1 if any(is_remote(file.path) for file in wanted) else 1
    with ThreadPoolExecutor(workers) as pool:  # on S3 the latencies of the files of a case overlap
        reading = [pool.submit(read_volume, file) for file in wanted]
        segmented = files.segmentation and pool.submit(read_labels, files.segmentation, files.layout)
        volumes = dict(zip(modalities, (future.result() for future in reading), strict=True))
        labels, labels_grid = segmented.result() if segmented else (None, None)
    first, *others = modalities
    for name in others:
        check_same_grid(files.images[first], volumes[first].grid, files.images[name], volumes[name].grid)
    if files.segmentation is not None and labels_grid is not None:
        check_same_grid(files.images[first], volumes[first].grid, files.segmentation, labels_grid)
    return crop_case(files, volumes, labels)


def crop_case(files: CaseFiles, volumes: Mapping[str, Volume], labels: Labels | None) -> Case:
    """Crop volumes (X, Y, Z) and labels to the box around the brain and every labelled voxel."""
    backgrounds = {name: find_background(volume) for name, volume in volumes.items()}
    box = brain_box([(volume.voxels, backgrounds[name]) for name, volume in volumes.items()], labels)
    if box is None:
        paths = ", ".join(file.path for name, file in files.images.items() if name in volumes)
        raise CaseError(paths, "every voxel has the background value; there is no brain in these images")
    images = {name: crop(volume.voxels, box) for name, volume in volumes.items()}
    first = next(iter(volumes))
    return Case(
        case_id=files.case_id,
        patient_id=files.patient_id,
        layout=files.layout,
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
        source_bytes=files.source_bytes(list(volumes)),
    )


def find_background(volume: Volume) -> float:
    """The stored number that means "outside the brain".

    It is the number that the eight corners of the volume share: 0 in BraTS, something else in images that were
    z-scored with their background. Where the corners differ, the stored number nearest to the value 0.
    """
    corners = np.unique(volume.voxels[np.ix_(*[(0, -1)] * 3)])
    if len(corners) == 1:
        return float(corners[0])
    zero = (0 - volume.inter) / volume.slope
    return zero if volume.voxels.dtype.kind == "f" else round(zero)


def brain_box(images: Sequence[tuple[Array, float]], labels: Labels | None) -> Box | None:
    """The smallest box around every voxel of every image (X, Y, Z) that is not its background, and every label.

    None where there is no such voxel. In real cases some labelled voxels lie outside the brain of some modality,
    which may be the only one used.
    """
    everything = [*images, (labels, 0.0)] if labels is not None else images
    boxes = [box for image in everything if (box := _box(*image))]
    if not boxes:
        return None
    x0, y0, z0 = np.min([box.start for box in boxes], axis=0).tolist()
    x1, y1, z1 = np.max([box.stop for box in boxes], axis=0).tolist()
    return Box(start=(x0, y0, z0), stop=(x1, y1, z1))


def is_brain(image: Array, background: float) -> npt.NDArray[np.bool_]:
    """Where stored numbers are not the background."""
    number: float = int(background) if image.dtype.kind != "f" and float(background).is_integer() else background
    brain: npt.NDArray[np.bool_] = image != number  # a float would make NumPy turn an image of integers into floats
    return brain


def _box(image: Array, background: float) -> Box | None:
    """The smallest box around every voxel of an image (X, Y, Z) that is not the background, None without any.

    Looked for in the order of memory, in which NumPy's fast loops run: they do not over the turned and flipped
    views that RAS+ makes of files. The slices without brain are left out from either end, so that what lies between
    is looked at just once.
    """
    order = np.argsort(np.abs(image.strides))[::-1]  # the axis whose neighbours lie side by side comes last
    flips = tuple(slice(None, None, -1 if stride < 0 else 1) for stride in image.strides)
    slices = image[flips].transpose(order)
    first, stop = 0, len(slices)
    while first < stop and not _used(slices[first], background).any():
        first += 1
    if first == stop:
        return None
    while not _used(slices[stop - 1], background).any():
        stop -= 1
    projection = np.bitwise_or.reduce(_used(slices[first:stop], background), axis=0)
    along = [(first, stop), _range(projection.any(axis=1)), _range(projection.any(axis=0))]
    (x0, x1), (y0, y1), (z0, z1) = (
        (size - along[place][1], size - along[place][0]) if stride < 0 else along[place]
        for place, size, stride in zip(np.argsort(order), image.shape, image.strides, strict=True)
    )
    return Box(start=(x0, y0, z0), stop=(x1, y1, z1))


def _used(image: Array, background: float) -> Array:
    """Not 0 where a voxel is not the background. Whole numbers over a background of 0 say so as they are."""
    return image if background == 0 and image.dtype.kind != "f" else is_brain(image, background)


def _range(used: npt.NDArray[np.bool_]) -> tuple[int, int]:
    indices = np.flatnonzero(used)
    return int(indices[0]), int(indices[-1]) + 1


def crop(volume: Array, box: Box) -> Array:
    """The box of a volume (X, Y, Z) as contiguous slices (Z, H, W)."""
    return np.ascontiguousarray(np.moveaxis(volume[box.slices()], 2, 0))


def uncrop(slices: Array, box: Box, shape: tuple[int, int, int], fill: float = 0) -> Array:
    """Slices (Z, H, W) in their place in a volume (X, Y, Z) that is `fill` elsewhere. The inverse of `crop`."""
    volume = np.full(shape, fill, slices.dtype, order="F")
    volume[box.slices()] = np.moveaxis(slices, 0, 2)
    return volume


def measure_intensity(image: Array, volume: Volume, background: float, path: str) -> Intensity:
    """Mean and standard deviation of the values of a cropped image's own non-background voxels.

    In one pass over blocks that the cache holds, and about the first of the numbers, so that no digits cancel out.
    """
    n, first, total, squares = 0, 0.0, 0.0, 0.0
    for start in range(0, len(image), _BLOCK_SLICES):
        block = image[start : start + _BLOCK_SLICES]
        brain: Array = block[is_brain(block, background)].astype(np.float64)
        if not n and brain.size:
            first = float(brain[0])
        brain -= first
        n += brain.size
        total += float(brain.sum())
        squares += float(brain @ brain)
    if not n:
        raise CaseError(path, f"every voxel is {background:g}; the image is empty")
    if squares == 0:
        raise CaseError(path, f"every brain voxel is {first:g}; the image has no contrast")
    mean, std = first + total / n, math.sqrt(squares / n - (total / n) ** 2)
    return Intensity(
        dtype=image.dtype.str,
        slope=volume.slope,
        inter=volume.inter,
        background=background,
        mean=mean * volume.slope + volume.inter,
        std=std * abs(volume.slope),
    )


def hash_brain(image: Array, volume: Volume, background: float) -> str:
    """A hash of the values inside the brain: the same for one patient under two editions' names.

    It does not depend on the size of the volume around the brain, the number type or the orientation of the file.
    """
    brain: Array = image[is_brain(image, background)]
    values: Array = brain if (volume.slope, volume.inter) == (1, 0) else brain * volume.slope + volume.inter
    return hashlib.sha256(values.astype(np.float32).data).hexdigest()[:32]
