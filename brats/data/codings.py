"""Codings of segmentations: which code of a file stands for which tissue, by challenge and year.

What decides is the name of the case, never the values found: a BraTS 2020 file without a 4 has no ET, whatever else
it contains.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from brats.errors import UnknownLabelError
from brats.labels import ED, ET, NCR, TISSUES, Labels

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

    def decode(self, codes: npt.NDArray[np.generic]) -> Labels:
        """Translate the codes of a segmentation, of any shape and dtype, into labels.

        Raises UnknownLabelError naming the value and how many voxels have it.
        """
        flat = codes.reshape(-1)
        with np.errstate(
            invalid="ignore"
        ):  # NaN and infinity cast to an arbitrary byte; the comparison catches them
            small = flat.astype(np.uint8, copy=False)
        if flat.dtype != np.uint8:
            small[small != flat] = _UNKNOWN  # does not fit into a byte
        labels: Labels = small.copy()
        for code, label in self.codes.items():
            if label != code:
                np.copyto(labels, label, where=small == code)
        if any(code not in self.codes and (small == code).any() for code in range(int(small.max(initial=0)) + 1)):
            raise self._unknown(flat)
        return labels.reshape(codes.shape)

    def _unknown(self, codes: npt.NDArray[np.generic]) -> UnknownLabelError:
        """The error that names the lowest value that is no code."""
        values, counts = np.unique(codes[~np.isin(codes, list(self.codes))], return_counts=True)
        value, count = values[0].item(), int(counts[0])
        remedy = f"; {self.remedies[value]}" if value in self.remedies else ""
        return UnknownLabelError(
            f"unknown label {value:g} in {count} voxels; {self.name} defines {sorted(self.codes)}{remedy}"
        )

    def encode(self, labels: Labels) -> Labels:
        """Translate labels into the codes of a segmentation. The inverse of `decode`."""
        table = np.zeros(max(TISSUES.values()) + 1, np.uint8)
        for code, label in self.codes.items():
            table[label] = code
        return table[labels]


BRATS_2018 = Coding(name="brats2018", codes={0: 0, 1: NCR, 2: ED, 4: ET})
BRATS_2023 = Coding(
    name="brats2023",
    codes={0: 0, 1: NCR, 2: ED, 3: ET},
    remedies={4: "4 is the resection cavity of the 2024 post-treatment set, which is not supported yet"},
)
CODINGS = {coding.name: coding for coding in (BRATS_2018, BRATS_2023)}
"""By name, as tables and prepared cases have it."""
