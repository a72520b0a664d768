"""The folds of the screening: patients that score a recipe, and those inside the training folds that choose.

What is scored chooses nothing: the best epoch, and all that is tuned, come from validation patients that are
drawn from the training folds.
"""

from collections.abc import Sequence
from typing import Any

from benchmarks.harness import BenchmarkError
from brats.data.dataset import read_case_table
from brats.data.run_split import COLUMNS, SplitRow
from brats.data.split import Assignment, LabelledCase, split_patients

VAL_FRACTION = 0.2  # of the patients of the training folds
LEAST_TRAINING = 3  # patients, of whom one is validated on
SEED = 0  # the same folds for every recipe and every seed of a network


def labelled(prepared: str) -> list[SplitRow]:
    """The labelled cases of a prepared dataset. Raises BratsError where there is none."""
    return [row for row in read_case_table(prepared) if row["tumour_per_slice"] is not None]


def deal_folds(rows: Sequence[SplitRow], n_folds: int) -> dict[str, int]:
    """The fold of each case: patients dealt by presence of ET and volume, whatever split they are prepared with.

    Raises BenchmarkError where there are too few patients.
    """
    n_patients = len({row["patient_id"] for row in rows})
    if n_patients < max(n_folds, LEAST_TRAINING + -(-n_patients // n_folds)):
        raise BenchmarkError(f"{n_patients} labelled patients are too few for {n_folds} folds; use fewer --folds")
    dealt = _deal(rows, folds=n_folds, val_fraction=0)
    return {case_id: assignment.fold for case_id, assignment in dealt.items() if assignment.fold is not None}


def split_of_fold(rows: Sequence[SplitRow], folds: dict[str, int], fold: int) -> list[SplitRow]:
    """The rows of a run that is scored on one fold, its test split; train and val are of the others."""
    inside = [row for row in rows if folds[row["case_id"]] != fold]
    dealt = _deal(inside, folds=2, val_fraction=VAL_FRACTION)
    splits = {case_id: assignment.split for case_id, assignment in dealt.items()}
    return [
        {**{name: row.get(name) for name in COLUMNS}, "split": splits.get(row["case_id"], "test"), "fold": None}
        for row in rows
    ]


def _deal(rows: Sequence[dict[str, Any]], *, folds: int, val_fraction: float) -> dict[str, Assignment]:
    cases = [
        LabelledCase(
            case_id=row["case_id"],
            patient_id=row["patient_id"],
            volume_ml=row["volume_ml_wt"],
            has_et=row["n_voxels_et"] > 0,
        )
        for row in rows
    ]
    return split_patients(cases, val_fraction=val_fraction, test_fraction=0, folds=folds, seed=SEED)
