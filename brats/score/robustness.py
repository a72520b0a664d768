"""Dice lost to each degradation of the images, per region, paired by case with the intact images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from brats import storage
from brats.labels import REGIONS
from brats.score.summary import N_RESAMPLES, describe

INTACT = "intact"
WIDEST_NAME = 40  # of a case on the console

ROBUSTNESS = storage.TableKind(
    name="robustness",
    schema=pa.schema(
        [
            ("degradation", pa.string()),
            ("region", pa.string()),
            ("n", pa.int64()),
            *((name, pa.float64()) for name in ("dice", "dice_intact", "dice_lost", "ci95_low", "ci95_high")),
            ("worst_patient_id", pa.string()),
            ("worst_case_id", pa.string()),
            ("worst_dice_lost", pa.float64()),
        ]
    ),
    conventions={
        "n": "cases whose Dice is not null both degraded and intact; the columns after it are of these",
        "dice, dice_intact": "means over the cases, in 3-D, as in metrics/cases.parquet",
        "dice_lost": "mean over the cases of Dice intact minus Dice degraded; null in the rows of the intact cases",
        "ci95_low, ci95_high": f"of dice_lost, percentile bootstrap of the mean, {N_RESAMPLES} resamples of "
        "patients; null below two patients",
        "worst_patient_id, worst_case_id, worst_dice_lost": "the case that lost most; the first of equals",
    },
)


def robustness_path(out: str) -> str:
    return storage.join(out, "robustness.parquet")


def compare_robustness(scores: Mapping[str, pd.DataFrame]) -> pa.Table:
    """The rows of ROBUSTNESS: one per degradation and region, in their order, the intact cases first.

    scores: by degradation, `INTACT` among them, rows of the kind CASE_METRICS
    """
    dice = {name: rows.set_index(["region", "case_id"])["dice"] for name, rows in scores.items()}
    patients = scores[INTACT].drop_duplicates("case_id").set_index("case_id")["patient_id"]
    rows = [
        {"degradation": name, "region": region, **_compare(dice[name], dice[INTACT], region, patients, name)}
        for name in (INTACT, *(name for name in scores if name != INTACT))
        for region in REGIONS
    ]
    return ROBUSTNESS.table(rows)


def _compare(
    degraded: "pd.Series[float]", intact: "pd.Series[float]", region: str, patients: "pd.Series[str]", name: str
) -> dict[str, Any]:
    """The figures of one degradation in one region."""
    pairs = pd.DataFrame({"degraded": _of(degraded, region), "intact": _of(intact, region)}).dropna()
    if pairs.empty:
        return {"n": 0}
    means = {"n": len(pairs), "dice": pairs["degraded"].mean(), "dice_intact": pairs["intact"].mean()}
    if name == INTACT:
        return means
    lost = pairs["intact"] - pairs["degraded"]
    described = describe(lost.to_numpy(np.float64), patients[lost.index].to_numpy())
    worst = lost.idxmax()
    return {
        **means,
        "dice_lost": described["mean"],
        "ci95_low": described["ci95_low"],
        "ci95_high": described["ci95_high"],
        "worst_patient_id": patients[worst],
        "worst_case_id": worst,
        "worst_dice_lost": lost[worst],
    }


def _of(dice: "pd.Series[float]", region: str) -> "pd.Series[float]":
    """The Dice of one region by case; of none where the table has no row of it."""
    return dice.xs(region) if region in dice.index.get_level_values("region") else dice.iloc[:0].droplevel("region")


def format_robustness(table: pa.Table) -> str:
    """The table for the console: lines of up to 116 columns, no newline at the end."""
    lines = [f"{'degradation':<22}{'region':<8}{'n':>4}    Dice   lost [95 % interval]         worst: case, lost"]
    lines += [_line(row) for row in table.to_pylist() if row["n"]]
    lines.append(
        "means over cases; lost: Dice intact minus Dice degraded, below 0 where it gained; intervals by patient"
    )
    return "\n".join(lines)


def _line(row: Mapping[str, Any]) -> str:
    start = f"{row['degradation']:<22}{row['region']:<8}{row['n']:>4}   {row['dice']:.3f}"
    if row["dice_lost"] is None:
        return start
    low, high = ("-" if row[name] is None else f"{row[name]:.3f}" for name in ("ci95_low", "ci95_high"))
    worst = f"{row['worst_case_id']:.{WIDEST_NAME}} {row['worst_dice_lost']:.3f}"
    return f"{start}  {row['dice_lost']:>6.3f} {f'[{low}, {high}]':<19}  {worst}"
