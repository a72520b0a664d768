"""Labels of voxels: the tissues NCR, ED and ET, and the regions WT, TC and ET.

Axes: `...` any voxel axes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.uint8]
"""Voxel labels 0 (background), NCR, ED, ET: the only coding used inside and in Parquet."""

NCR = 1  # necrotic tumour core (with the non-enhancing core, in the editions up to 2021)
ED = 2  # peritumoural oedema
ET = 3  # enhancing tumour
TISSUES = {"ncr": NCR, "ed": ED, "et": ET}
TISSUE_FULL_NAMES = {"ncr": "necrotic tumour core", "ed": "peritumoural oedema", "et": "enhancing tumour"}


@dataclass(frozen=True, kw_only=True)
class Region:
    """A union of tissues that is segmented and scored as one, and its look in pictures.

    labels: of its tissues
    label:  of its voxels that are in no later region, when label maps are made from regions
    colour: of its outlines and points, "#RRGGBB"
    marker: of its points, as matplotlib names it
    """

    labels: tuple[int, ...]
    label: int
    full_name: str
    colour: str
    marker: str


# Okabe and Ito, "Color Universal Design", 2008: of their colours the three that stay furthest apart in
# protanopia, deuteranopia and tritanopia. Yellow needs a dark edge where the background is white.
REGIONS = {
    "WT": Region(labels=(NCR, ED, ET), label=ED, full_name="whole tumour", colour="#56B4E9", marker="o"),
    "TC": Region(labels=(NCR, ET), label=NCR, full_name="tumour core", colour="#F0E442", marker="s"),
    "ET": Region(labels=(ET,), label=ET, full_name="enhancing tumour", colour="#D55E00", marker="^"),
}
"""By name, in the order of the network's outputs, of tables and of pictures."""


def tissue_name(label: int) -> str:
    """What texts call the tissue of a label: NCR, ED or ET."""
    return next(tissue.upper() for tissue, known in TISSUES.items() if known == label)


def region_index(region: str) -> int:
    """The place of a region in `REGIONS`: that of its channel in probabilities, and of its threshold."""
    return list(REGIONS).index(region)


def region_mask(labels: Labels, region: str) -> npt.NDArray[np.bool_]:
    """The voxels of one region, shape (...)."""
    wanted = np.zeros(max(TISSUES.values()) + 1, bool)
    wanted[list(REGIONS[region].labels)] = True
    return wanted[labels]


def bounding_box(mask: npt.NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box that holds every voxel of a mask; a box of no voxels where the mask is empty."""
    box: list[slice] = []
    for axis in range(mask.ndim):
        other_axes = tuple(other for other in range(mask.ndim) if other != axis)
        occupied = np.flatnonzero(mask[tuple(box)].any(axis=other_axes))
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else slice(0, 0))
    return tuple(box)


def count_tissues(labels: Labels) -> dict[str, int]:
    """Number of voxels of each tissue: keys ncr, ed, et."""
    counts = np.bincount(labels.ravel(), minlength=max(TISSUES.values()) + 1)
    return {tissue: int(counts[label]) for tissue, label in TISSUES.items()}


def count_regions(tissues: dict[str, int]) -> dict[str, int]:
    """Number of voxels of each region, keys WT, TC, ET, from the counts of the tissues."""
    by_label = {label: tissues[tissue] for tissue, label in TISSUES.items()}
    return {name: sum(by_label[label] for label in region.labels) for name, region in REGIONS.items()}
