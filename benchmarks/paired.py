"""Two recipes compared on the same patients and seeds: the mean difference of their Dice, and its interval.

Axes: `P` patient, `S` seed, `N` resample.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Verdict = Literal["better", "worse", "not told apart"]

N_RESAMPLES = 4000
BOOTSTRAP_SEED = 2020
LEAST_PATIENTS = 2


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The mean Dice of one side less that of the other, with its 95 % interval.

    low, high: None below two patients
    """

    mean: float
    low: float | None
    high: float | None
    n_patients: int
    n_seeds: int

    @property
    def verdict(self) -> Verdict:
        """Whether the interval excludes 0, and on which side."""
        if self.low is not None and self.low > 0:
            return "better"
        return "worse" if self.high is not None and self.high < 0 else "not told apart"

    def __str__(self) -> str:
        interval = "-" if self.low is None or self.high is None else f"{self.low:+.3f} to {self.high:+.3f}"
        return f"{self.mean:+.3f} [{interval}]"


def difference(ours: pd.DataFrame, theirs: pd.DataFrame) -> Difference | None:
    """The difference over what both sides have; None where that is nothing.

    Takes rows of patient_id, seed, region and dice. A patient counts once a seed, with the mean over cases and
    regions.
    """
    left, right = (_mean_dice(rows) for rows in (ours, theirs))
    paired = (left - right).unstack("seed").dropna(how="all")
    paired = paired.dropna(axis="columns", how="all")
    if paired.empty:
        return None
    values = paired.to_numpy(np.float64)
    low, high = interval(values)
    n_patients, n_seeds = values.shape
    return Difference(mean=float(np.nanmean(values)), low=low, high=high, n_patients=n_patients, n_seeds=n_seeds)


def _mean_dice(rows: pd.DataFrame) -> pd.Series:
    """The mean over regions, then cases, by patient and seed."""
    by_case = rows.groupby(["patient_id", "seed", "case_id"])["dice"].mean()
    return by_case.groupby(["patient_id", "seed"]).mean()


def interval(differences: Floats) -> tuple[float | None, float | None]:
    """The 95 % percentile interval of the mean of differences (P, S); NaN where a pair is missing.

    Patients and seeds are resampled each by themselves, as both are drawn from many (Owen, "The pigeonhole
    bootstrap", 2007). With one seed the interval says nothing about seeds. The same values give the same interval.
    """
    n_patients, n_seeds = differences.shape
    if n_patients < LEAST_PATIENTS:
        return None, None
    random = np.random.default_rng(BOOTSTRAP_SEED)
    patients, seeds = (_resampled(n_drawn, random) for n_drawn in (n_patients, n_seeds))
    there = ~np.isnan(differences)
    sums = (patients @ np.where(there, differences, 0.0) * seeds).sum(axis=1)
    counts = (patients @ there.astype(float) * seeds).sum(axis=1)
    low, high = np.quantile(sums[counts > 0] / counts[counts > 0], (0.025, 0.975)).tolist()
    return low, high


def _resampled(n_drawn: int, random: np.random.Generator) -> Floats:
    """How often each comes in every resample, (N, n_drawn)."""
    return random.multinomial(n_drawn, [1 / n_drawn] * n_drawn, size=N_RESAMPLES).astype(np.float64)
