"""The image files below a folder: what the name and place of each say; and the image files that no rule takes."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from brats import storage
from brats.data import layouts
from brats.data.decathlon import read_descriptions
from brats.data.layouts import AUTOMATIC, LAYOUTS, ODD_NAMES, SEGMENTATION, SIMULATED, Match
from brats.data.name_mapping import GRADES
from brats.data.rejects import Reject
from brats.errors import ConfigError
from brats.storage import FileInfo

SEGMENTATIONS = (SEGMENTATION, AUTOMATIC, SIMULATED)
"""What an image that is none of a modality may be of."""

_IMAGE_NAME = re.compile(r".*\.(nii(\.gz)?|mha)|volume_\d+_slice_\d+\.h5", re.IGNORECASE)


class Image(NamedTuple):
    """What the name and the place of a file say about it."""

    case_id: str
    layout: str
    kind: str
    """A modality, several joined by "+" in the order of their channels, a slice, or one of `SEGMENTATIONS`."""
    file: FileInfo
    is_folder: bool
    grade: str

    @property
    def folder(self) -> str:
        return _folder(self.file)

    @property
    def is_segmentation(self) -> bool:
        return self.kind in SEGMENTATIONS

    @property
    def by_place(self) -> bool:
        """Whether the folders above it say what it is."""
        return LAYOUTS[self.layout].by_place


class FoundImages(NamedTuple):
    """What the names and places of files say.

    images:  that belong to a case
    rejects: cases of which a description names files that are not there
    unused:  image files, and folders named like one, that belong to no case: their paths below the root, sorted
    notes:   descriptions that are not used, a line each
    """

    images: list[Image]
    rejects: list[Reject]
    unused: list[str]
    notes: list[str]


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


def find_images(root: str, files: Sequence[FileInfo]) -> FoundImages:
    """The files that are images of a case, and those that look like one and belong to none."""
    described = read_descriptions(files)
    images: dict[str, Image] = {}
    others: dict[str, FileInfo] = {}
    for file in files:
        names = names_below(root, file)
        if image := _parse(root, file, names, described.matches.get(file.path)):
            images[image.file.path] = image
        elif depths := [depth for depth, name in enumerate(names, start=1) if _IMAGE_NAME.fullmatch(name)]:
            others["/".join(names[: depths[0]])] = file
    odd = _odd_segmentations(images.values(), others)
    extra_ids = _extra_ids(images.values())
    settled = _settle_places([image for image in images.values() if image.case_id not in extra_ids])
    used = _without_second_choices([*settled, *odd.values()])
    taken = {image.file.path for image in used}
    extra = ["/".join(names_below(root, image.file)) for path, image in images.items() if path not in taken]
    unused = sorted([*(others.keys() - odd.keys()), *extra])
    return FoundImages(used, described.rejects, unused, described.notes)


def _parse(root: str, file: FileInfo, names: Sequence[str], described: Match | None) -> Image | None:
    """The image whose name a file, or else a folder above it, has. None where neither is named like one.

    described: what a description says of the file
    """
    above = root.rstrip("/").rsplit("/", 1)[-1]
    for depth, name in enumerate(names, start=1):
        n_below = len(names) - depth
        if not _IMAGE_NAME.fullmatch(name):
            continue
        found = described or layouts.match("/".join([above, *names[:depth]]))
        if found and not (n_below and found.layout.by_place):
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
    with_images = {image.case_id for image in images if not image.is_segmentation}

    def is_extra(case_id: str) -> bool:
        parts = [(case_id[: match.start()], case_id[match.end() :]) for match in re.finditer("[-_.]", case_id)]
        return any(
            first in with_images or (first in ids and not rest.replace("-", "").isdigit()) for first, rest in parts
        )

    return {case_id for case_id in ids - with_images if is_extra(case_id)}


def _settle_places(images: Sequence[Image]) -> list[Image]:
    """These images without those whose folders mean something else than they seem to.

    A folder that holds files with names of their own says nothing of the others in it. Files that names alone make
    whole need none of other places: these add a segmentation to images or images to a segmentation, and then count
    as named alike.
    """
    named = [image for image in images if not image.by_place]
    folders = {image.folder for image in named}
    placed = [image for image in images if image.by_place and image.folder not in folders]
    settled = _join(named, [image for image in placed if not image.is_segmentation])
    return _join(settled, [image for image in placed if image.is_segmentation])


def _join(images: Sequence[Image], placed: Iterable[Image]) -> list[Image]:
    """Images and those that their place makes images of the same cases, or of others."""
    by_case: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        by_case[image.case_id].append(image)
    added = []
    for image in placed:
        own = [other for other in by_case[image.case_id] if other.layout != image.layout]
        if all(other.is_segmentation != image.is_segmentation for other in own):
            added.append(image._replace(layout=own[0].layout) if own else image)
    return [*images, *added]


def _without_second_choices(images: Sequence[Image]) -> list[Image]:
    """These images without the automatic segmentations of cases that have another one."""
    corrected = {image.case_id for image in images if image.kind == SEGMENTATION}
    return [image for image in images if image.kind != AUTOMATIC or image.case_id not in corrected]
