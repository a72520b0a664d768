"""Two models on the same patients: differences, wins and losses, the signed-rank test and Holm's correction."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats

from brats.score.summary import bootstrap_mean_ci95

DISTANCES = ("hd95", "assd")  # in the names of the metrics that are distances
LEAST_DIFFERENCES = 6  # of five, all in one direction, the signed-rank test has p = 2 / 2**5 = .06 at least


@dataclass(frozen=True, kw_only=True)
class Paired:
    """What a model gains over another, patient by patient; None is what too few patients leave undefined.

    n_pairs:             patients with a value of both
    difference:          mean over them of ours minus theirs
    ci95_low, ci95_high: percentile bootstrap of that mean over patients
    wins, losses:        patients on whom ours is better, or worse; the rest are equal
    p:                   two-sided Wilcoxon signed-rank test of the differences, those of 0 left out
    why_no_p:            why there is none; "" where there is
    """

    n_pairs: int
    difference: float | None
    ci95_low: float | None
    ci95_high: float | None
    wins: int
    losses: int
    p: float | None
    why_no_p: str


def is_lower_better(metric: str) -> bool:
    """Whether a smaller value of a metric, by its name, is the better one."""
    return any(name in metric for name in DISTANCES)


def by_patient(cases: pd.DataFrame, region: str, metric: str) -> pd.Series:
    """A metric of a region by patient: each case's mean over its rows, then each patient's mean over the cases.

    cases: rows with case_id, patient_id, region and the metric, NaN where it is undefined; several of one case are
           those of several seeds
    """
    of_case = cases[cases["region"] == region].groupby(["patient_id", "case_id"])[metric].mean()
    by_patient: pd.Series = of_case.groupby("patient_id").mean()
    return by_patient


def compare_paired(ours: pd.Series, theirs: pd.Series, *, lower_is_better: bool = False) -> Paired:
    """Compare two models by their scores, each indexed by patient; patients that only one has are left out."""
    differences = (ours - theirs).dropna().sort_index().to_numpy(np.float64)
    gains = -differences if lower_is_better else differences
    low, high = bootstrap_mean_ci95(differences, np.arange(differences.size))
    p, why_no_p = signed_rank_p(differences)
    return Paired(
        n_pairs=differences.size,
        difference=float(differences.mean()) if differences.size else None,
        ci95_low=low,
        ci95_high=high,
        wins=int((gains > 0).sum()),
        losses=int((gains < 0).sum()),
        p=p,
        why_no_p=why_no_p,
    )


def signed_rank_p(differences: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float | None, str]:
    """The p of the two-sided Wilcoxon signed-rank test of differences (N,), and why there is none.

    Differences of 0 are left out (Wilcoxon 1945). Exact up to 50 differences without ties and 13 with them, by the
    normal approximation above.
    """
    if not differences.size:
        return None, "no patient has both"
    if not (nonzero := differences[differences != 0]).size:
        return None, "no difference"
    if nonzero.size < LEAST_DIFFERENCES:
        return None, f"fewer than {LEAST_DIFFERENCES} differences"
    return float(scipy.stats.wilcoxon(nonzero).pvalue), ""


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """The p values of a family of tests, corrected by Holm's step-down method (Holm 1979); None stays None.

    The k-th smallest of m is multiplied by m - k + 1, and none is smaller than the one before it, or above 1.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        corrected[place] = highest
    return corrected
