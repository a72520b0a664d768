"""The split of a run, `RUN/split.parquet`: its train, val and test cases, frozen at the first start."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from brats import storage
from brats.config import TrainConfig
from brats.data.dataset import PREPARED_CASES, read_case_table
from brats.data.planes import COUNT_COLUMNS, counts_column
from brats.errors import ConfigError

COLUMNS = (
    "case_id",
    "patient_id",
    "split",
    "fold",
    "coding",
    "height",
    "width",
    *COUNT_COLUMNS,
    "voxel_hash",
    "source_hash",
)
SPLIT = storage.TableKind(
    name="run split", version=2, schema=pa.schema([PREPARED_CASES.schema.field(name) for name in COLUMNS])
)

SplitRow = dict[str, Any]


def split_path(run: str) -> str:
    return storage.join(run, "split.parquet")


def test_dir(run: str) -> str:
    """Where the predictions of the test split lie."""
    return storage.join(run, "test")


def read_split(run: str) -> list[SplitRow]:
    """The rows of a run's split. Raises FileNotFoundError before its first start and for a bundle on its own."""
    rows: list[SplitRow] = storage.read_table(split_path(run), SPLIT).to_pylist()
    return rows


def read_prepared(run: str) -> str:
    """The path of the prepared dataset that a run was last started with."""
    path = split_path(run)
    prepared: str = storage.read_metadata(storage.read_table(path, SPLIT).schema, path, SPLIT)["prepared"]
    return prepared


def choose_split(config: TrainConfig, run: str, prepared: str) -> list[SplitRow]:
    """The labelled cases of a run with their splits: those it was started with, else those of the dataset today.

    Cases that join the dataset later do not change a run. Raises ConfigError when no case is left to train on or to
    validate on, when none to train on has tumour, when a case lacks a modality, and when a case of the run is not
    the one it was.
    """
    cases = {row["case_id"]: row for row in read_case_table(prepared)}
    if storage.exists(split_path(run)):
        split = read_split(run)
    else:
        split = [{name: row.get(name) for name in COLUMNS} for row in cases.values() if row["split"]]
        _choose_fold(split, config.fold, prepared)
    check_cases(split, cases, config, run, prepared)
    if not n_with_tumour(split, "train"):
        raise ConfigError(
            f"{prepared}: no case of the train split has a voxel of tumour in its segmentation; there is nothing "
            "to learn: check the segmentations and their label codes"
        )
    return split


def check_cases(
    split: Sequence[SplitRow], cases: Mapping[str, SplitRow], config: TrainConfig, run: str, prepared: str
) -> None:
    """Raise ConfigError where a case of a run is missing, has changed, or lacks a modality.

    cases: those of the dataset today, by case id
    """
    for row in split:
        _check_case(row, cases.get(row["case_id"]), config, run, prepared)


def n_with_tumour(split: Sequence[SplitRow], name: str) -> int:
    """Cases of the train, val or test split whose segmentation has tumour."""
    return sum(row["split"] == name and any(row["tumour_per_slice"]) for row in split)


def freeze_split(run: str, split: Sequence[SplitRow], prepared: str) -> None:
    """Write the split of a run at its first start, and again when its dataset was moved."""
    if not storage.exists(split_path(run)) or read_prepared(run) != prepared:
        storage.write_table(split_path(run), SPLIT, SPLIT.table(split), prepared=prepared)


def check_same_cases(run: str, data: str, found: Mapping[str, str | None]) -> None:
    """Raise ConfigError unless case folders still hold every case that a run was started with, as it was.

    found: `source_hash` of the cases of the folder `data`, by case id; None where it is not known yet
    """
    for row in read_split(run):
        name = row["case_id"]
        if name not in found:
            raise ConfigError(
                f"--data: the run in {run} was started with the case {name}, which {data} does not hold; "
                "choose another --out"
            )
        if found[name] not in (None, row["source_hash"]):
            raise ConfigError(_changed(name, data, run))


def _changed(case_id: str, data: str, run: str) -> str:
    return (
        f"--data: the files of the case {case_id} in {data} are not those that the run in {run} was started with; "
        "bring them back, or choose another --out"
    )


def _choose_fold(split: list[SplitRow], fold: int | None, prepared: str) -> None:
    """Validate on a cross-validation fold where one is asked for; neither train nor val may be empty."""
    folds = sorted({row["fold"] for row in split if row["fold"] is not None})
    if fold is not None and fold not in folds:
        raise ConfigError(f"--fold: {fold} is not one of the folds {folds} of {prepared}")
    for row in split:
        if fold is not None and row["split"] != "test":
            row["split"] = "val" if row["fold"] == fold else "train"
    for name in ("train", "val"):
        if not any(row["split"] == name for row in split):
            raise ConfigError(
                f"{prepared}: its {len(split)} labelled cases leave none for the {name} split; add cases"
            )


def _check_case(row: SplitRow, case: SplitRow | None, config: TrainConfig, run: str, prepared: str) -> None:
    """Raise ConfigError where a case of the run is missing, has changed, or lacks a modality."""
    name = row["case_id"]
    if case is None:
        raise ConfigError(f"--data: {prepared} lacks the case {name}, which the run in {run} was started with")
    if case["source_hash"] is None:
        raise ConfigError(f"--data: {prepared} is unfinished, the case {name} has changed; run prepare.py again")
    if case["source_hash"] != row["source_hash"]:
        raise ConfigError(_changed(name, prepared, run))
    if case["coding"] != row["coding"]:
        raise ConfigError(
            f"--data: the case {name} of {prepared} was read in the coding {case['coding']}, but the run in {run} "
            f"was started with {row['coding']}; choose another --out"
        )
    missing = [modality for modality in config.modalities if modality not in case["modalities"]]
    if missing:
        raise ConfigError(
            f"--modalities: {prepared} was prepared with {', '.join(case['modalities'])}, not {', '.join(missing)}"
        )
    _check_counts(row, config, prepared)


def _check_counts(row: SplitRow, config: TrainConfig, prepared: str) -> None:
    """Raise ConfigError where a case was prepared before what the epochs are planned by was counted."""
    needed = [
        (
            "--plane or --triplanar",
            counts_column("tumour", config.plane),
            f"the tumour voxels of {config.plane} slices",
        )
    ]
    if config.et_ratio:
        column = counts_column("et", config.plane)
        needed.append(("--et-ratio", column, f"the ET voxels of {config.plane} slices"))
    for option, column, counted in needed:
        if row.get(column) is None:
            raise ConfigError(
                f"{option}: {prepared} does not count {counted} (case {row['case_id']}), for an earlier version "
                "made it; prepare the cases again, into a new folder"
            )
