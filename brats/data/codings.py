"""Codings of segmentations: which code of a file stands for which tissue, by challenge and year.

What decides is the name of the case, never the values found: a BraTS 2020 file without a 4 has no ET, whatever else
it contains.
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

_UNKNOWN = 255  # no code, and no label


@dataclass(frozen=True, kw_only=True)
class Coding:
    """One way of writing tissues as numbers.

    name:     by which tables, prepared cases and options refer to it
    codes:    the label of each code in a segmentation
    remedies: what to say of a code that is not one of them
    """

    name: str
    codes: Mapping[int, int]
    remedies: Mapping[int, str] = field(default_factory=dict)

    def decode(self, codes: npt.NDArray[np.generic], tolerance: float = CODE_TOLERANCE) -> Labels:
        """Translate the codes of a segmentation, of any shape and dtype, into labels.

        tolerance: how far a value may lie from its code

        Raises UnknownLabelError naming the value and how many voxels have it.
        """
        flat = codes.reshape(-1)
        with np.errstate(invalid="ignore"):  # NaN and infinity cast to an arbitrary byte, which differs from them
            small = flat.astype(np.uint8, copy=False)
        if flat.dtype != np.uint8:
            others = np.flatnonzero(small != flat)
            small[others] = _nearest_code(flat[others], tolerance)
        labels: Labels = small.copy()
        for code, label in self.codes.items():
            if label != code:
                np.copyto(labels, label, where=small == code)
        if any(code not in self.codes and (small == code).any() for code in range(int(small.max(initial=0)) + 1)):
            raise self._unknown(flat[~np.isin(small, list(self.codes))], tolerance)
        return labels.reshape(codes.shape)

    def _unknown(self, found: npt.NDArray[np.generic], tolerance: float) -> UnknownLabelError:
        """The error that names the lowest of the values found, which are no code."""
        values, counts = np.unique(found, return_counts=True)
        value, count = values[0], int(counts[0])
        remedy = f"; {self.remedies[value.item()]}" if value.item() in self.remedies else ""
        if between := _count_between(values):
            remedy = (
                f"; {between} of its values lie between whole numbers, so it looks interpolated: resample "
                "segmentations with nearest neighbour"
            )
        elif np.isfinite(value) and not float(value).is_integer():
            remedy = f"; a code may be {tolerance:.2g} off"
        return UnknownLabelError(
            f"unknown label {str(value).removesuffix('.0')} in {count} voxels; {self.name} defines "
            f"{sorted(self.codes)}{remedy}"
        )

    def encode(self, labels: Labels) -> Labels:
        """Translate labels into the codes of a segmentation. The inverse of `decode`."""
        table = np.zeros(max(TISSUES.values()) + 1, np.uint8)
        for code, label in self.codes.items():
            table[label] = code
        return table[labels]


def count_rounded(codes: npt.NDArray[np.generic]) -> int:
    """How many of the values that `Coding.decode` takes for codes are not exactly whole."""
    return int(np.count_nonzero(np.rint(codes) != codes)) if codes.dtype.kind == "f" else 0


def _nearest_code(values: npt.NDArray[Any], tolerance: float) -> Labels:
    """The byte that each value lies within the tolerance of; `_UNKNOWN` where there is none."""
    with np.errstate(invalid="ignore"):
        whole = np.rint(values)
        near = (np.abs(whole - values) <= tolerance) & (whole >= 0) & (whole < _UNKNOWN)
    return np.where(near, whole, _UNKNOWN).astype(np.uint8)


def _count_between(values: npt.NDArray[Any]) -> int:
    """How many of some different values lie far from any whole number."""
    finite = values[np.isfinite(values)]
    return int(np.count_nonzero(np.abs(finite - np.rint(finite)) > INTERPOLATED))


BRATS_2018 = Coding(name="brats2018", codes={0: 0, 1: NCR, 2: ED, 4: ET})
BRATS_2023 = Coding(
    name="brats2023",
    codes={0: 0, 1: NCR, 2: ED, 3: ET},
    remedies={4: "4 is the resection cavity of the 2024 post-treatment set, which is not supported yet"},
)
CODINGS = {coding.name: coding for coding in (BRATS_2018, BRATS_2023)}
"""By name, as tables and prepared cases have it."""
