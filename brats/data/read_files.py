"""From the files of a case to its volumes and labels, whether a file holds one modality, several or a slice."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from brats.data.cases import CaseFiles
from brats.data.channel_order import channel_warnings
from brats.data.grid import to_ras
from brats.data.layouts import SEGMENTATION
from brats.data.nifti import read_content
from brats.data.slice_stack import SliceStack, read_stack, stack_grid
from brats.data.sources import Sources, content_hash
from brats.data.trim import Trimmed, trim
from brats.data.volume import Segmentation, Volume, read_channels, read_segmentation, read_volume
from brats.storage import FileInfo, is_remote

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ReadFiles:
    """What the files of a case hold.

    images:   by modality, in the order in which they were asked for
    sources:  the files that were read, with the hash of their content
    warnings: of the case
    """

    images: dict[str, Trimmed]
    segmentation: Segmentation | None
    sources: Sources
    warnings: tuple[str, ...]


def read_files(files: CaseFiles, modalities: Sequence[str]) -> ReadFiles:
    """Read these modalities of a case and its segmentation, each file once. Raises CaseError naming the file."""
    return _read_slices(files, modalities) if files.slices else _read_volumes(files, modalities)


def read_reference(files: CaseFiles) -> Segmentation:
    """Read the segmentation of a case that has one. Raises CaseError naming the file at fault."""
    if files.slices:
        return _stack_segmentation(read_stack(files.slices), files)
    assert files.segmentation is not None, f"{files.case_id} has no segmentation"
    return read_segmentation(files.segmentation, files.coding)


def _read_volumes(files: CaseFiles, modalities: Sequence[str]) -> ReadFiles:
    """The images from files of their own, or from the channels of one."""
    sources = files.sources(modalities)
    stored = [file for file in sources if file.kind != SEGMENTATION]
    workers = len(stored) + 1 if any(is_remote(file.path) for file in stored) else 1

    def read(file: FileInfo, content: bytes) -> list[Trimmed]:
        if files.channels:
            return [trim(volume) for volume in read_channels(file, len(files.channels), content)]
        return [trim(read_volume(file, content))]

    with ThreadPoolExecutor(workers) as pool:  # on S3 the latencies of the files of a case overlap
        reading = [pool.submit(_read_once, FileInfo(file.path, file.size), read) for file in stored]
        segmented = files.segmentation and pool.submit(
            _read_once, files.segmentation, lambda file, content: read_segmentation(file, files.coding, content)
        )
        found = [future.result() for future in reading]
        segmentation, labels_hash = segmented.result() if segmented else (None, "")
    names = files.channels or modalities
    images = dict(zip(names, (image for several, _ in found for image in several), strict=True))
    hashes = {file.kind: own_hash for file, (_, own_hash) in zip(stored, found, strict=True)}
    hashes[SEGMENTATION] = labels_hash
    rounded = segmentation.warnings(files.segmentation) if segmentation and files.segmentation else ()
    return ReadFiles(
        images={name: images[name] for name in modalities},
        segmentation=segmentation,
        sources=tuple(replace(file, hash=hashes[file.kind]) for file in sources),
        warnings=(*rounded, *files.notes),
    )


def _read_once(file: FileInfo, read: Callable[[FileInfo, bytes], T]) -> tuple[T, str]:
    """What a file holds, and the hash of its content."""
    content = read_content(file)
    return read(file, content), content_hash(content)


def _read_slices(files: CaseFiles, modalities: Sequence[str]) -> ReadFiles:
    """The images and the segmentation from slices."""
    stack = read_stack(files.slices)
    grid = stack_grid(stack, files.spacing_hwz_mm)
    images = dict(zip(files.channels, stack.images, strict=True))
    name = next(iter(files.images.values())).name
    return ReadFiles(
        images={
            each: trim(Volume(voxels=to_ras(images[each].T, grid), slope=1.0, inter=0.0, grid=grid))
            for each in modalities
        },
        segmentation=_stack_segmentation(stack, files),
        sources=tuple(
            replace(file, hash=each) for file, each in zip(files.sources(modalities), stack.hashes, strict=True)
        ),
        warnings=(*channel_warnings(name, stack.images, stack.labels, files.channels), *files.notes),
    )


def _stack_segmentation(stack: SliceStack, files: CaseFiles) -> Segmentation:
    grid = stack_grid(stack, files.spacing_hwz_mm)
    return Segmentation(labels=to_ras(stack.labels.T, grid), grid=grid, n_rounded=0)
