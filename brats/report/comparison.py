"""A comparison of presets in words and tables: the page `comparison.md`, and its summary for the console."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from brats.console import listed, some
from brats.labels import REGIONS, TISSUES
from brats.report.markdown import DASH, interval, number, p_value, table_of
from brats.score.compare import NOTEBOOK_REGION
from brats.score.surface import HD95_ONE_EMPTY_MM

SIGNIFICANT = 0.05
NOTEBOOK_METRICS = ("accuracy", "dice", "precision", "sensitivity", "specificity")

Row = Mapping[str, Any]
"""A row of the table of a comparison."""

Scores = Mapping[tuple[str, str, str], Row]
"""The rows over all seeds, by preset, region and metric."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What was published of a preset beside another one: Dice gained, and share of the inference time saved."""

    preset: str
    baseline: str
    dice_points: float
    time_saved: float


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the page says beside the table.

    reference:           the preset that the others are tested against, if it was trained
    twins:               presets not trained, since they are trained as another one is, with that one
    data:                the prepared dataset
    n_cases, n_patients: of its test split, those that are compared on
    length:              how long each preset was trained, worded to follow "each trained"
    timed_on:            what the seconds per case were measured on
    published:           what was published, by preset
    claims:              of presets that were published beside a baseline
    background:          notebook metrics of masks that are background everywhere, on the same cases
    background_of_two:   the same over two labels, background and tumour
    failures:            why a training is missing, by its name
    left_out:            cases that a training has no scores of, by its name; none is compared on them
    """

    reference: str
    twins: Mapping[str, str]
    data: str
    n_cases: int
    n_patients: int
    length: str
    timed_on: str
    published: Mapping[str, str]
    claims: Sequence[Claim]
    background: Mapping[str, float]
    background_of_two: Mapping[str, float]
    failures: Mapping[str, str]
    left_out: Mapping[str, Sequence[str]]


def page(table: pa.Table, facts: Facts) -> str:
    """The comparison in Markdown, with a newline at its end."""
    scores = _scores(table)
    blocks = [
        *_introduction(table, facts),
        *_whole_patients(scores),
        *_tests(scores, facts.reference),
        *_costs(scores, facts.timed_on),
        *_as_notebooks(scores, facts),
        *_claims(scores, facts.claims),
        *_named("Not compared", facts.failures),
        *_named("Cases left out", {name: ", ".join(cases) for name, cases in facts.left_out.items()}),
    ]
    return "\n\n".join(blocks) + "\n"


def console_summary(table: pa.Table, facts: Facts) -> str:
    """The comparison as a small table for the console: lines of up to 100 columns, no newline at the end."""
    scores = _scores(table)
    width = max(len(preset) for preset in (*_presets(scores), "preset"))
    names = " ".join(f"{region:<6}" for region in REGIONS).rstrip()
    lines = [f"{'preset':<{width}}   Dice {names}   HD95 {names}      min   s/case"]
    for preset in _presets(scores):
        dice = [_starred(scores[preset, region, "dice"]) for region in REGIONS]
        hd95 = [number(scores[preset, region, "hd95_mm"]["mean"], 1) for region in REGIONS]
        cost = _cost(scores, preset)
        cells = [f"{cell:<6}" for cell in dice] + [f"{cell:>6}" for cell in hd95]
        minutes, seconds = number(cost["training_minutes"], 1), number(cost["seconds_per_case"], 2)
        lines.append(f"{preset:<{width}}     {' '.join(cells)}   {minutes:>6}   {seconds:>6}".rstrip())
    trained = facts.reference in _presets(scores)
    stars = f"*: differs from {facts.reference}, p < {SIGNIFICANT:g} (Wilcoxon, Holm)"
    lines.append(
        f"means over {facts.n_cases} cases, HD95 in mm; "
        f"{stars if trained else f'no tests: {facts.reference} was not trained'}"
    )
    lines += [f"{twin} is trained as {preset} is: see {preset}" for twin, preset in facts.twins.items()]
    lines += [f"LEFT OUT, no scores by {name}: {some(cases)}" for name, cases in facts.left_out.items()]
    lines += [f"NOT COMPARED: {name}: {reason}" for name, reason in facts.failures.items()]
    return "\n".join(lines)


def _introduction(table: pa.Table, facts: Facts) -> Iterator[str]:
    yield "# Comparison of presets"
    n_presets, seeds = _seeds(table)
    yield (
        f"{n_presets} presets, each trained {facts.length} on the same cases, {seeds}, and scored on "
        f"the test split of `{facts.data}`: {facts.n_cases} cases of {facts.n_patients} patients. A dash stands "
        "where a preset cannot tell a region. `comparison.parquet` has every figure, also seed by seed."
    )
    for twin, preset in facts.twins.items():
        yield f"`{twin}` is trained as `{preset}` is, and not a second time: see `{preset}`."
    if facts.left_out:
        yield "Cases that some training has no scores of are left out of every figure; the last section names them."


def _seeds(table: pa.Table) -> tuple[int, str]:
    """The number of presets, and with how many seeds they were trained, in words."""
    rows = [row for row in table.to_pylist() if row["seed"] is not None]
    seeds = Counter(preset for preset, _ in dict.fromkeys((row["preset"], row["seed"]) for row in rows))
    if len({*seeds.values()}) > 1:
        counted = ", ".join(f"`{preset}` {n_seeds}" for preset, n_seeds in seeds.items())
        return len(seeds), f"with unequal numbers of seeds ({counted})"
    n_seeds = max(seeds.values())
    return len(seeds), f"with each of {n_seeds} seeds" if n_seeds > 1 else "with one seed"


def _whole_patients(scores: Scores) -> Iterator[str]:
    yield "## Whole patients"
    yield (
        "Dice and HD95 in 3-D, on the full volume of each case: mean over cases, and in brackets its 95 % interval "
        "by bootstrap over patients. HD95 in mm, smaller is better; one of both masks empty counts as "
        f"{HD95_ONE_EMPTY_MM} mm."
    )
    rows = [
        [
            f"`{preset}`",
            *(interval(scores[preset, region, "dice"]) for region in REGIONS),
            *(interval(scores[preset, region, "hd95_mm"], digits=1) for region in REGIONS),
        ]
        for preset in _presets(scores)
    ]
    yield table_of(["Preset", *(f"{name} {region}" for name in ("Dice", "HD95") for region in REGIONS)], rows)


def _tests(scores: Scores, reference: str) -> Iterator[str]:
    others = [preset for preset in _presets(scores) if preset != reference]
    if not others:
        return
    yield f"## Beside `{reference}`"
    if reference not in _presets(scores):
        yield f"No tests: `{reference}`, which the others are tested against, was not trained."
        return
    yield (
        f"Patient by patient: the mean difference from `{reference}` with its 95 % interval, the patients on whom "
        "the preset is better and worse, and the two-sided Wilcoxon signed-rank test, as such and corrected by "
        "Holm's method for the presets tested in that region. Where there is no p, the reason stands in its place."
    )
    columns = ["better : worse", "p", "p (Holm)"]
    rows = [
        [
            f"`{preset}`",
            region,
            *_test(scores[preset, region, "dice"], 3),
            *_test(scores[preset, region, "hd95_mm"], 1),
        ]
        for preset in others
        for region in REGIONS
    ]
    yield table_of(["Preset", "Region", "Dice", *columns, "HD95, mm", *columns], rows)


def _costs(scores: Scores, timed_on: str) -> Iterator[str]:
    yield "## What they take"
    yield (
        "Trained weights; minutes of all epochs with their validation; seconds from a case in memory to its label "
        f"map, median over passes, all presets in turns on {timed_on} (presets of one network differ by the noise "
        "of that machine alone); the most memory of a training, of the GPU or, on CPUs, of the process."
    )
    rows = []
    for preset in _presets(scores):
        cost = _cost(scores, preset)
        minutes, seconds = number(cost["training_minutes"], 1), number(cost["seconds_per_case"])
        millions, memory = number(cost["n_parameters"] / 1e6, 2), number(cost["peak_memory_mb"], 0)
        rows.append([f"`{preset}`", millions, minutes, seconds, memory])
    yield table_of(["Preset", "Weights, millions", "Training, min", "Prediction, s per case", "Memory, MiB"], rows)


def _as_notebooks(scores: Scores, facts: Facts) -> Iterator[str]:
    binary = [preset for preset in _presets(scores) if not scores[preset, "TC", "dice"]["n"]]
    two_labels = f", for {' and '.join(f'`{preset}`' for preset in binary)} as tumour alone" if binary else ""
    yield "## As notebooks report it"
    yield (
        "The same masks by the convention of public notebooks: all pixels of a volume in one pool, background "
        f"counted as a class like {listed(map(str.upper, TISSUES))}{two_labels}. Masks that are background "
        "everywhere are scored beside."
    )
    means = {
        f"`{preset}`": [_mean(scores.get((preset, NOTEBOOK_REGION, metric))) for metric in NOTEBOOK_METRICS]
        for preset in _presets(scores)
    }
    means["background alone"] = [number(facts.background[metric]) for metric in NOTEBOOK_METRICS]
    if binary:
        means["background alone, of two classes"] = [
            number(facts.background_of_two[metric]) for metric in NOTEBOOK_METRICS
        ]
    yield table_of(["Preset", *NOTEBOOK_METRICS], [[name, *cells] for name, cells in means.items()])
    yield _what_99_means(facts.background)
    shown = {*_presets(scores), *facts.twins}
    published = [f"- `{preset}`: {text}" for preset, text in facts.published.items() if preset in shown]
    if published:
        yield "What was published of these presets:"
        yield "\n".join(published)


def _what_99_means(background: Mapping[str, float]) -> str:
    """The paragraph on published figures near 1, with those of a mask that is background everywhere."""
    accuracy, dice = number(background["accuracy"]), number(background["dice"])
    return (
        '**What a published "Dice .99" means.** Nearly all of a volume is background, and a figure that pools all '
        "pixels and counts background as a class is made of little else. On these very cases a mask without any "
        f"tumour has an accuracy, a precision, a sensitivity and a pooled Dice of {accuracy}; only averaged over "
        f"the classes does its Dice fall, to {dice}. A published .98 or .99 of the pooled kind, or one over "
        "slices of which most hold no tumour, says little of how well tumours are outlined. Compare it with the "
        "table above alone, and judge a preset by the Dice of whole patients, in which such a mask scores 0 "
        "wherever there is tumour."
    )


def _claims(scores: Scores, claims: Sequence[Claim]) -> Iterator[str]:
    for claim in claims:
        if {claim.preset, claim.baseline} <= {*_presets(scores)}:
            yield f"## `{claim.preset}` beside `{claim.baseline}`"
            yield table_of(["", "published", "here"], _claim_rows(scores, claim))


def _claim_rows(scores: Scores, claim: Claim) -> Iterator[list[str]]:
    """What was published beside what these runs gave: points of Dice gained, inference time saved."""
    for region, name in [
        *((region, f"Dice of whole patients, {region}") for region in REGIONS),
        (NOTEBOOK_REGION, "Dice as notebooks report it"),
    ]:
        ours, theirs = (scores[preset, region, "dice"]["mean"] for preset in (claim.preset, claim.baseline))
        here = DASH if ours is None or theirs is None else f"{100 * (ours - theirs):+.1f} points"
        yield [name, f"{claim.dice_points:+.0f} points", here]
    ours, theirs = (_cost(scores, preset)["seconds_per_case"] for preset in (claim.preset, claim.baseline))
    yield ["Inference time", f"{-100 * claim.time_saved:+.0f} %", f"{100 * (ours / theirs - 1):+.0f} %"]


def _named(heading: str, texts: Mapping[str, str]) -> Iterator[str]:
    """A section with a line for each training that there is something to tell of."""
    if texts:
        yield f"## {heading}"
        yield "\n".join(f"- `{name}`: {text}" for name, text in texts.items())


def _scores(table: pa.Table) -> Scores:
    """The rows over all seeds, by preset, region and metric."""
    rows = [row for row in table.to_pylist() if row["seed"] is None]
    return {(row["preset"], row["region"], row["metric"]): row for row in rows}


def _presets(scores: Scores) -> list[str]:
    """The presets in the order of the table."""
    return list(dict.fromkeys(preset for preset, _, _ in scores))


def _cost(scores: Scores, preset: str) -> Row:
    """A row with the costs of a preset, which all of its rows have."""
    return next(row for (name, _, _), row in scores.items() if name == preset)


def _test(row: Row, digits: int) -> list[str]:
    """Difference, better and worse, p and corrected p of a row; the reason where there is no p."""
    if not row["n_pairs"]:
        return [DASH] * 4
    low, high = row["difference_ci95_low"], row["difference_ci95_high"]
    difference = f"{row['difference']:+.{digits}f}"
    if low is not None:
        difference += f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    p = [p_value(row["p_wilcoxon"]), p_value(row["p_holm"])] if row["why_no_p"] is None else [row["why_no_p"], DASH]
    return [difference, f"{row['wins']} : {row['losses']}", *p]


def _starred(row: Row) -> str:
    """A mean, with a star where it differs from the reference."""
    differs = row["p_holm"] is not None and row["p_holm"] < SIGNIFICANT
    return number(row["mean"]) + ("*" if differs else "")


def _mean(row: Row | None) -> str:
    return number(row["mean"]) if row else DASH
