"""Input layouts: how the files of each form of BraTS are named and placed, and how its segmentations are coded."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from brats.data.codings import BRATS_2012, BRATS_2013, BRATS_2018, BRATS_2023, MSD_TASK01, Coding

BRATS_SHAPE = (240, 240, 155)
"""Of an image of BraTS, voxels of 1 mm along X Y Z: the grid of SRI24, of all but gliomas after treatment."""

SEGMENTATION = "seg"
"""What a segmentation is an image of, where an image has the name of its modality."""

AUTOMATIC = "automatic seg"
"""A segmentation by a program, which nobody corrected: it stands in where a case has no other."""

SIMULATED = "simulated seg"
"""A segmentation whose codes stand for healthy tissues too, by which its case is refused."""

ODD_NAMES = dict.fromkeys(("W39_1998.09.19_Segm.nii", "W39_1998.09.19_Segm.nii.gz"), "BraTS20_Training_355")
"""Segmentations that a challenge gave another name, and their case, beside whose images they lie."""

_NIFTI = r"\.nii(\.gz)?"
_COPY = r"( ?\(\d+\))?"  # what browsers and file systems append to the name of a second copy


class Match(NamedTuple):
    """What the path of a file says: whose image it is, and of what: a modality, SEGMENTATION, or a slice."""

    layout: "Layout"
    case_id: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which the files of cases are named and placed.

    name:     by which tables and prepared cases refer to it
    example:  a file and who names it so, for messages
    place:    where a file of a case is expected, with {case} and {kind}
    words:    what stands for {kind} by what an image is of, the usual word first
    pattern:  of the path of a file, with the groups `case` and `kind`, the latter of KIND, any of the words
    coding:   of its segmentations, where the id of the case names no challenge
    codings:  all that such names have had, where they are of one set of cases; of several `--coding` names one
    by_place: whether the folders say what the name of the file does not
    is_coded: whether files named so are coded as `coding` says; where not, `--coding` is asked for
    copies:   whose patients the cases are, under other names and with other voxels; "" for a form of its own
    """

    name: str
    example: str
    place: str = ""
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pattern: str = ""
    coding: Coding
    codings: tuple[Coding, ...] = ()
    by_place: bool = False
    is_coded: bool = True
    copies: str = ""

    @cached_property
    def _kinds(self) -> dict[str, str]:
        return {word.lower(): kind for kind, words in self.words.items() for word in words}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        words = "|".join(map(re.escape, self._kinds))
        return re.compile(rf"(?:.*?/)??{self.pattern.replace('KIND', words)}", re.IGNORECASE)

    def match(self, path: str) -> Match | None:
        """What a file at this path is in this layout; None where it is none."""
        found = self._pattern.fullmatch(path) if self.pattern else None
        if not found:
            return None
        case_id = re.sub(rf"{_COPY}$", "", found["case"].replace("/", "_"))
        word = found["kind"].lower() if found["kind"] else SIMULATED
        return Match(self, case_id, self._kinds.get(word, word))

    def file_name(self, case_id: str, kind: str) -> str:
        """The file that a case is expected to have; below the folder of the cases where it has one of its own."""
        return self.place.format(case=case_id, kind=self.words[kind][0])


def _suffixes(flair: str, t1: str, t1ce: str, t2: str, *segmentations: str) -> dict[str, tuple[str, ...]]:
    return {"flair": (flair,), "t1": (t1,), "t1ce": (t1ce,), "t2": (t2,), SEGMENTATION: segmentations}


_AT_THE_END = rf"(?P<case>[^/]+)(?P<kind>KIND){_NIFTI}"
_MODALITIES = {"flair": ("flair", "fla", "t2f"), "t1": ("t1", "t1n"), "t1ce": ("t1ce", "t1c"), "t2": ("t2", "t2w")}

