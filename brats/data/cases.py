"""Discovery of BraTS cases below a folder or s3:// prefix, by file name, from one listing."""

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from brats import storage
from brats.config import MODALITIES
from brats.data import layouts
from brats.data.layouts import LAYOUTS, SEGMENTATION
from brats.data.rejects import Reject
from brats.data.sources import SourceFile, Sources, source_bytes
from brats.errors import ConfigError
from brats.storage import FileInfo

_KINDS = (*MODALITIES, SEGMENTATION)

_ODD_SEGMENTATION_NAME = re.compile(r".*segm.*\.nii(\.gz)?", re.IGNORECASE)  # W39_1998.09.19_Segm.nii

_MAPPING_NAME = re.compile(r"name_mapping.*\.csv", re.IGNORECASE)
_ID_COLUMN = "_subject_ID"

CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # it becomes a file name
_PATIENT_IN_CASE_ID = (
    re.compile(r"BraTS1[789]_(.+)_\d+", re.IGNORECASE),  # edition, patient, scan: 2017 to 2019 share patients
    re.compile(r"(BraTS-[A-Z]+-\d+)-\d+", re.IGNORECASE),  # patient, visit: from 2023 on
)
_GRADES = ("HGG", "LGG")


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


def find_cases(root: str, modalities: Sequence[str] = MODALITIES) -> FoundCases:
    """Find the cases below a folder, at any depth and however they are arranged in it.

    Understands the file names of BraTS 2018 to 2021 and of 2023 on. A case is rejected when it lacks one of
    `modalities`, has two files for one image, lies in two folders, or has an id that cannot name a file.
    Cases without a segmentation are fine. Tables called name_mapping*.csv, wherever they lie, give grades and
    tell which ids are one patient; without them, folders called HGG and LGG give the grade.

    Raises ConfigError for an unknown modality, a folder that does not exist, is empty or holds no case, and a
    name mapping that cannot be understood.
    """
    if unknown := [modality for modality in modalities if modality not in MODALITIES]:
        raise ConfigError(f"unknown modality {unknown[0]!r}; choose from {', '.join(MODALITIES)}")
    root = storage.absolute(root)
    files = _list_files(root)
    images = _find_images(root, files)
    if not images:
        raise ConfigError(
            f"{root}: no BraTS case among {len(files)} files; names are expected to be like "
            + " or ".join(layout.example for layout in LAYOUTS.values())
        )
    patients, grades = _read_mappings(files)
    cases, rejects = [], []
    for case_id, own in sorted(_group(images, lambda image: image.case_id).items()):
        if reason := _fault(case_id, own, modalities):
            rejects.append(Reject(case_id=case_id, path=own[0].folder, stage="find", reason=reason))
            continue
        found = {image.kind: image.file for image in own}
        patient_id = patients.get(_patient_in(case_id), _patient_in(case_id))
        cases.append(
            CaseFiles(
                case_id=case_id,
                patient_id=patient_id,
                layout=own[0].layout,
                coding=LAYOUTS[own[0].layout].coding.name,
                images={modality: found[modality] for modality in MODALITIES if modality in found},
                segmentation=found.get(SEGMENTATION),
                grade=grades.get(patient_id, own[0].grade),
            )
        )
    return FoundCases(cases=tuple(cases), rejects=tuple(rejects))


class _Image(NamedTuple):
    """What the name and the place of a file say about it."""

    case_id: str
    layout: str
    kind: str
    """A modality, or "seg"."""
    file: FileInfo
    is_folder: bool
    grade: str

    @property
    def folder(self) -> str:
        return _folder(self.file)


def _folder(file: FileInfo) -> str:
    return file.path.rsplit("/", 1)[0]


def _group(images: Iterable[_Image], key: Callable[[_Image], str]) -> dict[str, list[_Image]]:
    groups = defaultdict(list)
    for image in images:
        groups[key(image)].append(image)
    return groups


def _list_files(root: str) -> list[FileInfo]:
    """Every file below the root but hidden ones: those being written, and what macOS leaves behind."""
    try:
        files = storage.list_files(root)
    except FileNotFoundError as error:
        raise ConfigError(f"{root}: no such folder") from error
    if not files:
        raise ConfigError(f"{root}: the folder is empty")
    return [file for file in files if not any(name.startswith(".") for name in _names_below(root, file))]


def _names_below(root: str, file: FileInfo) -> list[str]:
    """The names of the folders between the root and a file, then the file's."""
    inner, outer = (path.split("://")[-1].strip("/") for path in (file.path, root))
    return inner.removeprefix(outer).strip("/").split("/")


