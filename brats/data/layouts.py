"""Input layouts: how the files of each BraTS edition are named, and which codes its segmentations use.

What decides the codes is the layout, never the values found: a BraTS 2020 file without a 4 has no ET, whatever else
it contains.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from brats.errors import UnknownLabelError
from brats.labels import ED, ET, NCR, TISSUES, Labels

SEGMENTATION = "seg"
"""What a segmentation is an image of, where an image has the name of its modality."""

_UNKNOWN = 255  # no code, and no label


class Match(NamedTuple):
    """What the name of a file says: whose image it is, and of what (a modality, or SEGMENTATION)."""

    layout: "Layout"
    case_id: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which cases are named and their segmentations coded.

    name:     by which tables and prepared cases refer to it
    example:  a file name and the editions that use it, for messages
    suffixes: by what an image is of, how the name of its file ends
    codes:    the label of each code in a segmentation
    remedies: what to say of a code that is not one of them
    """

    name: str
    example: str
    suffixes: Mapping[str, str]
    codes: Mapping[int, int]
    remedies: Mapping[int, str] = field(default_factory=dict)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(rf"(.+)({'|'.join(self.suffixes.values())})\.nii(\.gz)?", re.IGNORECASE)

    def match(self, name: str) -> Match | None:
        """What a file of this name is in this layout; None where it is none."""
        found = self._pattern.fullmatch(name)
        kinds = {suffix: kind for kind, suffix in self.suffixes.items()}
        return Match(self, found[1], kinds[found[2].lower()]) if found else None

    def file_name(self, case_id: str, kind: str) -> str:
        return f"{case_id}{self.suffixes[kind]}.nii.gz"

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


BRATS_2018 = Layout(
    name="brats2018",
    example="BraTS20_Training_001_flair.nii.gz (2018 to 2021)",
    suffixes={"flair": "_flair", "t1": "_t1", "t1ce": "_t1ce", "t2": "_t2", SEGMENTATION: "_seg"},
    codes={0: 0, 1: NCR, 2: ED, 4: ET},
)
BRATS_2023 = Layout(
    name="brats2023",
    example="BraTS-GLI-00005-000-t2f.nii.gz (2023 on)",
    suffixes={"flair": "-t2f", "t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", SEGMENTATION: "-seg"},
    codes={0: 0, 1: NCR, 2: ED, 3: ET},
    remedies={4: "4 is the resection cavity of the 2024 post-treatment set, which is not supported yet"},
)
LAYOUTS = {layout.name: layout for layout in (BRATS_2018, BRATS_2023)}
"""By name, as tables and prepared cases have it."""


def match(name: str) -> Match | None:
    """What a file of this name is, in the first layout that knows it; None where none does."""
    return next((found for layout in LAYOUTS.values() if (found := layout.match(name))), None)
