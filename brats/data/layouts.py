"""Input layouts: how the files of each BraTS edition are named, and which coding its segmentations usually have."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from brats.data.codings import BRATS_2018, BRATS_2023, Coding

SEGMENTATION = "seg"
"""What a segmentation is an image of, where an image has the name of its modality."""


ODD_NAMES = dict.fromkeys(("W39_1998.09.19_Segm.nii", "W39_1998.09.19_Segm.nii.gz"), "BraTS20_Training_355")
"""Segmentations that a challenge gave another name, and their case, beside whose images they lie."""


class Match(NamedTuple):
    """What the name of a file says: whose image it is, and of what (a modality, or SEGMENTATION)."""

    layout: "Layout"
    case_id: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which the files of cases are named.

    name:     by which tables and prepared cases refer to it
    example:  a file name and the editions that use it, for messages
    suffixes: by what an image is of, how the name of its file ends
    coding:   of its segmentations, where the id of the case names no challenge
    """

    name: str
    example: str
    suffixes: Mapping[str, str]
    coding: Coding

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


SINCE_2018 = Layout(
    name="brats2018",
    example="BraTS20_Training_001_flair.nii.gz (2018 to 2021)",
    suffixes={"flair": "_flair", "t1": "_t1", "t1ce": "_t1ce", "t2": "_t2", SEGMENTATION: "_seg"},
    coding=BRATS_2018,
)
SINCE_2023 = Layout(
    name="brats2023",
    example="BraTS-GLI-00005-000-t2f.nii.gz (2023 on)",
    suffixes={"flair": "-t2f", "t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", SEGMENTATION: "-seg"},
    coding=BRATS_2023,
)
LAYOUTS = {layout.name: layout for layout in (SINCE_2018, SINCE_2023)}
"""By name, as tables and prepared cases have it."""


def match(name: str) -> Match | None:
    """What a file of this name is, in the first layout that knows it; None where none does."""
    return next((found for layout in LAYOUTS.values() if (found := layout.match(name))), None)
