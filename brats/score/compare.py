"""Presets compared on the same patients: the scores of each, what it cost, and its gain over a reference."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from brats import storage
from brats.labels import REGIONS, TISSUES, Labels
from brats.score.metrics import METRICS, count_overlap, notebook_metrics
from brats.score.paired import LEAST_DIFFERENCES, Paired, by_patient, compare_paired, holm, is_lower_better
from brats.score.summary import N_RESAMPLES, STATISTICS, describe

TESTED = ("dice", "hd95_mm")
NOTEBOOK_REGION = "all labels"  # as in the summary of a set of predictions

COMPARISON = storage.TableKind(
    name="comparison of presets",
    schema=pa.schema(
        [
            ("preset", pa.string()),
            ("seed", pa.int32()),
            ("region", pa.string()),
            ("metric", pa.string()),
            ("convention", pa.string()),
            ("n", pa.int64()),
            *((statistic, pa.float64()) for statistic in STATISTICS),
            ("reference", pa.string()),
            ("n_pairs", pa.int64()),
            ("difference", pa.float64()),
            ("difference_ci95_low", pa.float64()),
            ("difference_ci95_high", pa.float64()),
            ("wins", pa.int64()),
            ("losses", pa.int64()),
            ("p_wilcoxon", pa.float64()),
            ("p_holm", pa.float64()),
            ("why_no_p", pa.string()),
            ("n_parameters", pa.int64()),
            ("training_minutes", pa.float64()),
            ("seconds_per_case", pa.float64()),
            ("peak_memory_mb", pa.float64()),
        ]
    ),
    conventions={
        "seed": "null: the scores of each case averaged over the seeds; these rows alone are tested",
        "region": f"{', '.join(REGIONS)}; null scores: the preset cannot tell the region",
        "convention": "brats: 3-D, on the full volume of a case; notebook: all pixels of a case pooled, background "
        "counted as a class",
        "n": "cases with a value, of those that every preset has scored with every seed",
        "ci95_low, ci95_high": f"percentile bootstrap of the mean, {N_RESAMPLES} resamples of patients",
        "reference": "the preset that this one is compared with, patient by patient; null in its own rows, "
        "and everywhere where it was not trained",
        "n_pairs": "patients with a value of both presets, each the mean over the cases of the patient",
        "difference": "mean over these patients of this preset's value minus the reference's, with its interval",
        "wins, losses": "patients on whom this preset is better, or worse, than the reference",
        "p_wilcoxon": "two-sided Wilcoxon signed-rank test of the differences, those of 0 left out; null, with the "
        f"reason in why_no_p, below {LEAST_DIFFERENCES} of them",
        "p_holm": "p_wilcoxon corrected by Holm's method for all presets tested in that region and metric",
        "n_parameters": "trained weights of the network, or of all networks of an ensemble",
        "training_minutes": "of all epochs of all its networks, validation included; mean over the seeds where "
        "seed is null",
        "seconds_per_case": "from a case in memory to its label map, median over passes; of the first seed; all "
        "presets in turns on one machine",
        "peak_memory_mb": "MiB of the GPU, or of the process on CPUs, while training; highest over the seeds",
    },
)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a trained model takes, as the columns of `COMPARISON` of these names say."""

    n_parameters: int
    training_minutes: float
    seconds_per_case: float
    peak_memory_mb: float


@dataclass(frozen=True, kw_only=True)
class ScoredRun:
    """A preset trained with one seed: the scores of the test split, and what it cost.

    cases, notebook: the rows of `metrics/cases.parquet` and `metrics/notebook.parquet`, nulls as NaN
    """

    preset: str
    seed: int
    cases: pd.DataFrame
    notebook: pd.DataFrame
    cost: Cost

    @property
    def name(self) -> str:
        return f"{self.preset}, seed {self.seed}"

    def on(self, case_ids: Collection[str]) -> "ScoredRun":
        """The scores of these cases alone."""
        cases, notebook = (table[table["case_id"].isin(case_ids)] for table in (self.cases, self.notebook))
        return replace(self, cases=cases, notebook=notebook)


def shared_cases(runs: Sequence[ScoredRun]) -> set[str]:
    """The cases that every run has scored, on which alone they can be compared."""
    return set.intersection(*({*run.cases["case_id"]} for run in runs))


def unscored(runs: Sequence[ScoredRun], case_ids: Collection[str]) -> dict[str, list[str]]:
    """Those of these cases that a run has no scores of, by its name; nothing of a run that has scored all."""
    lacking = {run.name: sorted({*case_ids} - {*run.cases["case_id"]}) for run in runs}
    return {name: cases for name, cases in lacking.items() if cases}


