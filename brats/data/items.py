"""The cases to predict, prepared or from their own files: found, chosen by the run's split, and read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from brats.data.case import Case, check_modalities
from brats.data.cases import DEFAULT_HDF5, CaseFiles, Hdf5Options, find_cases, spacing_note
from brats.data.challenges import AUTO
from brats.data.dataset import is_prepared, read_case_table, slices_path
from brats.data.layouts import HDF5_SLICES
from brats.data.preprocess import read_case
from brats.data.rejects import Reject
from brats.data.run_split import read_split
from brats.data.slices import SliceFile
from brats.data.sources import Sources, from_rows
from brats.errors import BratsError, CaseError, ConfigError, StorageError


@dataclass(frozen=True, kw_only=True)
class PreparedCase:
    """A case of a prepared dataset: its file and the hash of its brain voxels."""

    path: str
    voxel_hash: str


@dataclass(frozen=True, kw_only=True)
class Item:
    """A case to predict: where it is read from, and what the tables state about it.

    split:   of the run that made the model; None for a case that is not of the run
    sources: the files that it is made from; of a prepared case what they held when it was prepared
    coding:  of its segmentation
    """

    case_id: str
    patient_id: str
    split: str | None
    source: CaseFiles | PreparedCase
    sources: Sources
    coding: str


class FoundItems(NamedTuple):
    """The cases to predict, those that cannot be, and what else is notable in their folder, a line each."""

    items: list[Item]
    rejects: list[Reject]
    notes: list[str]


def find_items(
    data: str,
    model: str,
    modalities: Sequence[str],
    split: str,
    coding: str = AUTO,
    hdf5: Hdf5Options = DEFAULT_HDF5,
) -> FoundItems:
    """The cases of a prepared dataset or of case folders, those of one split where asked, and what is unusable.

    The split is that of the run whose model it is. Raises ConfigError when it is asked for and not known, when a
    coding, or an option of HDF5 slices, is given for cases that are prepared, and when no case is left.
    """
    split_of = _run_split(model)
    if split != "all" and split_of is None:
        raise ConfigError(f"--split: {split} is known only for a run of train.py; {model} has no split.parquet")
    splits = split_of or {}
    if is_prepared(data):
        check_unread(data, coding, hdf5)
        items, rejects, notes = _prepared_items(data, splits)
    else:
        items, rejects, notes = _items_of(data, modalities, splits, coding, hdf5)
    chosen = [item for item in items if split in ("all", item.split)]
    rejects = [reject for reject in rejects if split in ("all", splits.get(reject.case_id))]
    if not items and rejects:
        raise BratsError(f"{data}: no usable case; the first of {len(rejects)} rejected: {rejects[0]}")
    if not chosen:
        raise ConfigError(f"{data}: none of its {len(items)} usable cases is in the {split} split of {model}")
    return FoundItems(chosen, rejects, notes)


def _run_split(model: str) -> dict[str, str] | None:
    """The split of every case of the run that made the model; None for a bundle on its own."""
    try:
        rows = read_split(model)
    except FileNotFoundError:
        return None
    return {row["case_id"]: row["split"] for row in rows}


def check_unread(prepared: str, coding: str, hdf5: Hdf5Options) -> None:
    """Raise ConfigError for an option of how files are read, where the cases are prepared."""
    if coding != AUTO:
        raise ConfigError(
            f"--coding: the cases of {prepared} are prepared, in the coding that its cases.parquet names; leave "
            "--coding out"
        )
    if hdf5 != DEFAULT_HDF5:
        option = "--hdf5-channels" if hdf5.channels != DEFAULT_HDF5.channels else "--hdf5-spacing-mm"
        raise ConfigError(f"{option}: the cases of {prepared} are prepared; leave {option} out")


def _prepared_items(prepared: str, splits: dict[str, str]) -> FoundItems:
    rows = read_case_table(prepared)
    items = [
        Item(
            case_id=row["case_id"],
            patient_id=row["patient_id"],
            split=splits.get(row["case_id"]),
            source=PreparedCase(path=slices_path(prepared, row["case_id"]), voxel_hash=row["voxel_hash"]),
            sources=tuple(file.content for file in from_rows(row["sources"])),
            coding=row["coding"],
        )
        for row in rows
    ]
    spacings = {tuple(row["spacing_mm"]) for row in rows if row["layout"] == HDF5_SLICES.name}
    return FoundItems(items, [], [spacing_note(each) for each in sorted(spacings)])


def _items_of(
    root: str, modalities: Sequence[str], splits: dict[str, str], coding: str, hdf5: Hdf5Options
) -> FoundItems:
    found = find_cases(root, modalities, coding, hdf5)
    items = [
        Item(
            case_id=files.case_id,
            patient_id=files.patient_id,
            split=splits.get(files.case_id),
            source=files,
            sources=files.sources(modalities),
            coding=files.coding,
        )
        for files in found.cases
    ]
    return FoundItems(items, list(found.rejects), found.notes())


def read_source(source: CaseFiles | PreparedCase, modalities: Sequence[str]) -> Case:
    """The case, with these modalities. Raises CaseError; a transient one for an unreadable prepared file."""
    if isinstance(source, CaseFiles):
        return read_case(source, modalities)
    try:
        file = SliceFile(source.path)
        check_modalities(file.intensities, modalities)
        return file.read_case(modalities)
    except (FileNotFoundError, StorageError) as error:
        raise CaseError(source.path, str(error), transient=True) from error
