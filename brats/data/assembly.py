"""The images of one case put together: what each modality is read from, or why the case cannot be used."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from brats.config import MODALITIES
from brats.data.image_files import Image
from brats.data.layouts import (
    AUTOMATIC,
    BRATS_SHAPE,
    HDF5_SLICES,
    LAYOUTS,
    MSD_TASK01_FILES,
    SEGMENTATION,
    SIMULATED,
)
from brats.errors import CaseError
from brats.storage import FileInfo

N_SLICES = BRATS_SHAPE[2]  # of a volume, each in a file of its own in the HDF5 form

_KINDS = (*MODALITIES, SEGMENTATION)


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """What a case is read from; see `CaseFiles`."""

    images: dict[str, FileInfo]
    segmentation: FileInfo | None
    channels: tuple[str, ...] = ()
    slices: tuple[FileInfo, ...] = ()
    notes: tuple[str, ...] = ()


def assemble(
    case_id: str, images: Sequence[Image], modalities: Sequence[str], hdf5_channels: Sequence[str]
) -> Assembled:
    """What the images of one case make together.

    modalities:    that it must have
    hdf5_channels: the modalities of the channels of a slice, in their order

    Raises CaseError, which names the files, where they make no case that can be used.
    """
    by_kind = group(images, lambda image: image.kind)
    layout = _only_layout(images, by_kind)
    if layout == HDF5_SLICES.name:
        return _of_slices(case_id, images, hdf5_channels)
    if layout == MSD_TASK01_FILES.name:
        return _of_channels(images)
    if missing := [modality for modality in modalities if modality not in by_kind]:
        found = [kind for kind in _KINDS if kind in by_kind]
        expected = LAYOUTS[layout].file_name(case_id, missing[0])
        raise CaseError("", f"lacks {' and '.join(missing)} ({expected}); found {', '.join(found)}")
    files = {image.kind: image.file for image in images}
    notes = (f"{files[AUTOMATIC].name}: a program made it, and nobody corrected it",) if AUTOMATIC in files else ()
    return Assembled(
        images={modality: files[modality] for modality in MODALITIES if modality in files},
        segmentation=files.get(SEGMENTATION, files.get(AUTOMATIC)),
        notes=notes,
    )


def group(images: Iterable[Image], key: Callable[[Image], str]) -> dict[str, list[Image]]:
    """The images by what the key makes of each."""
    groups = defaultdict(list)
    for image in images:
        groups[key(image)].append(image)
    return groups


def _only_layout(images: Sequence[Image], by_kind: Mapping[str, Sequence[Image]]) -> str:
    """The one layout in which all images of a case are named. Raises CaseError for images that contradict."""
    for kind, rivals in by_kind.items():
        if len(rivals) > 1:
            raise CaseError("", f"{len(rivals)} files for {kind}: {_file_names(rivals)}; keep one")
        if rivals[0].is_folder:
            raise CaseError("", f"{_file_names(rivals)} is a folder, not a file")
    layout, *other_layouts = {image.layout for image in images}
    if other_layouts:
        of_each = dict(sorted({image.layout: image for image in reversed(images)}.items()))
        forms = " and ".join(of_each)
        raise CaseError("", f"files in the forms {forms}: {_file_names(of_each.values())}; keep those of one")
    if simulated := by_kind.get(SIMULATED):
        reason = "its codes stand for healthy tissues too, as of simulated images; leave the case out"
        raise CaseError("", f"{_file_names(simulated)}: {reason}")
    return layout


def _of_channels(images: Sequence[Image]) -> Assembled:
    """The case of one file with a channel for each modality."""
    files = {image.kind: image.file for image in images}
    segmentation = files.pop(SEGMENTATION, None)
    ((kind, file),) = files.items()
    channels = tuple(kind.split("+"))
    return Assembled(
        images={modality: file for modality in MODALITIES if modality in channels},
        segmentation=segmentation,
        channels=channels,
    )


def _of_slices(case_id: str, images: Sequence[Image], channels: Sequence[str]) -> Assembled:
    """The case of slices from 0 on, each with a channel for each modality and the mask.

    Its images and its segmentation have the name that all of its slices have in common.
    """
    by_number = {int(image.kind.rpartition("_")[2]): image.file for image in images}
    missing = sorted({*range(N_SLICES)} - by_number.keys())
    if missing:
        raise CaseError("", f"lacks {_numbers(missing)} of the slices 0 to {N_SLICES - 1}")
    if beyond := sorted(by_number.keys() - {*range(N_SLICES)}):
        raise CaseError("", f"has {_numbers(beyond)}, beyond the slices 0 to {N_SLICES - 1} of a volume of BraTS")
    if len({image.folder for image in images}) > 1:
        raise CaseError("", f"its slices lie in {len({image.folder for image in images})} folders; keep one")
    whole = FileInfo(f"{images[0].folder}/{case_id}_slice_*.h5", sum(file.size for file in by_number.values()))
    return Assembled(
        images=dict.fromkeys(MODALITIES, whole),
        segmentation=whole,
        channels=tuple(channels),
        slices=tuple(file for _, file in sorted(by_number.items())),
    )


def _numbers(numbers: Sequence[int]) -> str:
    """Numbers in words, the first five of them."""
    shown = ", ".join(map(str, numbers[:5]))
    return f"{shown} and {len(numbers) - 5} more" if len(numbers) > 5 else shown


def _file_names(images: Collection[Image]) -> str:
    """The files of images: their names, or their paths where they lie in several folders."""
    several = len({image.folder for image in images}) > 1
    return " and ".join(image.file.path if several else image.file.name for image in images)
