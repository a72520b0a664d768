"""A case, cropped: the images, labels and geometry that training, prediction and scoring need of it.

Axes: `X Y Z` voxel axes of the RAS+ volume. A crop is stored slice by slice, `Z H W` with H = X and W = Y, so that
`crop[k]` is one contiguous slice. "Source axes" are those of the file the case was read from.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from brats.data.background import Background
from brats.data.grid import Grid, from_ras
from brats.data.planes import COUNT_COLUMNS, slice_counts
from brats.data.sources import Sources, from_rows, to_rows
from brats.errors import CaseError
from brats.labels import Labels, count_tissues

Array = npt.NDArray[Any]
Description = dict[str, Any]
"""The metadata of a case, as JSON: of `Case.describe`."""

HASH_VERSION = "v2:"
"""How a voxel hash begins. Those of before have no version: SHA-256, with noise around the brain included."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box of voxels, `start` included, `stop` excluded; in RAS+ axes X Y Z unless another is named."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        x, y, z = (stop - start for start, stop in zip(self.start, self.stop, strict=True))
        return x, y, z

    def slices(self, origin: tuple[int, int, int] = (0, 0, 0)) -> tuple[slice, slice, slice]:
        """Where it lies in an array whose first voxel is `origin`."""
        edges = zip(self.start, self.stop, origin, strict=True)
        x, y, z = (slice(start - first, stop - first) for start, stop, first in edges)
        return x, y, z

    def overlap(self, other: Self) -> Self:
        """The box that lies in both, where there is one."""
        edges = zip(self.start, self.stop, other.start, other.stop, strict=True)
        return self._of([(max(start, first), min(stop, last)) for start, stop, first, last in edges])

    def in_source_axes(self, grid: Grid) -> Self:
        """The same voxels of a RAS+ volume, in the source axes of its grid."""
        edges = []
        for axis, direction in grid.orientation.astype(int).tolist():
            start, stop, size = self.start[axis], self.stop[axis], grid.ras_shape[axis]
            edges.append((start, stop) if direction > 0 else (size - stop, size - start))
        return self._of(edges)

    def in_ras_axes(self, grid: Grid) -> Self:
        """The inverse of `in_source_axes`."""
        edges = [(0, 0)] * 3
        for source, (axis, direction) in enumerate(grid.orientation.astype(int).tolist()):
            start, stop, size = self.start[source], self.stop[source], grid.shape[source]
            edges[axis] = (start, stop) if direction > 0 else (size - stop, size - start)
        return self._of(edges)

    @classmethod
    def _of(cls, edges: Sequence[tuple[int, int]]) -> Self:
        (x0, x1), (y0, y1), (z0, z1) = edges
        return cls(start=(x0, y0, z0), stop=(x1, y1, z1))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`, also after a passage through JSON text."""
        return cls(start=tuple(value["start"]), stop=tuple(value["stop"]))


@dataclass(frozen=True, kw_only=True)
class Intensity:
    """How the raw values of one image become network input.

    Values are `slope * raw + inter`. Mean and standard deviation are of the values of the brain: the voxels that
    are not background. Background is what lies at most `tolerance` away from `background`, both raw values, and
    both 0 in every BraTS edition.
    """

    dtype: str
    slope: float
    inter: float
    background: float
    tolerance: float = 0.0
    mean: float
    std: float

    def is_brain(self, image: Array) -> npt.NDArray[np.bool_]:
        """Where the raw values of the image, or of a part of it, are not background."""
        return Background(self.background, self.tolerance).is_brain(image)

    @property
    def background_is_zero(self) -> bool:
        """Whether the background stands for the value 0, as nearly as the tolerance or the integers allow."""
        precision = max(self.tolerance, 0.0 if np.dtype(self.dtype).kind == "f" else 0.5)
        return abs(self.background - (0 - self.inter) / self.slope) <= precision

    def raw_offset_scale(self) -> tuple[float, float]:
        """Offset and scale of the raw values: `(raw - offset) / scale` has mean 0 and std 1."""
        return (self.mean - self.inter) / self.slope, self.std / self.slope


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case, cropped.

    images:   raw values of each modality, (Z, H, W), in the file's own dtype
    labels:   (Z, H, W), None for a case without segmentation
    box:      where the crop lies in the RAS+ volume; slice k of the crop is z = box.start[2] + k
    sources:  the files it was made from
    warnings: of `brats.data.plausibility`
    """

    case_id: str
    patient_id: str
    layout: str
    coding: str
    grade: str
    images: Mapping[str, Array]
    labels: Labels | None
    intensities: Mapping[str, Intensity]
    grid: Grid
    box: Box
    voxel_hash: str
    sources: Sources
    warnings: tuple[str, ...] = ()

    @property
    def spacing_zhw_mm(self) -> tuple[float, float, float]:
        """Voxel size along the axes Z H W of the crop."""
        x, y, z = self.grid.spacing_xyz_mm
        return z, x, y

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return math.prod(self.grid.spacing_xyz_mm)

    @property
    def slice_axis(self) -> tuple[int, bool]:
        """The axis of a crop (Z, H, W) along which the source file has its slices, and whether in its order."""
        axis, direction = self.grid.orientation.astype(int)[2]
        return (int(axis) + 1) % 3, bool(direction > 0)

    @property
    def n_outside(self) -> int:
        """Voxels of the full volume that lie outside the crop."""
        return math.prod(self.grid.shape) - math.prod(self.box.shape)

    @property
    def source_box(self) -> Box:
        """Where the crop lies in the source volume, in source axes."""
        return self.box.in_source_axes(self.grid)

    def in_source_axes(self, crop: Array) -> Array:
        """A view of a crop (Z, H, W) in source axes: what `source_box` cuts out of the source volume."""
        return from_ras(np.moveaxis(crop, 0, 2), self.grid)

    def source_slices(self, crop: Array) -> Array:
        """A view of a crop (Z, H, W) as slices of the source file along its third axis, in its axes.

        The first of them is slice `source_box.start[2]` of the file.
        """
        return np.moveaxis(self.in_source_axes(crop), 2, 0)

    def on_source_grid(self, crop: Array) -> Array:
        """A crop (Z, H, W) in its place in the source volume, in source axes, 0 elsewhere."""
        volume = np.zeros(self.grid.shape, crop.dtype, order="F")  # as NIfTI files store it
        volume[self.source_box.slices()] = self.in_source_axes(crop)
        return volume

    def only(self, modalities: Sequence[str]) -> Self:
        """This case without the modalities that are not asked for.

        Raises CaseError naming the modality that the case lacks.
        """
        check_modalities(self.images, modalities)
        return replace(self, images={name: self.images[name] for name in modalities})

    def describe(self) -> Description:
        """All but the voxels, with the tissues counted; of the source files their content, not where they lay."""
        labels = self.labels
        return {
            "case_id": self.case_id,
            "patient_id": self.patient_id,
            "layout": self.layout,
            "coding": self.coding,
            "grade": self.grade,
            "modalities": list(self.images),
            "intensities": {name: asdict(self.intensities[name]) for name in self.images},
            "grid": self.grid.to_json(),
            "box": asdict(self.box),
            "voxel_hash": self.voxel_hash,
            "warnings": list(self.warnings),
            "sources": to_rows(tuple(file.content for file in self.sources)),
            "tissues": None if labels is None else count_tissues(labels),
            **(dict.fromkeys(COUNT_COLUMNS) if labels is None else slice_counts(labels)),
        }

    @classmethod
    def from_description(cls, value: Description, images: Mapping[str, Array], labels: Labels | None) -> Self:
        """The case of a description, with some or all of its images, and its labels."""
        return cls(
            case_id=value["case_id"],
            patient_id=value["patient_id"],
            layout=value["layout"],
            coding=value["coding"],
            grade=value["grade"],
            images=images,
            labels=labels,
            intensities={name: Intensity(**value["intensities"][name]) for name in images},
            grid=Grid.from_json(value["grid"]),
            box=Box.from_json(value["box"]),
            voxel_hash=value["voxel_hash"],
            warnings=tuple(value["warnings"]),
            sources=from_rows(value["sources"]),
        )


def check_modalities(available: Mapping[str, Any], wanted: Sequence[str]) -> None:
    """Raise CaseError naming the modalities that a case lacks."""
    missing = [name for name in wanted if name not in available]
    if missing:
        raise CaseError("", f"no {' and no '.join(missing)}; the case has {', '.join(available)}")


def crop(volume: Array, box: Box) -> Array:
    """The box of a RAS+ volume (X, Y, Z) as contiguous slices (Z, H, W)."""
    return np.ascontiguousarray(np.moveaxis(volume[box.slices()], 2, 0))