_ENTITY = "_(?!ce-)[a-z]+-[a-z0-9]+"  # of a name in BIDS, such as space-SRI24; ce- is matched as part of the kind
_IN_BIDS = re.compile(r"(?:.*/)?anat/sub-[^/]*", re.IGNORECASE)
BIDS = Layout(
    name="bids",
    example="anat/sub-001_ce-gadolinium_T1w.nii.gz (BIDS)",
    place="anat/{case}{kind}.nii.gz",
    words={
        "flair": ("_FLAIR",),
        "t1": ("_T1w", "_T1"),
        "t1ce": ("_ce-gadolinium_T1w", "_ce-", "_T1ce", "_T1c", "_T1gd"),
        "t2": ("_T2w", "_T2"),
        SEGMENTATION: ("_desc-tumor_dseg", "_dseg", "_seg"),
    },
    pattern="anat/"
    r"(?![^/]*_label-[^/]*_d?seg\.)"  # the mask of one structure
    # Most programs that write a dseg write tissues, in codes that tumours have too.
    r"((?=[^/]*_(desc|seg)-[a-z0-9]*(tumou?r|lesion|glioma|brats))|(?![^/]*(_dseg\.|_(desc|seg)-[^/]*_seg\.)))"
    # A T1 with contrast agent whose name says so elsewhere than in the entity for it is not one without.
    r"((?=[^/]*_ce-)|(?![^/]*_(acq|desc|rec)-(ce|[a-z0-9]*(contrast|enhanced|post(?!op|proc)|gad|gd|t1ce|t1c))"
    r"[^/]*_T1w?\.))"
    rf"(?P<case>sub-[a-z0-9]+(_ses-[a-z0-9]+)?)({_ENTITY}|_ce-[a-z0-9]+(?=[^/]*_d?seg\.))*(?P<kind>KIND)"
    # Between the agent, whatever it is called, and the suffix there may be entities, which all come after it.
    rf"((?<=_ce-)[a-z0-9]+({_ENTITY})*_T1(w|ce|c|gd)?|(?<!_ce-)){_NIFTI}",
    coding=BRATS_2023,
    is_coded=False,
)
SINCE_2018 = Layout(
    name="brats2018",
    example="BraTS20_Training_001_flair.nii.gz (2018 to 2021)",
    place="{case}{kind}.nii.gz",
    words=_suffixes("_flair", "_t1", "_t1ce", "_t2", "_seg"),
    pattern=_AT_THE_END,
    coding=BRATS_2018,
)
SINCE_2023 = Layout(
    name="brats2023",
    example="BraTS-GLI-00005-000-t2f.nii.gz (2023 on)",
    place="{case}{kind}.nii.gz",
    words=_suffixes("-t2f", "-t1n", "-t1c", "-t2w", "-seg"),
    pattern=_AT_THE_END,
    coding=BRATS_2023,
)
UCSF_PDGM = Layout(
    name="ucsf-pdgm",
    example="UCSF-PDGM-0004_T1c.nii.gz (UCSF-PDGM)",
    place="{case}{kind}.nii.gz",
    words={
        **_suffixes("_FLAIR", "_T1", "_T1c", "_T2", "_tumor_segmentation", "_seg"),
        "t1ce": ("_T1c", "_T1ce", "_T1gd"),
    },
    pattern=rf"(?P<case>UCSF-PDGM-\d+(_FU\w+?)?)(?P<kind>KIND){_NIFTI}",
    coding=BRATS_2018,
    copies="patients of BraTS 2021",
)
UPENN_GBM = Layout(
    name="upenn-gbm",
    example="UPENN-GBM-00001_11_T1GD.nii.gz (UPENN-GBM)",
    place="{case}{kind}.nii.gz",
    words={
        **_suffixes("_FLAIR", "_T1", "_T1GD", "_T2", "_segm", "_seg"),
        "t1ce": ("_T1GD", "_T1ce", "_T1c"),
        AUTOMATIC: ("_automated_approx_segm",),
    },
    pattern=rf"(?P<case>UPENN-GBM-\d+(_\d+)?)(?P<kind>KIND){_NIFTI}",
    coding=BRATS_2018,
    copies="patients of BraTS since 2017",
)
BRATS_2012_NAMES = Layout(
    name="brats2012-mha",
    example="BRATS_HG0001_T1C.mha (2012)",
    place="{case}{kind}.mha",
    words=_suffixes("_FLAIR", "_T1", "_T1C", "_T2", "_truth"),
    pattern=rf"(?P<case>(Sim)?BRATS_[HL]G\d+)(?P<kind>KIND){_COPY}\.mha",
    coding=BRATS_2013,
    codings=(BRATS_2013, BRATS_2012),
    copies="patients of later editions of BraTS",
)
BRATS_2013_NAMES = Layout(
    name="brats2013-mha",
    example="brats_2013_pat0001_1/VSD.Brain.XX.O.MR_T1c.54514.mha (2013 to 2015)",
    place="{case}/VSD.Brain.XX.O.{kind}.mha",
    words=_suffixes("MR_Flair", "MR_T1", "MR_T1c", "MR_T2", "OT"),
    # Below a folder of the case, and most often in one of its own there. Cases are counted anew for each grade.
    pattern=r"(?P<case>(?:[HL]GG?/)?(?!VSD\.)[^/]+)/(?:VSD\.[^/]+/)?"
    rf"VSD\.(?:Brain[^/]*\.(?P<kind>KIND)|[^/]*\.OT){_COPY}(?:\.\d+)?{_COPY}\.mha",
    coding=BRATS_2013,
    codings=(BRATS_2013,),
    copies="patients of later editions of BraTS",
)
HDF5_SLICES = Layout(
    name="hdf5-slices",
    example="volume_41_slice_0.h5 (BraTS 2020 as slices, of Kaggle)",
    pattern=r"(?P<case>volume_\d+)_(?P<kind>slice_\d+)\.h5",
    coding=BRATS_2018,
    codings=(BRATS_2018,),
    copies="patients of BraTS 2020 with normalised values",
)
MSD_TASK01_FILES = Layout(
    name="msd-task01",
    example="dataset.json with imagesTr/BRATS_001.nii.gz (Medical Segmentation Decathlon, Task01)",
    coding=MSD_TASK01,
    codings=(MSD_TASK01,),
    copies="patients of BraTS 2016 and 2017",
)
CASE_FOLDERS = Layout(
    name="case-folders",
    example="CASE/t1c.nii.gz (a folder per case)",
    place="{case}/{kind}.nii.gz",
    words={**_MODALITIES, SEGMENTATION: ("seg", "segmentation")},
    pattern=rf"(?P<case>[^/]+)/(?P<kind>KIND){_NIFTI}",
    coding=BRATS_2023,
    by_place=True,
    is_coded=False,
)
MODALITY_FOLDERS = Layout(
    name="modality-folders",
    example="t1c/CASE.nii.gz (a folder per modality)",
    place="{kind}/{case}.nii.gz",
    words={**_MODALITIES, SEGMENTATION: ("seg", "segs", "segmentation", "segmentations", "label", "labels")},
    pattern=rf"(?P<kind>KIND)/(?P<case>[^/]+?){_NIFTI}",
    coding=BRATS_2023,
    by_place=True,
    is_coded=False,
)
LAYOUTS = {
    layout.name: layout
    for layout in (  # the narrower names first
        UCSF_PDGM,
        UPENN_GBM,
        BIDS,
        SINCE_2018,
        SINCE_2023,
        BRATS_2012_NAMES,
        BRATS_2013_NAMES,
        HDF5_SLICES,
        MSD_TASK01_FILES,
        CASE_FOLDERS,
        MODALITY_FOLDERS,
    )
}
"""By name, as tables and prepared cases have it."""


def match(path: str) -> Match | None:
    """What a file at this path is, in the first layout that knows it; None where none does.

    Names of BIDS are of no other layout, which would take a file that BIDS refuses for a part of a case.
    """
    layouts = [BIDS] if _IN_BIDS.fullmatch(path) else LAYOUTS.values()
    return next((found for layout in layouts if (found := layout.match(path))), None)


def copy_warnings(names: set[str]) -> list[str]:
    """What to say of cases in layouts of these names whose copies in other forms may not be recognised."""
    return [
        f"WARNING {name}: its cases are {layout.copies}, under other names: copies of them in other forms are "
        "recognised only where the voxels are equal, so leakage between those forms cannot be excluded"
        for name, layout in LAYOUTS.items()
        if name in names and layout.copies
    ]
