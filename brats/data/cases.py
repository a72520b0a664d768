"""Discovery of BraTS cases below a folder or s3:// prefix, by file name, from one listing."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from brats import storage
from brats.config import MODALITIES
from brats.console import some
from brats.data.challenges import AUTO, choose_coding
from brats.data.image_files import Image, find_images, list_files, names_below
from brats.data.layouts import LAYOUTS, SEGMENTATION
from brats.data.name_mapping import NameMapping, read_name_mapping
from brats.data.rejects import Reject
from brats.data.sources import SourceFile, Sources, source_bytes
from brats.errors import CaseError, ConfigError
from brats.storage import FileInfo

_KINDS = (*MODALITIES, SEGMENTATION)

CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # it becomes a file name


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """The files of one case: one visit of one patient."""

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

    def sources(self, modalities: Sequence[str]) -> Sources:
        """The files that a case with these modalities is made from, unread."""
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
    """NIfTI files, and folders named like one, that no rule takes: their paths below the folder, sorted."""
    mapping_notes: tuple[str, ...] = ()
    """What is odd in the name mappings, a line each."""

    def notes(self) -> list[str]:
        """What the user should know of the folder, a line each."""
        if not self.unused:
            return list(self.mapping_notes)
        n_files = len(self.unused)
        files = f"{n_files} NIfTI files belong" if n_files > 1 else "1 NIfTI file belongs"
        return [f"{files} to no case: {some(self.unused)}", *self.mapping_notes]


def find_cases(root: str, modalities: Sequence[str] = MODALITIES, coding: str = AUTO) -> FoundCases:
    """Find the cases below a folder, at any depth and however they are arranged in it.

    Understands the file names of BraTS 2018 to 2021 and of 2023 on. The files of one case may lie in several
    folders, as where each modality has its own. A case is rejected when it lacks one of `modalities`, has two files
    for one image, leaves its coding open, or has an id that cannot name a file. Cases without a segmentation are
    fine. Tables called name_mapping*.csv or alike, wherever they lie, give grades and say which ids are one
    patient; without them, folders called HGG and LGG give the grade.

    coding: `--coding`, the coding of the cases whose names leave more than one open (`challenges.choose_coding`)

    Raises ConfigError for an unknown modality, a coding that no case may have, a folder that does not exist, is
    empty or holds no case, and a name mapping that cannot be understood.
    """
    if unknown := [modality for modality in modalities if modality not in MODALITIES]:
        raise ConfigError(f"unknown modality {unknown[0]!r}; choose from {', '.join(MODALITIES)}")
    root = storage.absolute(root)
    files = list_files(root)
    images, unused = find_images(root, files)
    if not images:
        raise ConfigError(_nothing_found(root, files, unused))
    by_case = _group(images, lambda image: image.case_id)
    mapping = read_name_mapping(files, by_case.keys())
    cases, rejects = [], []
    for case_id, own in sorted(by_case.items()):
        try:
            cases.append(_case_files(case_id, own, modalities, coding, mapping))
        except CaseError as error:
            rejects.append(Reject(case_id=case_id, path=own[0].folder, stage="find", reason=error.reason))
    _check_coding_used(root, coding, cases)
    return FoundCases(cases=tuple(cases), rejects=tuple(rejects), unused=tuple(unused), mapping_notes=mapping.notes)


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


def _case_files(
    case_id: str, own: Sequence[Image], modalities: Sequence[str], coding: str, mapping: NameMapping
) -> CaseFiles:
    """The case that these images make. Raises CaseError where they make none that can be used."""
    if reason := _fault(case_id, own, modalities):
        raise CaseError("", reason)
    found = {image.kind: image.file for image in own}
    patient_id = mapping.patient_of(case_id)
    return CaseFiles(
        case_id=case_id,
        patient_id=patient_id,
        layout=own[0].layout,
        coding=choose_coding(case_id, LAYOUTS[own[0].layout], coding).name,
        images={modality: found[modality] for modality in MODALITIES if modality in found},
        segmentation=found.get(SEGMENTATION),
        grade=mapping.grades.get(patient_id, next((image.grade for image in own if image.grade), "")),
    )


def _nothing_found(root: str, files: Sequence[FileInfo], unused: Sequence[str]) -> str:
    """What to say of a folder without any case: an example of what there is, and of what is expected."""
    examples = [*unused, *("/".join(names_below(root, file)) for file in files)]
    seen = f", such as {examples[0]}" if examples else ""
    expected = " or ".join(layout.example for layout in LAYOUTS.values())
    return f"{root}: no BraTS case among {len(files)} files{seen}; names are expected to be like {expected}"


def _group(images: Iterable[Image], key: Callable[[Image], str]) -> dict[str, list[Image]]:
    groups = defaultdict(list)
    for image in images:
        groups[key(image)].append(image)
    return groups


def _fault(case_id: str, images: Sequence[Image], modalities: Sequence[str]) -> str:
    """Why a case cannot be used, or ""."""
    by_kind = _group(images, lambda image: image.kind)
    if not CASE_ID.fullmatch(case_id):
        return (
            f"{case_id!r} cannot name a file; use letters, digits and . _ -, a letter or digit first, 200 at most"
        )
    for kind, rivals in by_kind.items():
        if len(rivals) > 1:
            return f"{len(rivals)} files for {kind}: {_file_names(rivals)}; keep one"
        if rivals[0].is_folder:
            return f"{_file_names(rivals)} is a folder, not a file"
    layout, *other_layouts = {image.layout for image in images}
    if other_layouts:
        return f"files named as in different editions: {_file_names(images)}"
    if missing := [modality for modality in modalities if modality not in by_kind]:
        found = [kind for kind in _KINDS if kind in by_kind]
        expected = LAYOUTS[layout].file_name(case_id, missing[0])
        return f"lacks {' and '.join(missing)} ({expected}); found {', '.join(found)}"
    return ""


def _file_names(images: Collection[Image]) -> str:
    """The files of images: their names, or their paths where they lie in several folders."""
    several = len({image.folder for image in images}) > 1
    return " and ".join(image.file.path if several else image.file.name for image in images)
