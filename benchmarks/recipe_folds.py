"""The folds of the screening: patients that score a recipe, and those inside the training folds that choose.

What is scored chooses nothing: the best epoch, and all that is tuned, come from validation patients that are
drawn from the training folds.
"""

from collections.abc import Sequence

from benchmarks.harness import BenchmarkError
from brats.data.cross_validation import VAL_FRACTION, labelled_case
from brats.data.dataset import read_case_table
from brats.data.run_split import COLUMNS, SplitRow
from brats.data.split import deal_folds, hold_out

LEAST_TRAINING = 3  # patients, of whom one is validated on
SEED = 0  # the same folds for every recipe and every seed of a network


def labelled(prepared: str) -> list[SplitRow]:
    """The labelled cases of a prepared dataset. Raises BratsError where there is none."""
    return [row for row in read_case_table(prepared) if row["tumour_per_slice"] is not None]


def folds_of(rows: Sequence[SplitRow], n_folds: int) -> dict[str, int]:
    """The fold of each case: patients dealt by presence of ET and volume, whatever split they are prepared with.

    Raises BenchmarkError where there are too few patients.
    """
    n_patients = len({row["patient_id"] for row in rows})
    if n_patients < max(n_folds, LEAST_TRAINING + -(-n_patients // n_folds)):
        raise BenchmarkError(f"{n_patients} labelled patients are too few for {n_folds} folds; use fewer --folds")
    return deal_folds([labelled_case(row, row) for row in rows], n_folds, SEED)


def split_of_fold(rows: Sequence[SplitRow], folds: dict[str, int], fold: int) -> list[SplitRow]:
    """The rows of a run that is scored on one fold, its test split; train and val are of the others."""
    others = [labelled_case(row, row) for row in rows if folds[row["case_id"]] != fold]
    validated = hold_out(others, VAL_FRACTION, SEED + fold)
    splits = {case.case_id: "val" if case.case_id in validated else "train" for case in others}
    return [
        {**{name: row.get(name) for name in COLUMNS}, "split": splits.get(row["case_id"], "test"), "fold": None}
        for row in rows
    ]
