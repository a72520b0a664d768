"""The tables of uncertainty: per case, along its thresholds, and how well it ranks the cases that went wrong."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from brats import storage
from brats.labels import REGIONS
from brats.score.uncertainty import (
    N_CALIBRATION_BINS,
    N_STEPS,
    Uncertainty,
    curve_rows,
    uncertainty_row,
)

QU_BRATS = ("dice_auc", "ftp_auc", "ftn_auc", "score", "ece")  # columns that the summary has, too
BAD_DICE = 0.7
FEWEST_RANKED = 5  # cases, below which an order of them says nothing
N_SHOWN = 5

UNCERTAINTY = storage.TableKind(
    name="uncertainty",
    schema=pa.schema(
        [
            ("case_id", pa.string()),
            ("patient_id", pa.string()),
            ("region", pa.string()),
            ("rank", pa.int64()),
            ("n_predicted_voxels", pa.int64()),
            *((name, pa.float64()) for name in ("entropy_bits", "entropy_per_voxel", *QU_BRATS)),
        ]
    ),
    conventions={
        "uncertainty": "binary entropy, in bits x 100, of the probability of the region rounded to 1/255",
        "rank": "1 is the case to look at first: by entropy_per_voxel of WT, cases without WT before all others",
        "entropy_bits": "summed over all voxels; null where probabilities were not kept",
        "entropy_per_voxel": "entropy_bits / n_predicted_voxels; null where nothing is predicted",
        "dice_auc, ftp_auc, ftn_auc": "QU-BraTS 2020 (Mehta et al. 2022): area, from 0 to 1, by the trapezoidal "
        f"rule over the {N_STEPS + 1} thresholds of metrics/uncertainty_curves.parquet; null without a reference",
        "score": "(dice_auc + (1 - ftp_auc) + (1 - ftn_auc)) / 3",
        "ece": f"expected calibration error over the brain: {N_CALIBRATION_BINS} equal bins of the probability, "
        "difference of its mean and the share in the reference, weighted by voxels (Guo et al. 2017)",
    },
)
CURVES = storage.TableKind(
    name="uncertainty curves",
    schema=pa.schema(
        [
            ("case_id", pa.string()),
            ("region", pa.string()),
            *((name, pa.float64()) for name in ("threshold", "dice", "ftp", "ftn")),
        ]
    ),
    conventions={
        "threshold": "voxels with an uncertainty above it, of 0 to 100, are set aside",
        "dice": "of the voxels that are left; both masks empty 1, one empty 0",
        "ftp": "share of the true positives in the brain that are set aside; 0 where there are none",
        "ftn": "share of the true negatives in the brain that are set aside; 0 where there are none",
        "brain": "voxels where a modality of the model differs from its background",
    },
)
RANKING = storage.TableKind(
    name="uncertainty ranking",
    schema=pa.schema(
        [
            ("region", pa.string()),
            ("n", pa.int64()),
            ("spearman", pa.float64()),
            ("n_bad", pa.int64()),
            ("auroc", pa.float64()),
        ]
    ),
    conventions={
        "n": "cases with a reference in which the region is predicted",
        "spearman": f"rank correlation of entropy_per_voxel and Dice; null below {FEWEST_RANKED} cases, and where "
        "either is the same in all",
        "n_bad": f"cases with a Dice below {BAD_DICE}",
        "auroc": f"chance that a case with a Dice below {BAD_DICE} has a higher entropy_per_voxel than "
        f"another one; null below {FEWEST_RANKED} cases, and where there is none of either kind",
    },
)


def uncertainty_rows(
    case_id: str, patient_id: str, regions: Mapping[str, Uncertainty]
) -> dict[str, list[dict[str, Any]]]:
    """The rows of a case, keys uncertainty and uncertainty_curves, from the uncertainty of its regions."""
    names = {region: {"case_id": case_id, "region": region} for region in regions}
    return {
        "uncertainty": [
            {**names[region], "patient_id": patient_id, **uncertainty_row(found)}
            for region, found in regions.items()
        ],
        "uncertainty_curves": [
            {**names[region], **row} for region, found in regions.items() for row in curve_rows(found)
        ],
    }


def with_ranks(uncertainty: pa.Table) -> pa.Table:
    """The table of kind UNCERTAINTY with its column `rank`."""
    frame: pd.DataFrame = uncertainty.to_pandas()
    of_wt = frame[frame["region"] == "WT"].set_index("case_id")["entropy_per_voxel"]
    order = of_wt.fillna(np.inf).sort_values(ascending=False, kind="stable")
    ranks = {case_id: rank for rank, case_id in enumerate(order.index, 1)}
    column = pa.array([ranks.get(case_id) for case_id in frame["case_id"]], pa.int64())
    return uncertainty.set_column(uncertainty.schema.get_field_index("rank"), "rank", column)


def ranking(uncertainty: pa.Table, cases: pa.Table) -> pa.Table:
    """How well the uncertainty ranks cases by their Dice, a row per region."""
    names = ["case_id", "region"]
    found = uncertainty.to_pandas()[[*names, "entropy_per_voxel"]]
    scored = found.merge(cases.to_pandas()[[*names, "dice"]], on=names).dropna()
    rows = []
    for region in REGIONS:
        chosen = scored[scored["region"] == region]
        rows.append({"region": region, **rank_quality(*chosen[["entropy_per_voxel", "dice"]].to_numpy().T)})
    return RANKING.table(rows)


def rank_quality(uncertainty: npt.NDArray[np.float64], dice: npt.NDArray[np.float64]) -> dict[str, Any]:
    """The columns of RANKING from the uncertainty and the Dice (N,) of cases."""
    bad = dice < BAD_DICE
    row: dict[str, Any] = {"n": dice.size, "spearman": None, "n_bad": int(bad.sum()), "auroc": None}
    if dice.size < FEWEST_RANKED:
        return row
    ranks, dice_ranks = _ranks(uncertainty), _ranks(dice)
    if np.ptp(ranks) and np.ptp(dice_ranks):
        row["spearman"] = float(np.corrcoef(ranks, dice_ranks)[0, 1])
    if 0 < bad.sum() < dice.size:
        n_bad, n_good = int(bad.sum()), int((~bad).sum())
        row["auroc"] = float((ranks[bad].sum() - n_bad * (n_bad + 1) / 2) / (n_bad * n_good))
    return row


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks from 1 on; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: npt.NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks


def look_first(uncertainty: pa.Table, quality: pa.Table, n_cases: int) -> str:
    """The line of the summary that names the cases to look at first; "" where there are fewer than two.

    n_cases: of the results; the line says how many have an uncertainty where those of an earlier version lack it
    """
    rows = [row for row in uncertainty.to_pylist() if row["region"] == "WT"]
    covered = f"{len(rows)} of {n_cases} cases, as an earlier version predicted the others"
    if len(rows) < 2:
        return "" if len(rows) == n_cases else f"the uncertainty is known of {covered}"
    first = sorted(rows, key=lambda row: row["rank"])[:N_SHOWN]
    line = f"look at these first: {', '.join(row['case_id'] for row in first)} (most uncertain"
    line += f" of {covered}" if len(rows) < n_cases else ""
    of_wt = next(row for row in quality.to_pylist() if row["region"] == "WT")
    if of_wt["spearman"] is not None:
        line += f"; rank correlation with the Dice of WT {of_wt['spearman']:.2f}"
    if of_wt["auroc"] is not None:
        line += f", {of_wt['auroc']:.2f} of 1 for finding a Dice below {BAD_DICE}"
    return f"{line})"