def _find_images(root: str, files: Iterable[FileInfo]) -> list[_Image]:
    """The files named like images of a case, and the segmentations with another name that have one owner."""
    images: dict[str, _Image] = {}
    odd = []
    for file in files:
        names = _names_below(root, file)
        if image := _parse(file, names):
            images[image.file.path] = image
        elif _ODD_SEGMENTATION_NAME.fullmatch(names[-1]):
            odd.append(file)
    return [*images.values(), *_odd_segmentations(images.values(), odd)]


def _parse(file: FileInfo, names: Sequence[str]) -> _Image | None:
    """The image whose name a file, or else a folder above it, has. None where neither is named like one."""
    for depth, name in enumerate(names, start=1):
        if found := layouts.match(name):
            n_below = len(names) - depth
            return _Image(
                case_id=found.case_id,
                layout=found.layout.name,
                kind=found.kind,
                file=replace(file, path=file.path.rsplit("/", n_below)[0]),
                is_folder=n_below > 0,
                grade=next((name.upper() for name in names[:-1] if name.upper() in _GRADES), ""),
            )
    return None


def _odd_segmentations(images: Iterable[_Image], odd: Iterable[FileInfo]) -> Iterator[_Image]:
    """Give a segmentation with another name to the case of its folder that has none, if there is just one.

    BraTS 2020 needs it: the segmentation of BraTS20_Training_355 is called W39_1998.09.19_Segm.nii.
    """
    by_folder = _group(images, lambda image: image.folder)
    for file in odd:
        neighbours = by_folder.get(_folder(file), [])
        labelled = {image.case_id for image in neighbours if image.kind == SEGMENTATION}
        without = {image.case_id: image for image in neighbours if image.case_id not in labelled}
        if len(without) == 1:
            (image,) = without.values()
            yield image._replace(kind=SEGMENTATION, file=file, is_folder=False)


def _fault(case_id: str, images: Sequence[_Image], modalities: Sequence[str]) -> str:
    """Why a case cannot be used, or ""."""
    by_kind = _group(images, lambda image: image.kind)
    folders = sorted({image.folder for image in images})
    if not CASE_ID.fullmatch(case_id):
        return (
            f"{case_id!r} cannot name a file; use letters, digits and . _ -, a letter or digit first, 200 at most"
        )
    if len(folders) > 1:
        return f"this case id is in {len(folders)} folders: {' and '.join(folders)}; keep one"
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


def _file_names(images: Iterable[_Image]) -> str:
    return " and ".join(image.file.name for image in images)


def _patient_in(case_id: str) -> str:
    """The patient that a case id names: the id without its edition and scan, or without its visit."""
    matches = (pattern.fullmatch(case_id) for pattern in _PATIENT_IN_CASE_ID)
    return next((match[1] for match in matches if match), case_id)


def _read_mappings(files: Iterable[FileInfo]) -> tuple[dict[str, str], dict[str, str]]:
    """From every name of a patient to the one in use, the first by alphabet; and from that to the grade."""
    namesakes: dict[str, set[str]] = {}
    grades: dict[str, str] = {}
    for file in files:
        if not _MAPPING_NAME.fullmatch(file.name):
            continue
        for grade, names in _read_mapping(file):
            joined = names.union(*(namesakes[name] for name in names if name in namesakes))
            namesakes |= dict.fromkeys(joined, joined)
            if grade:
                grades |= dict.fromkeys(names, grade)
    patients = {name: min(joined) for name, joined in namesakes.items()}
    return patients, {patients[name]: grade for name, grade in grades.items()}


def _read_mapping(file: FileInfo) -> Iterator[tuple[str, set[str]]]:
    """For each row of a name_mapping.csv the grade ("" where it says none) and the names of its patient."""
    try:
        lines = storage.read_bytes(file.path).decode("utf-8-sig").splitlines()
        rows = [row for row in csv.reader(lines, strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{file.path}: not a table of comma-separated values ({error})") from error
    header = rows[0] if rows else []
    if not any(column.endswith(_ID_COLUMN) for column in header):
        raise ConfigError(f"{file.path}: no column such as BraTS_2020{_ID_COLUMN}, but {header}")
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise ConfigError(f"{file.path}: row {number} has {len(row)} fields for {len(header)} columns")
        cells = dict(zip(header, row, strict=True))
        ids = {cell for column, cell in cells.items() if column.endswith(_ID_COLUMN)} - {"", "NA"}
        grade = cells.get("Grade", "")
        yield grade if grade in _GRADES else "", {_patient_in(case_id) for case_id in ids}
