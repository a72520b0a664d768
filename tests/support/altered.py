"""Predictions made of references, the same each time: what the figures of other programs were taken on.

Axes: `X Y Z` the axes of the source file.
"""

from collections.abc import Callable, Mapping

import numpy as np
from scipy import ndimage

from brats.labels import ED, ET, NCR, REGIONS, Labels, bounding_box, region_mask
from brats.score.surface import Mask, Spacing

MARGIN = 12  # voxels around the tumour that are kept
GRIDS: Mapping[str, tuple[int, Spacing]] = {
    "1 mm": (1, (1.0, 1.0, 1.0)),
    "2 mm": (2, (2.0, 2.0, 2.0)),
    "anisotropic": (2, (0.75, 1.25, 2.5)),
}
"""By name, which voxels of a case of 1 mm are taken along each axis, every one or every other, and the spacing that
they are given."""
BLOB = 6  # voxels along each side of the false blob
N_SPECKS = 40
SHIFT = (3, 5, 2)

_FACES_AND_EDGES = ndimage.generate_binary_structure(3, 2)


def around_tumour(labels: Labels, every: int) -> Labels:
    """The box of the tumour with MARGIN voxels around it, as far as the volume (X, Y, Z) goes.

    every: voxels of the volume that are taken, along each axis
    """
    labels = labels[::every, ::every, ::every]
    box = bounding_box(labels > 0)
    sides = (slice(max(0, side.start - MARGIN), side.stop + MARGIN) for side in box)
    return np.ascontiguousarray(labels[tuple(sides)])


def _from_regions(change: Callable[[Mask], Mask], labels: Labels) -> Labels:
    """The label map of regions each of which is changed."""
    made = np.zeros_like(labels)
    for (name, region), label in zip(REGIONS.items(), (ED, NCR, ET), strict=True):
        assert region.label == label
        made[change(region_mask(labels, name))] = label
    return made


def _eroded(labels: Labels) -> Labels:
    return _from_regions(lambda mask: np.asarray(ndimage.binary_erosion(mask)), labels)


def _dilated(labels: Labels) -> Labels:
    return _from_regions(lambda mask: np.asarray(ndimage.binary_dilation(mask, _FACES_AND_EDGES)), labels)


def _with_blob(labels: Labels) -> Labels:
    """A false cube of ET in the first corner of the box, the tumour eroded."""
    made = _eroded(labels)
    made[:BLOB, :BLOB, :BLOB] = ET
    return made


def _without_lesion(labels: Labels) -> Labels:
    """The largest component of ET becomes oedema or, where there is no ET, that of the tumour background."""
    made = labels.copy()
    mask = labels == ET if (labels == ET).any() else labels > 0
    numbers, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(numbers.ravel())
    sizes[0] = 0
    made[numbers == sizes.argmax()] = ED if (labels == ET).any() else 0
    return made


def _speckled(labels: Labels) -> Labels:
    """Specks of a voxel to 3 x 3 x 3 voxels of any label, background included, all over the box."""
    made = labels.copy()
    draw = np.random.default_rng(0)
    for _ in range(N_SPECKS):
        size, label = int(draw.integers(1, 4)), np.uint8(draw.integers(0, 4))
        x, y, z = (int(draw.integers(0, side - size)) for side in labels.shape)
        made[x : x + size, y : y + size, z : z + size] = label
    return made


ALTERATIONS: Mapping[str, Callable[[Labels], Labels]] = {
    "eroded": _eroded,
    "dilated": _dilated,
    "blob": _with_blob,
    "lesion removed": _without_lesion,
    "empty": np.zeros_like,
    "shifted": lambda labels: np.roll(labels, SHIFT, axis=(0, 1, 2)),
    "speckled": _speckled,
}
"""By name, from the label map of a box (X, Y, Z) to a prediction of it."""
