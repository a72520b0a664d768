"""Discovery of BraTS cases below a folder or s3:// prefix, by file name, from one listing."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from brats import storage
from brats.config import (
    HDF5_CHANNELS,
    HDF5_SPACING_MM,
    MODALITIES,
    Modality,
    PredictConfig,
    PrepareConfig,
    TrainConfig,
)
from brats.console import some
from brats.data.assembly import assemble, group
from brats.data.challenges import AUTO, choose_coding
from brats.data.codings import BRATS_2012
from brats.data.image_files import FoundImages, Image, find_images, list_files, names_below
from brats.data.layouts import HDF5_SLICES, LAYOUTS, SEGMENTATION, SINCE_2018, SINCE_2023
from brats.data.name_mapping import NameMapping, read_name_mapping
from brats.data.rejects import Reject
from brats.data.sources import SourceFile, Sources, source_bytes
from brats.errors import CaseError, ConfigError
from brats.storage import FileInfo

CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # it becomes a file name


@dataclass(frozen=True, kw_only=True)
class Hdf5Options:
    """What the files of HDF5 slices do not say: `--hdf5-channels` and `--hdf5-spacing-mm`."""

    channels: tuple[Modality, ...] = HDF5_CHANNELS
    spacing_hwz_mm: tuple[float, ...] = HDF5_SPACING_MM

    @classmethod
    def of(cls, config: PrepareConfig | TrainConfig | PredictConfig) -> Self:
        """Those of a job."""
        return cls(channels=config.hdf5_channels, spacing_hwz_mm=config.hdf5_spacing_mm)


DEFAULT_HDF5 = Hdf5Options()


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """The files of one case: one visit of one patient.

    Most often each modality is a file. One file may hold several as its channels, and a case may be cut into
    slices, which hold its segmentation too: then its images and its segmentation have one file, in name.
    """

    case_id: str
    patient_id: str
    layout: str
    """The naming its files follow: a key of `layouts.LAYOUTS`."""
    coding: str
    """Of its segmentation: a key of `codings.CODINGS`."""
    images: dict[str, FileInfo]
    """Every modality found, in the order of `MODALITIES`."""
    segmentation: FileInfo | None
    grade: str
    """HGG or LGG, or "" where nothing says so."""
    channels: tuple[str, ...] = ()
    """The modality of each channel of a file that holds several; empty where each is a file."""
    slices: tuple[FileInfo, ...] = ()
    """The files of its slices, from the lowest on; empty where files hold volumes."""
    spacing_hwz_mm: tuple[float, ...] = ()
    """Voxel size along the axes of the slices, then across them; empty where files have their own."""
    notes: tuple[str, ...] = ()
    """What is notable about the files: warnings of the case."""

    def image_name(self, modality: str) -> str:
        """What messages call the image of a modality: its file, with the modality where the file has several."""
        return f"{self.images[modality].name} ({modality})" if self.channels else self.images[modality].name

    def sources(self, modalities: Sequence[str]) -> Sources:
        """The files that a case with these modalities is made from, unread."""
        used: Mapping[str, FileInfo | None]
        if self.slices:
            used = {f"slice {number}": file for number, file in enumerate(self.slices)}
        elif self.channels:
            used = {"+".join(self.channels): self.images[self.channels[0]], SEGMENTATION: self.segmentation}
        else:
            used = {**{name: self.images[name] for name in modalities}, SEGMENTATION: self.segmentation}
        return tuple(
            SourceFile(kind=kind, path=file.path, size=file.size, stamp=file.stamp)
            for kind, file in used.items()
            if file
        )

    def source_bytes(self, modalities: Sequence[str]) -> int:
        """Size of the files that a case with these modalities is made from."""
        return source_bytes(self.sources(modalities))


@dataclass(frozen=True, kw_only=True)
class FoundCases:
    """What a folder holds."""

    cases: tuple[CaseFiles, ...]
    """Sorted by `case_id`, which is unique."""
    rejects: tuple[Reject, ...]
    """Cases that cannot be used (stage "find"), sorted likewise. No id is both here and in `cases`."""
    unused: tuple[str, ...]
    """Image files, and folders named like one, that no rule takes: their paths below the folder, sorted."""
    mapping_notes: tuple[str, ...] = ()
    """What is odd in the name mappings, a line each."""
    description_notes: tuple[str, ...] = ()
    """Descriptions of cases that are not used, a line each."""

    def notes(self) -> list[str]:
        """What the user should know of the folder, a line each."""
        return [*self._unused_notes(), *self.mapping_notes, *self.description_notes, *self._spacing_notes()]

    def _spacing_notes(self) -> list[str]:
        return [spacing_note(each) for each in sorted({case.spacing_hwz_mm for case in self.cases} - {()})]

    def _unused_notes(self) -> list[str]:
        if not self.unused:
            return []
        n_files = len(self.unused)
        what = "NIfTI" if all(".nii" in name.lower() for name in self.unused) else "image"
        files = f"{n_files} {what} files belong" if n_files > 1 else f"1 {what} file belongs"
        return [f"{files} to no case: {some(self.unused)}"]


def spacing_note(spacing_hwz_mm: Iterable[float]) -> str:
    """The line that says which voxel size the cases have whose files state none."""
    return (
        f"{HDF5_SLICES.name} states no voxel size: ml and mm of its cases are of voxels of "
        f"{' x '.join(f'{mm:g}' for mm in spacing_hwz_mm)} mm (--hdf5-spacing-mm)"
    )


def find_cases(
    root: str, modalities: Sequence[str] = MODALITIES, coding: str = AUTO, hdf5: Hdf5Options = DEFAULT_HDF5
) -> FoundCases:
    """Find the cases below a folder, at any depth and however they are arranged in it.

    Understands the forms of `layouts.LAYOUTS`. The files of one case may lie in several folders, as where each
    modality has its own. A case is rejected when it lacks one of `modalities`, has two files for one image, leaves
    its coding open, or has an id that cannot name a file. Cases without a segmentation are fine. Tables called
    name_mapping*.csv or alike, wherever they lie, give grades and say which ids are one patient; without them,
    folders called HGG and LGG give the grade.

    coding: `--coding`, the coding of the cases whose names leave more than one open (`challenges.choose_coding`)

    Raises ConfigError for a coding that no case may have, a folder that does not exist, is empty or holds no case,
    and a name mapping that cannot be understood.
    """
    root = storage.absolute(root)
    files = list_files(root)
    found = find_images(root, files)
    if not found.images and not found.rejects:
        raise ConfigError(_nothing_found(root, files, found))
    by_case = group(found.images, lambda image: image.case_id)
    mapping = read_name_mapping(files, by_case.keys())
    cases, rejects = [], {reject.case_id: reject for reject in found.rejects}
    for case_id, own in sorted(by_case.items()):
        if case_id in rejects:
            continue
        try:
            cases.append(_case_files(case_id, own, modalities, coding, hdf5, mapping))
        except CaseError as error:
            rejects[case_id] = Reject(case_id=case_id, path=own[0].folder, stage="find", reason=error.reason)
    _check_coding_used(root, coding, cases)
    _check_hdf5_used(root, hdf5, by_case.values())
    return FoundCases(
        cases=tuple(cases),
        rejects=tuple(reject for _, reject in sorted(rejects.items())),
        unused=tuple(found.unused),
        mapping_notes=mapping.notes,
        description_notes=tuple(found.notes),
    )


def count_codings(codings: Iterable[str]) -> str:
    """How many cases have which coding, in words; "" without any case."""
    counts = sorted(Counter(codings).items())
    return ", ".join(f"{name} of {n} case{'' if n == 1 else 's'}" for name, n in counts)


def _check_coding_used(root: str, coding: str, cases: Sequence[CaseFiles]) -> None:
    """Refuse a coding that was asked for in vain."""
    if coding != AUTO and cases and all(case.coding != coding for case in cases):
        raise ConfigError(
            f"--coding: {coding} is the coding of no case below {root}; the names of its cases say "
            f"{count_codings(case.coding for case in cases)}; leave --coding out"
        )


def _check_hdf5_used(root: str, hdf5: Hdf5Options, by_case: Iterable[Sequence[Image]]) -> None:
    """Refuse options of HDF5 slices where there are none."""
    if any(own[0].layout == HDF5_SLICES.name for own in by_case):
        return
    for option, given, default in (
        ("--hdf5-channels", hdf5.channels, DEFAULT_HDF5.channels),
        ("--hdf5-spacing-mm", hdf5.spacing_hwz_mm, DEFAULT_HDF5.spacing_hwz_mm),
    ):
        if given != default:
            raise ConfigError(
                f"{option}: no case below {root} consists of files such as {HDF5_SLICES.example}; leave it out"
            )


def _case_files(
    case_id: str,
    own: Sequence[Image],
    modalities: Sequence[str],
    coding: str,
    hdf5: Hdf5Options,
    mapping: NameMapping,
) -> CaseFiles:
    """The case that these images make. Raises CaseError where they make none that can be used."""
    if not CASE_ID.fullmatch(case_id):
        reason = "cannot name a file; use letters, digits and . _ -, a letter or digit first, 200 at most"
        raise CaseError("", f"{case_id!r} {reason}")
    made = assemble(case_id, own, modalities, hdf5.channels)
    layout = LAYOUTS[own[0].layout]
    chosen = choose_coding(case_id, layout, coding, labelled=made.segmentation is not None).name
    patient_id = mapping.patient_of(case_id)
    files = CaseFiles(
        case_id=case_id,
        patient_id=patient_id,
        layout=layout.name,
        coding=chosen,
        images=made.images,
        segmentation=made.segmentation,
        grade=mapping.grades.get(patient_id, next((image.grade for image in own if image.grade), "")),
        channels=made.channels,
        slices=made.slices,
        spacing_hwz_mm=hdf5.spacing_hwz_mm if made.slices else (),
        notes=made.notes,
    )
    if chosen == BRATS_2012.name and files.segmentation:
        without_et = (
            f"{files.segmentation.name}: its coding has no ET apart from the core; scores of ET say nothing"
        )
        return replace(files, notes=(*files.notes, without_et))
    return files


def _nothing_found(root: str, files: Sequence[FileInfo], found: FoundImages) -> str:
    """What to say of a folder without any case: an example of what there is, and of what is expected."""
    if found.notes:
        return found.notes[0]
    examples = [*found.unused, *("/".join(names_below(root, file)) for file in files)]
    seen = f", such as {examples[0]}" if examples else ""
    expected = " or ".join(layout.example for layout in (SINCE_2018, SINCE_2023))
    return (
        f"{root}: no BraTS case among {len(files)} files{seen}; names are expected to be like {expected}, or as in "
        "another form of docs/layouts.md"
    )
