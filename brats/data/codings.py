"""Codings of segmentations: which code of a file stands for which tissue, by challenge and year.

What decides is the name of the case (`challenges`), never the values found: a BraTS 2020 file without a 4 has no
ET, whatever else it contains. docs/architecture.md has the table of all codes and regions.
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
    meaning:  its codes in the words of the challenge, for messages
    codes:    the label of each code in a segmentation; where two codes have one label, the first one encodes it
    remedies: what to say of a code that is not one of them
    """

    name: str
    meaning: str
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
        """Translate labels into the codes of a segmentation. `decode` gives the same labels again.

        What labels do not distinguish is gone: a resection cavity, and a cyst apart from the rest of the core.
        """
        table = np.zeros(max(TISSUES.values()) + 1, np.uint8)
        for code, label in reversed([*self.codes.items()]):
            table[label] = code
        return table[labels]


_BACKGROUND = 0
_THREE = {0: _BACKGROUND, 1: NCR, 2: ED, 3: ET}
_WITH_CAVITY = {**_THREE, 4: _BACKGROUND}  # an empty space is no tumour: in none of the regions

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
CODINGS = {
    coding.name: coding
    for coding in (BRATS_2018, BRATS_2023, BRATS_2023_PED, BRATS_2024_PED, BRATS_2024_GLI, BRATS_2025_MET)
}
"""By name, as tables, prepared cases and `--coding` have it."""