def compare_runs(runs: Sequence[ScoredRun], reference: str) -> pa.Table:
    """The table COMPARISON of some runs, over the cases that all of them have scored.

    reference: the preset that the others are tested against; nothing is tested where it is not among them
    """
    shared = shared_cases(runs)
    runs = [run.on(shared) for run in runs]
    presets = {run.preset: [other for other in runs if other.preset == run.preset] for run in runs}
    tests = {
        (preset, region, metric): columns
        for region in REGIONS
        for metric in (TESTED if reference in presets else ())
        for preset, columns in _tests(presets, reference, region, metric).items()
    }
    rows = [row for of_preset in presets.values() for row in _rows_of(of_preset)]
    for row in rows:
        if row["seed"] is None:
            row |= tests.get((row["preset"], row["region"], row["metric"]), {})
    return COMPARISON.table(rows)


def _tests(
    presets: Mapping[str, Sequence[ScoredRun]], reference: str, region: str, metric: str
) -> dict[str, dict[str, Any]]:
    """The columns of a region and metric that compare each preset with the reference: one family of tests."""
    found = {
        preset: paired(runs, presets[reference], region, metric)
        for preset, runs in presets.items()
        if preset != reference
    }
    corrected = holm([each.p for each in found.values()])
    return {
        preset: {"reference": reference, **_columns(each), "p_holm": p}
        for (preset, each), p in zip(found.items(), corrected, strict=True)
    }


def paired(ours: Sequence[ScoredRun], theirs: Sequence[ScoredRun], region: str, metric: str) -> Paired:
    """A preset beside another in a region and metric, each patient's scores averaged over seeds and cases."""
    scores = [by_patient(pd.concat([run.cases for run in runs]), region, metric) for runs in (ours, theirs)]
    return compare_paired(*scores, lower_is_better=is_lower_better(metric))


def background_scores(
    cases: Iterable[Mapping[str, Any]], regions: Collection[str] = tuple(REGIONS)
) -> dict[str, float]:
    """The notebook metrics of masks that are background everywhere, by name: their means over cases.

    cases:   rows of the table of a prepared dataset, each with the shape and the voxels of each tissue
    regions: those that a model predicts; of one that predicts WT alone these metrics are over two labels
    """
    rows = []
    for case in cases:
        tumour: Labels = np.repeat(
            np.array([*TISSUES.values()], np.uint8), [case[f"n_voxels_{tissue}"] for tissue in TISSUES]
        ).reshape(1, 1, -1)
        n_outside = math.prod(case["shape"]) - tumour.size
        overlap = count_overlap(tumour, np.zeros_like(tumour), (1.0, 1.0, 1.0), n_outside)
        rows += notebook_metrics(overlap, regions)
    means = pd.DataFrame(rows).groupby("metric")["value"].mean()
    return {str(metric): float(value) for metric, value in means.items()}


def _rows_of(runs: Sequence[ScoredRun]) -> Iterator[dict[str, Any]]:
    """The rows of one preset: of each seed, then over all of them."""
    for seed, group in [*((run.seed, [run]) for run in runs), (None, runs)]:
        names = {"preset": runs[0].preset, "seed": seed, **asdict(_mean_cost(group))}
        for scores in _scores(group):
            yield names | scores


def _scores(runs: Sequence[ScoredRun]) -> Iterator[dict[str, Any]]:
    """Statistics by region and metric in both conventions, the scores of a case averaged over the runs."""
    cases = pd.concat([run.cases for run in runs])
    patients = cases.drop_duplicates("case_id").set_index("case_id")["patient_id"]
    for region in REGIONS:
        of_region = cases[cases["region"] == region].groupby("case_id")
        for metric in (metric.name for metric in METRICS):
            values = of_region[metric].mean()
            names = {"region": region, "metric": metric, "convention": "brats"}
            yield names | describe(values.to_numpy(np.float64), patients[values.index].to_numpy())
    notebook = pd.concat([run.notebook for run in runs])
    for metric, group in notebook.groupby("metric"):
        values = group.groupby("case_id")["value"].mean()
        names = {"region": NOTEBOOK_REGION, "metric": metric, "convention": "notebook"}
        yield names | describe(values.to_numpy(np.float64), patients[values.index].to_numpy())


def _columns(found: Paired) -> dict[str, Any]:
    """The columns of `COMPARISON` that a paired comparison fills."""
    return {
        "n_pairs": found.n_pairs,
        "difference": found.difference,
        "difference_ci95_low": found.ci95_low,
        "difference_ci95_high": found.ci95_high,
        "wins": found.wins,
        "losses": found.losses,
        "p_wilcoxon": found.p,
        "why_no_p": found.why_no_p or None,
    }


def _mean_cost(runs: Sequence[ScoredRun]) -> Cost:
    """What the seeds of a preset took: one network, the time of a training, the highest memory."""
    first = runs[0].cost
    return Cost(
        n_parameters=first.n_parameters,
        training_minutes=float(np.mean([run.cost.training_minutes for run in runs])),
        seconds_per_case=first.seconds_per_case,
        peak_memory_mb=max(run.cost.peak_memory_mb for run in runs),
    )
