"""Statistics of the case metrics over cases: mean, spread, quartiles, and bootstrap intervals by patient."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from brats import storage
from brats.labels import REGIONS
from brats.score.lesion_tables import CONVENTIONS
from brats.score.metrics import METRICS
from brats.score.uncertainty_tables import QU_BRATS

Floats = npt.NDArray[np.float64]

STATISTICS = ("mean", "std", "median", "q25", "q75", "ci95_low", "ci95_high")
SHOWN_SUBSETS = (("ET", "present"), ("WT", "tiny"))  # on the console, beside all cases

# A ball of 1 ml is 12 mm across, little more than the 10 mm from which RANO calls a lesion measurable. Outlined
# one voxel too wide everywhere it scores a Dice of 0.78, where a ball of 50 ml still scores 0.94.
TINY_WT_ML = 1.0

WHOLE_PATIENT = "brats"
OTHERS_SHOWN = {
    "lesion-wise 2023": (("Dice", "lesion_dice_2023", 3), ("HD95 mm", "lesion_hd95_mm_2023", 1)),
    "panoptic 2026": (("F1", "f1_2026", 3), ("Dice of those found", "lesion_dice_2026", 3)),
}
"""Means over all cases on the console, by other conventions: what each is called, its metric and its digits."""

N_RESAMPLES = 1000
BOOTSTRAP_SEED = 2020

SUMMARY = storage.TableKind(
    name="metric summary",
    schema=pa.schema(
        [
            ("region", pa.string()),
            ("metric", pa.string()),
            ("convention", pa.string()),
            ("subset", pa.string()),
            ("n", pa.int64()),
            *((statistic, pa.float64()) for statistic in STATISTICS),
        ]
    ),
    conventions={
        "convention": "brats: of the whole patient, metrics/cases.parquet; "
        f"{', '.join(convention.name for convention in CONVENTIONS)}: by lesion, in columns of that year there; "
        "notebook: metrics/notebook.parquet; qu-brats: metrics/uncertainty.parquet",
        "subset": "all cases; present: the reference has the region; tiny, not_tiny: the reference has a WT below, "
        f"or of at least, {TINY_WT_ML:g} ml",
        "n": "cases whose value is not null; the others are left out",
        "std": "of a sample (n - 1)",
        "ci95_low, ci95_high": f"percentile bootstrap of the mean, {N_RESAMPLES} resamples of patients; "
        "null below two patients",
    },
)


def summarise(cases: pa.Table, notebook: pa.Table, uncertainty: pa.Table) -> pa.Table:
    """Statistics over cases, from tables of these kinds; no rows where no case was scored.

    By region, metric and subset with convention "brats" and those of CONVENTIONS; by metric with convention
    "notebook"; by region and metric with convention "qu-brats".
    """
    scored: pd.DataFrame = cases.to_pandas()
    rows = []
    of_case = scored[scored["region"] == "WT"].set_index("case_id")
    wt_ml = scored["case_id"].map(of_case["reference_ml"])
    subsets = {
        "all": pd.Series(True, scored.index),
        "present": scored["n_reference_voxels"] > 0,
        "tiny": (wt_ml > 0) & (wt_ml < TINY_WT_ML),
        "not_tiny": wt_ml >= TINY_WT_ML,
    }
    groups = {
        (region, subset): scored[chosen & (scored["region"] == region)]
        for region in (REGIONS if len(scored) else ())
        for subset, chosen in subsets.items()
    }
    for convention, metrics in _metrics_of_cases().items():
        for (region, subset), group in groups.items():
            for metric in metrics:
                names = {"region": region, "metric": metric, "convention": convention, "subset": subset}
                rows.append(names | describe(group[metric].to_numpy(), group["patient_id"].to_numpy()))
    for metric, group in notebook.to_pandas().groupby("metric"):
        names = {"region": "all labels", "metric": metric, "convention": "notebook", "subset": "all"}
        patients = group["case_id"].map(of_case["patient_id"]).to_numpy()
        rows.append(names | describe(group["value"].to_numpy(), patients))
    if len(scored):
        rows += _summarise_uncertainty(uncertainty.to_pandas())
    return SUMMARY.table(rows)


def _metrics_of_cases() -> dict[str, list[str]]:
    """The columns of `metrics/cases.parquet` that are summarised, by convention."""
    return {
        WHOLE_PATIENT: [metric.name for metric in METRICS],
        **{convention.name: [metric.name for metric in convention.metrics] for convention in CONVENTIONS},
    }


def _summarise_uncertainty(uncertainty: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {"region": region, "metric": metric, "convention": "qu-brats", "subset": "all"}
        | describe(group[metric].to_numpy(), group["patient_id"].to_numpy())
        for region, group in uncertainty.groupby("region", sort=False)
        for metric in QU_BRATS
    ]


def describe(values: Floats, patients: npt.NDArray[Any]) -> dict[str, float | None]:
    """n and STATISTICS of the values (N,) of cases. NaNs are ignored; None is what the rest leaves undefined.

    patients: (N,), the patient of each case; one patient may have several
    """
    defined = ~np.isnan(values)
    values, patients = values[defined], patients[defined]
    if not values.size:
        return {"n": 0, **dict.fromkeys(STATISTICS)}
    q25, median, q75 = (float(value) for value in np.quantile(values, (0.25, 0.5, 0.75)))
    low, high = bootstrap_mean_ci95(values, patients)
    return {
        "n": values.size,
        "mean": float(values.mean()),
        "std": float(values.std(ddof=1)) if values.size > 1 else None,
        "median": median,
        "q25": q25,
        "q75": q75,
        "ci95_low": low,
        "ci95_high": high,
    }


def bootstrap_mean_ci95(values: Floats, patients: npt.NDArray[Any]) -> tuple[float | None, float | None]:
    """The 95 % percentile bootstrap interval of the mean over cases, patients resampled with all their cases.

    None below two patients. The same values give the same interval: resampling starts from a fixed seed.
    """
    names, of_patient = np.unique(patients, return_inverse=True)
    if names.size < 2:
        return None, None
    sums, counts = np.bincount(of_patient, weights=values), np.bincount(of_patient)
    drawn = np.random.default_rng(BOOTSTRAP_SEED).integers(names.size, size=(N_RESAMPLES, names.size))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def format_summary(summary: pa.Table) -> str:
    """The summary as a small table for the console: lines of up to 100 columns, no newline at the end."""
    rows = [row for row in summary.to_pylist() if row["n"]]
    found = {
        (row["region"], row["subset"], row["metric"]): row for row in rows if row["convention"] == WHOLE_PATIENT
    }
    if not found:
        return "no case with a reference, so no scores"
    lines = ["cases        n   Dice mean [95 % interval]   median   HD95 mm   sensitivity   precision"]
    for region, subset in [*((region, "all") for region in REGIONS), *SHOWN_SUBSETS]:
        name = region if subset == "all" else f"{region} {subset}"
        scores = {metric.name: found.get((region, subset, metric.name), {}) for metric in METRICS}
        if not (dice := scores["dice"]):
            continue
        interval = f"[{_number(dice['ci95_low'])}, {_number(dice['ci95_high'])}]"
        lines.append(
            f"{name:<10} {dice['n']:>3}   {_number(dice['mean'])} {interval:<19}   {_number(dice['median']):>6}"
            f"   {_number(scores['hd95_mm'].get('mean'), 1):>7}"
            f"   {_number(scores['sensitivity'].get('mean')):>11}   {_number(scores['precision'].get('mean')):>9}"
        )
    if missing := [region for region in REGIONS if not found.get((region, "all", "dice"))]:
        lines.append(f"{' and '.join(missing)}: no scores, since this model does not predict them")
    lines.append(
        f"means over cases, intervals by patient; ET present: reference has ET; tiny: WT below {TINY_WT_ML:g} ml"
    )
    others = _other_lines(rows)
    lines.append(f"of the whole patient, as in BraTS 2018 to 2022{'; by other conventions:' if others else ''}")
    return "\n".join([*lines, *others])


def _other_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each of OTHERS_SHOWN by which cases were scored, from rows with values."""
    means = {(row["metric"], row["region"]): row["mean"] for row in rows if row["subset"] == "all"}
    known = {metric for metric, _ in means}
    lines = []
    for name, shown in OTHERS_SHOWN.items():
        texts = [
            f"{label} " + " ".join(f"{region} {_number(means.get((metric, region)), digits)}" for region in REGIONS)
            for label, metric, digits in shown
        ]
        if any(metric in known for _, metric, _ in shown):
            lines.append(f"{name:<18}{'   '.join(texts)}")
    return lines


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
