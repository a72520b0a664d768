"""Labels of voxels: the tissues NCR, ED and ET, the regions WT, TC and ET, and the codes of each edition.

Axes: `...` any voxel axes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brats.errors import UnknownLabelError

Labels = npt.NDArray[np.uint8]
"""Voxel labels 0 (background), NCR, ED, ET: the only coding used inside and in Parquet."""

NCR = 1  # necrotic tumour core (with the non-enhancing core, in the editions up to 2021)
ED = 2  # peritumoural oedema
ET = 3  # enhancing tumour
TISSUES = {"ncr": NCR, "ed": ED, "et": ET}


@dataclass(frozen=True, kw_only=True)
class Region:
    """A union of tissues that is segmented and scored as one, and its look in pictures.

    labels: of its tissues
    colour: of its outlines and points, "#RRGGBB"
    marker: of its points, as matplotlib names it
    """

    labels: tuple[int, ...]
    full_name: str
    colour: str
    marker: str


# Okabe and Ito, "Color Universal Design", 2008: of their colours the three that stay furthest apart in
# protanopia, deuteranopia and tritanopia. Yellow needs a dark edge where the background is white.
REGIONS = {
    "WT": Region(labels=(NCR, ED, ET), full_name="whole tumour", colour="#56B4E9", marker="o"),
    "TC": Region(labels=(NCR, ET), full_name="tumour core", colour="#F0E442", marker="s"),
    "ET": Region(labels=(ET,), full_name="enhancing tumour", colour="#D55E00", marker="^"),
}
"""By name, in the order of the network's outputs, of tables and of pictures."""

# The codes in the NIfTI files of each layout. They are decided by the layout, never guessed from the values
# found: a BraTS 2020 file without a 4 has no ET, whatever else it contains.
LAYOUT_CODES: dict[str, dict[int, int]] = {
    "brats2018": {0: 0, 1: NCR, 2: ED, 4: ET},  # BraTS 2018 to 2021, <id>_flair.nii.gz
    "brats2023": {0: 0, 1: NCR, 2: ED, 3: ET},  # BraTS 2023 and later, <id>-t2f.nii.gz
}

_UNKNOWN = 255  # no code, and no label


def decode_labels(codes: npt.NDArray[np.generic], layout: str) -> Labels:
    """Translate the codes of a NIfTI segmentation, of any shape and dtype, into labels.

    Raises UnknownLabelError naming the value and how many voxels have it.
    """
    table = LAYOUT_CODES[layout]
    flat = codes.reshape(-1)
    with np.errstate(
        invalid="ignore"
    ):  # NaN and infinity cast to an arbitrary byte; the comparison below catches them
        small = flat.astype(np.uint8, copy=False)
    if flat.dtype != np.uint8:
        small[small != flat] = _UNKNOWN  # does not fit into a byte
    labels: Labels = small.copy()
    for code, label in table.items():
        if label != code:
            np.copyto(labels, label, where=small == code)
    if any(code not in table and (small == code).any() for code in range(int(small.max(initial=0)) + 1)):
        values, counts = np.unique(flat[~np.isin(flat, list(table))], return_counts=True)
        value, count = values[0].item(), int(counts[0])
        remedy = ""
        if value == 4 and layout == "brats2023":
            remedy = "; 4 is the resection cavity of the 2024 post-treatment set, which is not supported yet"
        raise UnknownLabelError(
            f"unknown label {value:g} in {count} voxels; {layout} defines {sorted(table)}{remedy}"
        )
    return labels.reshape(codes.shape)


def encode_labels(labels: Labels, layout: str) -> Labels:
    """Translate labels into the codes that NIfTI files of this layout use. The inverse of `decode_labels`."""
    table = np.zeros(max(TISSUES.values()) + 1, np.uint8)
    for code, label in LAYOUT_CODES[layout].items():
        table[label] = code
    return table[labels]


def region_mask(labels: Labels, region: str) -> npt.NDArray[np.bool_]:
    """The voxels of one region, shape (...)."""
    wanted = np.zeros(max(TISSUES.values()) + 1, bool)
    wanted[list(REGIONS[region].labels)] = True
    return wanted[labels]


def count_tissues(labels: Labels) -> dict[str, int]:
    """Number of voxels of each tissue: keys ncr, ed, et."""
    counts = np.bincount(labels.ravel(), minlength=max(TISSUES.values()) + 1)
    return {tissue: int(counts[label]) for tissue, label in TISSUES.items()}


def count_regions(tissues: dict[str, int]) -> dict[str, int]:
    """Number of voxels of each region, keys WT, TC, ET, from the counts of the tissues."""
    by_label = {label: tissues[tissue] for tissue, label in TISSUES.items()}
    return {name: sum(by_label[label] for label in region.labels) for name, region in REGIONS.items()}
