"""Masks that other programs predicted, found by name, each beside the reference of its case."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from brats import storage
from brats.console import some
from brats.data.cases import DEFAULT_HDF5, CaseFiles, Hdf5Options, find_cases
from brats.data.challenges import AUTO
from brats.data.rejects import Reject
from brats.errors import BratsError, ConfigError
from brats.storage import FileInfo

_MASK_NAME = re.compile(r"(.+)\.(nii(\.gz)?|mha)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A case that has a reference, and the prediction to score against it."""

    case: CaseFiles
    reference: FileInfo
    prediction: FileInfo


@dataclass(frozen=True, kw_only=True)
class FoundPairs:
    """What two folders hold.

    pairs:   by case id
    rejects: cases that cannot be used, and references without a prediction
    n_masks: how many predictions there are
    unused:  those named after no case, sorted
    notes:   what the user should know of the folder of the references, a line each
    """

    pairs: Sequence[Pair]
    rejects: Sequence[Reject]
    n_masks: int
    unused: Sequence[FileInfo]
    notes: Sequence[str]

    def warnings(self) -> list[str]:
        """A line that counts and names what is unused, which hides a slip in a name; mostly none."""
        if not self.unused:
            return []
        names = some(file.name for file in self.unused)
        return [f"predictions named after no reference: {len(self.unused)} of {self.n_masks}, {names}"]


def find_pairs(
    predictions: str, references: str, coding: str = AUTO, hdf5: Hdf5Options = DEFAULT_HDF5
) -> FoundPairs:
    """Every reference with the prediction that has the name of its case, at any depth.

    A reference without one is a reject: leaving it out silently would flatter the means. One with two is an error,
    since means without it would be of a set that nobody chose, and nothing but the folder must be named anew.

    coding: of references whose names leave it open

    Raises ConfigError for a folder that does not exist, a case with two predictions, and no pair at all; BratsError
    where every reference is rejected.
    """
    masks, folders = _list_masks(predictions)
    found = find_cases(references, (), coding, hdf5)
    if not found.cases:
        raise BratsError(
            f"{references}: no usable case; the first of {len(found.rejects)} rejected: {found.rejects[0]}"
        )
    labelled = {case.case_id: (case, case.segmentation) for case in found.cases if case.segmentation is not None}
    _check_single({name: masks[name] for name in labelled if name in masks})
    known = labelled.keys() | {reject.case_id for reject in found.rejects}
    unused = [file for name, files in masks.items() if name not in known for file in files]
    pairs = [
        Pair(case=case, reference=reference, prediction=masks[name][0])
        for name, (case, reference) in labelled.items()
        if name in masks
    ]
    n_masks = sum(map(len, masks.values()))
    if not pairs:
        names = some(file.name for file in unused)
        raise ConfigError(
            f"{predictions}: none of its {n_masks} NIfTI files is named <case_id>.nii.gz after one of the "
            f"{len(labelled)} references in {references}"
            + (f"; found {names}, expected {min(labelled)}.nii.gz" if unused and labelled else "")
        )
    missing = [
        Reject(
            case_id=name, path=predictions, stage="find", reason=_why_missing(name, predictions, unused, folders)
        )
        for name in labelled
        if name not in masks
    ]
    return FoundPairs(
        pairs=pairs,
        rejects=[*found.rejects, *missing],
        n_masks=n_masks,
        unused=sorted(unused, key=lambda file: file.path),
        notes=found.notes(),
    )


def _list_masks(root: str) -> tuple[dict[str, list[FileInfo]], Mapping[str, str]]:
    """The image files below a folder and the folders named like one, by name without suffix; nothing hidden."""
    try:
        files = storage.list_files(root)
    except FileNotFoundError:
        raise ConfigError(f"--predictions: {root} does not exist") from None
    masks: dict[str, list[FileInfo]] = defaultdict(list)
    folders: dict[str, str] = {}
    for file in files:
        *above, name = file.path.removeprefix(root).strip("/").split("/")
        if any(part.startswith(".") for part in [*above, name]):  # being written, or left behind by macOS
            continue
        if match := _MASK_NAME.fullmatch(name):
            masks[match[1]].append(file)
        folders |= {match[1]: folder for folder in above if (match := _MASK_NAME.fullmatch(folder))}
    return dict(masks), folders


def _check_single(masks: Mapping[str, Sequence[FileInfo]]) -> None:
    """Raise ConfigError for cases with several predictions, naming the first two files of the first."""
    doubles = sorted(name for name, files in masks.items() if len(files) > 1)
    if doubles:
        name, (one, other, *rest) = doubles[0], masks[doubles[0]]
        raise ConfigError(
            f"--predictions: {name} has {2 + len(rest)} predictions, {one.path} and {other.path}"
            + (f" and {len(rest)} more" if rest else "")
            + (f", one of {len(doubles)} such cases" if len(doubles) > 1 else "")
            + "; keep one, or name the folder of those that are meant"
        )


def _why_missing(name: str, root: str, unused: Sequence[FileInfo], folders: Mapping[str, str]) -> str:
    """Why a reference has no prediction, with a file that may be meant for it."""
    if name in folders:
        return f"its prediction {folders[name]} is a folder, not a file"
    alike = re.compile(rf"{re.escape(name)}(?![a-z0-9]).*", re.IGNORECASE)
    near = next((file.name for file in unused if alike.fullmatch(file.name)), "")
    return f"no prediction {root}/<case_id>.nii.gz" + (f"; {near} is not named so" if near else "")
