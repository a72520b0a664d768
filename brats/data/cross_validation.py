"""The folds of a cross-validation: each is tested by a model that was trained and chosen on the other patients."""

from collections.abc import Mapping, Sequence

from brats import storage
from brats.config import TrainConfig
from brats.data.dataset import read_case_table
from brats.data.run_split import COLUMNS, SplitRow, check_cases, n_with_tumour, read_split, split_path
from brats.data.split import LabelledCase, deal_folds, hold_out
from brats.errors import ConfigError

VAL_FRACTION = 0.15  # of the patients outside a fold, as `prepare` sets apart of all


def choose_folds(config: TrainConfig, run: str, prepared: str) -> list[SplitRow]:
    """The labelled cases of a cross-validation with their folds: those it was started with, else newly dealt ones.

    Cases that join the dataset later do not change it. Raises ConfigError when there are too few patients, and for
    a case that is missing, has changed, or lacks a modality.
    """
    cases = {row["case_id"]: row for row in read_case_table(prepared)}
    if storage.exists(split_path(run)):
        rows = read_split(run)
    else:
        rows = [{name: row.get(name) for name in COLUMNS} for row in cases.values() if row["split"]]
        _deal(rows, cases, config, prepared)
    check_cases(rows, cases, config, run, prepared)
    return rows


def _deal(rows: Sequence[SplitRow], cases: Mapping[str, SplitRow], config: TrainConfig, prepared: str) -> None:
    """Give every row its fold. All are trained on, each by the models of the other folds."""
    n_folds = config.cross_validation
    assert n_folds is not None
    n_patients = len({row["patient_id"] for row in rows})
    if n_patients < n_folds:
        raise ConfigError(
            f"--cross-validation: {n_folds} folds need as many patients, but {prepared} has {n_patients} with a "
            "segmentation; lower it, or add cases"
        )
    fold_of = deal_folds([labelled_case(row, cases[row["case_id"]]) for row in rows], n_folds, config.seed)
    for row in rows:
        row["split"], row["fold"] = "train", fold_of[row["case_id"]]


def labelled_case(row: SplitRow, case: SplitRow) -> LabelledCase:
    """What the split looks at: case and patient as in the row of a run, the tumour as in the case table."""
    return LabelledCase(
        case_id=row["case_id"],
        patient_id=row["patient_id"],
        volume_ml=case["volume_ml_wt"],
        has_et=case["n_voxels_et"] > 0,
    )


def splits_of_folds(rows: Sequence[SplitRow], config: TrainConfig, prepared: str) -> list[list[SplitRow]]:
    """The split of the run of each fold: the fold is tested, some of the other patients are validated on.

    Raises ConfigError when a fold leaves too few patients, or none with tumour, to train on.
    """
    cases = {row["case_id"]: row for row in read_case_table(prepared)}
    return [_split_of(rows, fold, cases, config, prepared) for fold in range(config.cross_validation or 0)]


def _split_of(
    rows: Sequence[SplitRow], fold: int, cases: Mapping[str, SplitRow], config: TrainConfig, prepared: str
) -> list[SplitRow]:
    others = [labelled_case(row, cases[row["case_id"]]) for row in rows if row["fold"] != fold]
    if len({case.patient_id for case in others}) < 2:
        raise ConfigError(
            f"--cross-validation: fold {fold} leaves a single patient of {prepared}, where one to train on and one "
            "to validate on are needed; add cases"
        )
    # Another seed for each fold, so that not always the same patients choose the epoch.
    validated = hold_out(others, VAL_FRACTION, config.seed + fold)
    split = [
        {**row, "split": "test" if row["fold"] == fold else "val" if row["case_id"] in validated else "train"}
        for row in rows
    ]
    if not n_with_tumour(split, "train"):
        raise ConfigError(
            f"--cross-validation: outside fold {fold}, no case of {prepared} to train on has a voxel of tumour; "
            "add cases, or choose another --seed"
        )
    return split


def folds_without_et(rows: Sequence[SplitRow], prepared: str) -> list[int]:
    """The folds none of whose references has enhancing tumour."""
    cases = {row["case_id"]: row for row in read_case_table(prepared)}
    with_et = {row["fold"] for row in rows if cases[row["case_id"]]["n_voxels_et"]}
    return sorted({row["fold"] for row in rows} - with_et)
