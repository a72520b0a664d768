"""The image files below a folder: what the name and place of each say; and the NIfTI files that no rule takes."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from brats import storage
from brats.data import layouts
from brats.data.layouts import ODD_NAMES, SEGMENTATION
from brats.data.name_mapping import GRADES
from brats.errors import ConfigError
from brats.storage import FileInfo

_NIFTI_NAME = re.compile(r".*\.nii(\.gz)?", re.IGNORECASE)


class Image(NamedTuple):
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


def list_files(root: str) -> list[FileInfo]:
    """Every file below the root but hidden ones: those being written, and what macOS leaves behind."""
    try:
        files = storage.list_files(root)
    except FileNotFoundError as error:
        raise ConfigError(f"{root}: no such folder") from error
    if not files:
        raise ConfigError(f"{root}: the folder is empty")
    return [file for file in files if not any(name.startswith(".") for name in names_below(root, file))]


def names_below(root: str, file: FileInfo) -> list[str]:
    """The names of the folders between the root and a file, then the file's."""
    inner, outer = (path.split("://")[-1].strip("/") for path in (file.path, root))
    return inner.removeprefix(outer).strip("/").split("/")


def find_images(root: str, files: Iterable[FileInfo]) -> tuple[list[Image], list[str]]:
    """The files that are images of a case, and the paths below the root of NIfTI files that belong to none."""
    images: dict[str, Image] = {}
    others: dict[str, FileInfo] = {}
    for file in files:
        names = names_below(root, file)
        if image := _parse(file, names):
            images[image.file.path] = image
        elif depths := [depth for depth, name in enumerate(names, start=1) if _NIFTI_NAME.fullmatch(name)]:
            others["/".join(names[: depths[0]])] = file
    odd = _odd_segmentations(images.values(), others)
    extra_ids = _extra_ids(images.values())
    used = [image for image in images.values() if image.case_id not in extra_ids]
    extra = ["/".join(names_below(root, image.file)) for image in images.values() if image.case_id in extra_ids]
    return [*used, *odd.values()], sorted([*(others.keys() - odd.keys()), *extra])


def _parse(file: FileInfo, names: Sequence[str]) -> Image | None:
    """The image whose name a file, or else a folder above it, has. None where neither is named like one."""
    for depth, name in enumerate(names, start=1):
        if found := layouts.match(name):
            n_below = len(names) - depth
            return Image(
                case_id=found.case_id,
                layout=found.layout.name,
                kind=found.kind,
                file=FileInfo(file.path.rsplit("/", n_below)[0], file.size) if n_below else file,
                is_folder=n_below > 0,
                grade=next((name.upper() for name in names[:-1] if name.upper() in GRADES), ""),
            )
    return None


def _odd_segmentations(images: Iterable[Image], others: Mapping[str, FileInfo]) -> dict[str, Image]:
    """The files of `ODD_NAMES` that lie beside the images of their case, which lacks a segmentation; by key."""
    taken = {}
    for key, file in others.items():
        if file.name not in ODD_NAMES:
            continue
        own = [image for image in images if image.case_id == ODD_NAMES[file.name]]
        beside = [image for image in own if image.folder == _folder(file)]
        if beside and all(image.kind != SEGMENTATION for image in own):
            taken[key] = beside[0]._replace(kind=SEGMENTATION, file=file, is_folder=False)
    return taken


def _extra_ids(images: Collection[Image]) -> set[str]:
    """The ids of segmentations that belong to no case: further ones of a case found, as of a second rater.

    Such an id is that of the case, a separator and more, and has no other image. Among segmentations alone, a
    number may be that of a visit, which is a case.
    """
    ids = {image.case_id for image in images}
    with_images = {image.case_id for image in images if image.kind != SEGMENTATION}

    def is_extra(case_id: str) -> bool:
        parts = [(case_id[: match.start()], case_id[match.end() :]) for match in re.finditer("[-_.]", case_id)]
        return any(
            first in with_images or (first in ids and not rest.replace("-", "").isdigit()) for first, rest in parts
        )

    return {case_id for case_id in ids - with_images if is_extra(case_id)}
