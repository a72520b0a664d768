"""Codings of segmentations: which code of a file stands for which tissue, by challenge and year.

What decides is the name of the case (`challenges`), never the values found: a BraTS 2020 file without a 4 has no
ET, whatever else it contains. docs/architecture.md has the table of all codes and regions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from brats.errors import UnknownLabelError
from brats.labels import ED, ET, NCR, TISSUES, Labels

# How far a value may lie from its code: resampling in 32 bits moves it by less.
CODE_TOLERANCE = 1e-3
# Interpolation between codes gives values farther than this from any whole number.
INTERPOLATED = 0.05

_SCALED = {85, 170, 255}  # 1, 2 and 3 as images have them, from 0 (black) to 255 (white)


@dataclass(frozen=True, kw_only=True)
class Coding:
    """One way of writing tissues as numbers.

    name:     by which tables, prepared cases and options refer to it
    meaning:  its codes in the words of the challenge, for messages
    codes:    the label of each code in a segmentation; where two codes have one label, the first one encodes it
    written:  the code of each label that no code stands for alone
    remedies: what to say of a code that is not one of them
    """

    name: str
    meaning: str
    codes: Mapping[int, int]
    written: Mapping[int, int] = field(default_factory=dict)
    remedies: Mapping[int, str] = field(default_factory=dict)

    def decode(self, codes: npt.NDArray[np.generic], tolerance: float = CODE_TOLERANCE) -> Labels:
        """Translate the codes of a segmentation, of any shape and dtype, into labels.

        tolerance: how far a value may lie from its code

        Raises UnknownLabelError naming the value and how many voxels have it.
        """
        flat = codes.reshape(-1)
        width = 8 // flat.itemsize
        end = flat.size // width * width
        rows = flat[:end].reshape(-1, width)
        # Nearly all voxels are 0, and 0 is never a tissue: eight bytes of them are passed over at once.
        occupied = np.flatnonzero(rows.view(np.uint64) != 0)
        found = np.concatenate([rows[occupied].reshape(-1), flat[end:]])
        translated, unknown = self._translate(found, tolerance)
        if unknown.any():
            raise self._unknown(flat, self._translate(flat, tolerance)[1], tolerance)
        labels = np.zeros(flat.size, np.uint8)
        in_rows = occupied.size * width
        labels[:end].reshape(-1, width)[occupied] = translated[:in_rows].reshape(-1, width)
        labels[end:] = translated[in_rows:]
        return labels.reshape(codes.shape)

    def _translate(self, flat: npt.NDArray[np.generic], tolerance: float) -> tuple[Labels, npt.NDArray[np.bool_]]:
        """The label of each value, and where there is none."""
        with np.errstate(invalid="ignore"):  # NaN and infinity cast to an arbitrary byte, which differs from them
            small = flat.astype(np.uint8, copy=False)
        strange = np.zeros(0, np.intp)  # where no code is near
        if flat.dtype != np.uint8:
            others = np.flatnonzero(small != flat)
            small[others], known = _nearest_code(flat[others], tolerance)
            strange = others[~known]
        table, unknown_codes = np.zeros(256, np.uint8), np.ones(256, np.bool_)
        table[[*self.codes]] = [*self.codes.values()]
        unknown_codes[[*self.codes]] = False
        unknown = unknown_codes[small]
        unknown[strange] = True
        return table[small], unknown

    def _unknown(
        self, flat: npt.NDArray[np.generic], unknown: npt.NDArray[np.bool_], tolerance: float
    ) -> UnknownLabelError:
        """The error that names the lowest of the values that are no code."""
        values, counts = np.unique(flat[unknown], return_counts=True)
        value, count = values[0], int(counts[0])
        remedy = f"; {self.remedies[value.item()]}" if value.item() in self.remedies else ""
        if looks := _looks_like(values, flat):
            remedy = f"; {looks}"
        elif np.isfinite(value) and not float(value).is_integer():
            remedy = f"; a code may be {tolerance:.2g} off"
        return UnknownLabelError(
            f"unknown label {str(value).removesuffix('.0')} in {count} voxels; {self.name} defines "
            f"{sorted(self.codes)}{remedy}"
        )

    def encode(self, labels: Labels) -> Labels:
        """Translate labels into the codes of a segmentation. `decode` gives the same labels again.

        What labels do not distinguish is gone: a resection cavity, and a cyst apart from the rest of the core.
        """
        table = np.zeros(max(TISSUES.values()) + 1, np.uint8)
        for code, label in reversed([*self.codes.items()]):
            table[label] = code
        for label, code in self.written.items():
            table[label] = code
        return table[labels]


def count_rounded(codes: npt.NDArray[np.generic]) -> int:
    """How many of the values that `Coding.decode` takes for codes are not exactly whole."""
    return int(np.count_nonzero(np.rint(codes) != codes)) if codes.dtype.kind == "f" else 0


def _nearest_code(values: npt.NDArray[Any], tolerance: float) -> tuple[Labels, npt.NDArray[np.bool_]]:
    """The byte that each value lies within the tolerance of, and where there is one; 0 elsewhere."""
    with np.errstate(invalid="ignore"):
        whole = np.rint(values)
        near: npt.NDArray[np.bool_] = (np.abs(whole - values) <= tolerance) & (whole >= 0) & (whole <= 255)
    return np.where(near, whole, 0).astype(np.uint8), near


def _looks_like(values: npt.NDArray[Any], flat: npt.NDArray[Any]) -> str:
    """What a file whose unknown values are these seems to be, and what to do; "" where they do not tell.

    flat: all values of the file
    """
    if between := _count_between(values):
        if flat.min() >= 0 and flat.max() <= 1:
            return (
                "all of its values lie between 0 and 1, so it looks like probabilities: write the code of the most "
                "probable tissue of each voxel"
            )
        lie = "1 of its values lies" if between == 1 else f"{between} of its values lie"
        return (
            f"{lie} between whole numbers, so it looks interpolated: resample segmentations with nearest neighbour"
        )
    if {*values.tolist()} <= _SCALED and {*np.unique(flat).tolist()} <= _SCALED | {0}:
        if values.size == 1:
            return f"0 and {values[0]:g} alone look like one region saved as an image: write the codes of tissues"
        return "0, 85, 170 and 255 look like 0 to 3 scaled to the greys of an image: write the codes themselves"
    return ""


def _count_between(values: npt.NDArray[Any]) -> int:
    """How many of some different values lie far from any whole number."""
    finite = values[np.isfinite(values)]
    return int(np.count_nonzero(np.abs(finite - np.rint(finite)) > INTERPOLATED))


_BACKGROUND = 0
_THREE = {0: _BACKGROUND, 1: NCR, 2: ED, 3: ET}
_WITH_CAVITY = {**_THREE, 4: _BACKGROUND}  # an empty space is no tumour: in none of the regions

BRATS_2012 = Coding(
    name="brats2012",
    meaning="1 ED, 2 the whole core, ET not told apart",
    codes={0: _BACKGROUND, 1: ED, 2: NCR},
    written={ET: 2},
)
BRATS_2013 = Coding(
    name="brats2013",
    meaning="1 NCR, 2 ED, 3 NET, 4 ET",
    codes={0: _BACKGROUND, 1: NCR, 2: ED, 3: NCR, 4: ET},  # NCR is written as 1, as later editions have both
)
BRATS_2018 = Coding(
    name="brats2018",
    meaning="1 NCR, 2 ED, 4 ET",
    codes={0: _BACKGROUND, 1: NCR, 2: ED, 4: ET},
    remedies={3: "3 is ET in the editions from 2023 on, and non-enhancing core in those up to 2016"},
)
BRATS_2023 = Coding(
    name="brats2023",
    meaning="1 NCR, 2 ED, 3 ET",
    codes=_THREE,
    remedies={
        4: "4 is ET in the editions up to 2021, and the resection cavity after treatment, which is read with "
        "--coding brats2024-gli in names of BraTS-GLI and with --coding brats2025-met in names of BraTS-MET"
    },
)
BRATS_2023_PED = Coding(
    name="brats2023-ped",
    meaning="1 NC, 2 ED, 3 ET",
    codes=_THREE,
    remedies={4: "4 is ED in BraTS-PED from 2024 on: --coding brats2024-ped"},
)
BRATS_2024_PED = Coding(
    name="brats2024-ped",
    meaning="1 ET, 2 NET, 3 CC, 4 ED",
    codes={0: _BACKGROUND, 1: ET, 2: NCR, 3: NCR, 4: ED},  # NCR is written as NET, the commoner of the two
)
BRATS_2024_GLI = Coding(name="brats2024-gli", meaning="1 NETC, 2 SNFH, 3 ET, 4 RC", codes=_WITH_CAVITY)
BRATS_2025_MET = Coding(name="brats2025-met", meaning="1 NETC, 2 SNFH, 3 ET, 4 RC", codes=_WITH_CAVITY)
MSD_TASK01 = Coding(  # `labels` of the dataset.json of the Medical Segmentation Decathlon, Task01_BrainTumour
    name="msd-task01", meaning="1 ED, 2 NCR, 3 ET", codes={0: _BACKGROUND, 1: ED, 2: NCR, 3: ET}
)
CODINGS = {
    coding.name: coding
    for coding in (
        BRATS_2018,
        BRATS_2023,
        BRATS_2023_PED,
        BRATS_2024_PED,
        BRATS_2024_GLI,
        BRATS_2025_MET,
        BRATS_2012,
        BRATS_2013,
        MSD_TASK01,
    )
}
"""By name, as tables, prepared cases and `--coding` have it."""
