"""Distances between the surfaces of two masks, and HD95, which is read from them.

Axes: `X Y Z` the voxel axes of the masks, in any order; the spacing is in the same order.

The definition is that of google-deepmind/surface-distance. Wherever the eight voxels around a voxel corner
are not all alike, there is one surface element. It sits at that corner, and its area is that of the
marching-cubes surface that separates the voxels inside the mask from those outside. Its code has one bit for
each of the eight voxels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from brats.labels import bounding_box

Mask = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Spacing = tuple[float, float, float]

HD95_ONE_EMPTY_MM = 373.13  # diagonal of 240 x 240 x 155 voxels of 1 mm, BraTS 2020
PERCENTILE = 95  # of HD95, by area
REACH = 3  # voxels searched offset by offset; the surfaces of a good prediction are mostly nearer
CROWDED = 0.05  # elements still searching, per voxel of the box, from which a distance transform is cheaper


@dataclass(frozen=True)
class AreaWithin:
    """How much of a surface lies within which distance of another surface.

    distances_mm: (N,), ascending
    areas_mm2:    (N,), the area within each of these distances
    total_mm2:    the area of the whole surface; 0 where its mask is empty

    It may end where PERCENTILE of the area is reached, because elements farther away cost most of the search: a
    metric that reads more lets `_area_within` go on. N is 0 where a mask is empty.
    """

    distances_mm: Floats
    areas_mm2: Floats
    total_mm2: float


@dataclass(frozen=True)
class SurfaceDistances:
    """The surfaces of two masks, each with its distances to the other: what surface metrics are read from."""

    reference: AreaWithin
    predicted: AreaWithin


def surface_distances(reference: Mask, predicted: Mask, spacing_mm: Spacing) -> SurfaceDistances:
    """Search the surfaces of two masks (X, Y, Z) for each other. The masks may be crops: outside is background."""
    box = bounding_box(reference | predicted)
    codes, other_codes = _element_codes(reference[box]), _element_codes(predicted[box])
    surface, other = _is_surface(codes), _is_surface(other_codes)
    return SurfaceDistances(
        reference=_area_within(codes, surface, other, spacing_mm),
        predicted=_area_within(other_codes, other, surface, spacing_mm),
    )


def hd95_mm(distances: SurfaceDistances) -> float:
    """The 95th percentile, by area, of the distances from each surface to the other, in mm; the larger of the two.

    Both masks empty: 0. One empty: HD95_ONE_EMPTY_MM.
    """
    directions = (distances.reference, distances.predicted)
    if not all(direction.total_mm2 for direction in directions):
        return HD95_ONE_EMPTY_MM if any(direction.total_mm2 for direction in directions) else 0.0
    return max(_percentile_mm(direction) for direction in directions)


def _percentile_mm(direction: AreaWithin) -> float:
    reached = np.searchsorted(direction.areas_mm2, PERCENTILE / 100 * direction.total_mm2)
    return float(direction.distances_mm[reached])


def element_areas_mm2(spacing_mm: Spacing) -> Floats:
    """The area of a surface element by its code, shape (256,). Codes 0 and 255, no surface, have none."""
    x, y, z = spacing_mm
    normals = _triangle_normals() * np.array([y * z, x * z, x * y])
    return np.asarray(np.linalg.norm(normals, axis=2).sum(axis=1))


def _element_codes(mask: Mask) -> Codes:
    """The code at every voxel corner of a mask, with a margin of REACH corners that are no surface."""
    voxels = np.pad(np.ascontiguousarray(mask), REACH + 1).view(np.uint8)
    pairs = 2 * voxels[:, :, :-1] + voxels[:, :, 1:]
    squares = 4 * pairs[:, :-1] + pairs[:, 1:]
    return 16 * squares[:-1] + squares[1:]


def _is_surface(codes: Codes) -> Mask:
    return np.asarray((codes != 0) & (codes != 255))


def _area_within(codes: Codes, surface: Mask, other: Mask, spacing_mm: Spacing) -> AreaWithin:
    """The area of a surface within each distance of the other, both given as elements at voxel corners.

    All elements look for the other surface together, at one offset after another, nearest first, until enough
    have met it; those beyond REACH find the nearest element at any distance.
    """
    elements = np.flatnonzero(surface)
    areas = element_areas_mm2(spacing_mm)[codes.ravel()[elements]]
    total, met = float(areas.sum()), 0.0
    steps_mm: list[float] = []
    areas_met: list[float] = []
    if not (elements.size and other.any()):
        return AreaWithin(np.array(steps_mm), np.array(areas_met), total)
    goal = PERCENTILE / 100 * total
    for step, distance_mm in nearest_steps(codes.shape, spacing_mm):
        meets = other.ravel()[elements + step]
        met += areas[meets].sum()
        steps_mm.append(distance_mm)
        areas_met.append(met)
        if met >= goal:
            return AreaWithin(np.array(steps_mm), np.array(areas_met), total)
        elements, areas = elements[~meets], areas[~meets]
    far_mm = distances_mm(elements, other, spacing_mm)
    order = np.argsort(far_mm)
    areas_far = met + np.cumsum(areas[order])
    return AreaWithin(np.append(steps_mm, far_mm[order]), np.append(areas_met, areas_far), total)


def nearest_steps(shape: tuple[int, ...], spacing_mm: Spacing) -> Iterator[tuple[int, float]]:
    """The offsets of a grid within REACH voxels: step in the flat array and length in mm, shortest first."""
    offsets = np.argwhere(np.ones((2 * REACH + 1,) * 3)) - REACH
    lengths_mm = np.linalg.norm(offsets * spacing_mm, axis=1)
    steps = offsets @ (shape[1] * shape[2], shape[2], 1)
    for index in np.argsort(lengths_mm):
        if lengths_mm[index] > REACH * min(spacing_mm):
            return  # an offset beyond REACH may be shorter than this one
        yield int(steps[index]), float(lengths_mm[index])


def distances_mm(elements: npt.NDArray[np.intp], other: Mask, spacing_mm: Spacing) -> Floats:
    """The distance from each element, a flat index, to the nearest element of the other surface."""
    if elements.size > CROWDED * other.size:
        return np.asarray(ndimage.distance_transform_edt(~other, sampling=spacing_mm)).ravel()[elements]
    tree = cKDTree(np.argwhere(other) * spacing_mm, balanced_tree=False, compact_nodes=False)
    positions_mm = np.stack(np.unravel_index(elements, other.shape), axis=1) * spacing_mm
    return np.asarray(tree.query(positions_mm)[0])


@cache
def _triangle_normals() -> Floats:
    """The triangles of a surface element by its code, shape (256, 4, 3), in a cube of side 1.

    Each triangle is given by its normal, as long as its area; zeros where there are fewer than four. A code
    and its complement have the same surface, and where corners of a kind meet only diagonally the rarer kind
    is kept apart: every connected group of at most four corners is cut off by a surface of its own.
    """
    normals = np.zeros((256, 4, 3))
    for code in range(1, 128):
        inside = np.unpackbits(np.array([code], np.uint8)).astype(bool).reshape(2, 2, 2)
        groups, n_groups = ndimage.label(inside if inside.sum() <= 4 else ~inside)
        triangles = np.concatenate([_fan_normals(_cut(groups == group)) for group in range(1, n_groups + 1)])
        normals[[code, 255 - code], : len(triangles)] = triangles
    return normals


def _cut(corners: Mask) -> Floats:
    """The midpoints of the cube edges that lead out of a connected group of corners, (V, 3), in order around it.

    Every face of the cube holds none or two of them, so neighbours on the way round are those that share one.
    """
    midpoints = [
        (corner + beside) / 2
        for corner in np.argwhere(corners)
        for beside in np.argwhere(~corners)
        if np.abs(corner - beside).sum() == 1
    ]
    loop = [midpoints.pop()]
    while midpoints:
        shares_face = [bool(np.any((point == loop[-1]) & (point != 0.5))) for point in midpoints]
        loop.append(midpoints.pop(shares_face.index(True)))
    return np.array(loop)


def _fan_normals(loop: Floats) -> Floats:
    """The normals (V - 2, 3) of the fan of triangles that spans a loop of points (V, 3).

    Where the loop is not flat the fans differ; the definition followed here has the one of largest area.
    """
    fans = []
    for apex in range(len(loop)):
        spokes = np.roll(loop, -apex, axis=0)[1:] - loop[apex]
        fans.append(np.cross(spokes[:-1], spokes[1:]) / 2)
    return max(fans, key=lambda normals: float(np.linalg.norm(normals, axis=1).sum()))
