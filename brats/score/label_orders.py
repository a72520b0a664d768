"""Dice of masks under every known order of label codes, and warnings where another order fits far better.

A case needs one count, of voxels by code in the prediction and label in the reference. The Dice of every region in
every order follows from it.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from brats.console import some
from brats.data.codings import Coding
from brats.data.prediction_coding import BACKGROUND, CASE, RAW, known_codings, pairs_coding
from brats.labels import REGIONS, TISSUES, Labels, bounding_box
from brats.score.metrics import LABELS, Counts, region_dice

# Another order leaves WT as it is, and often ET: .05 in the mean of three regions is .15 in TC.
FAR_BETTER = 0.05  # in the mean over all cases
FAR_BETTER_CASE = 0.1  # in one case, where models err more than in the mean
GOOD_DICE = 0.7  # of the worst region, which a model that errs does not reach by another reading of its codes

CodeCounts = Sequence[Sequence[int]]
"""A row for each code of a prediction, the lowest first: the code, then its voxels by label in the reference."""

Scores = Mapping[str, Mapping[str, float]]
"""The Dice of each region, by case."""


def count_codes(reference: Labels, codes: Labels) -> list[list[int]]:
    """The `CodeCounts` of a case, from its reference and the codes of its prediction, both (X, Y, Z)."""
    box = bounding_box((reference | codes) != 0)
    pairs = LABELS.size * codes[box].astype(np.uint16) + reference[box]
    counts = np.bincount(pairs.ravel(), minlength=LABELS.size * len(RAW.codes)).reshape(-1, LABELS.size)
    counts[0, 0] += codes.size - pairs.size  # outside the box: background in both
    return [[int(code), *counts[code].tolist()] for code in np.flatnonzero(counts.any(axis=1))]


def defines(coding: Coding, counts: CodeCounts) -> bool:
    """Whether a coding defines every code of a prediction."""
    return all(row[0] in coding.codes for row in counts)


def order_dice(counts: CodeCounts, coding: Coding) -> dict[str, float]:
    """The Dice of each region, were the prediction in this coding, which defines its codes."""
    pairs: Counts = np.zeros((LABELS.size, LABELS.size), np.int64)
    for code, *by_reference in counts:
        pairs[:, coding.codes[code]] += by_reference
    return region_dice(pairs)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One way to read the masks of all cases: a value of `--prediction-coding`, and the coding of each case."""

    option: str
    codings: Mapping[str, Coding]

    def dice(self, counts: Mapping[str, CodeCounts]) -> Scores:
        """The scores without the cases whose codes it does not define."""
        readable = {name: rows for name, rows in counts.items() if defines(self.codings[name], rows)}
        return {name: order_dice(rows, self.codings[name]) for name, rows in readable.items()}

    def __str__(self) -> str:
        """Its option, and what the codes stand for where that is the same in all cases."""
        orders = {coding.meaning for coding in self.codings.values()}
        return f"{self.option} ({orders.pop()})" if len(orders) == 1 else self.option


def best_order(counts: CodeCounts) -> tuple[Reading, float] | None:
    """The order that fits one case best, and its mean Dice; None where none fits it well."""
    of_case = {CASE: counts}
    found = [(reading, reading.dice(of_case)) for reading in _other_readings(of_case, {})]
    scored = [(reading, _mean(dice)) for reading, dice in found if dice and _fits(dice)]
    return max(scored, key=lambda each: each[1]) if scored else None


def order_warnings(
    counts: Mapping[str, CodeCounts], stated: Mapping[str, Coding], own: Mapping[str, Coding]
) -> list[str]:
    """A line where masks would score far better, and well, in another order, all of them or else some; mostly none.

    counts: by case
    stated: the coding in which each was scored
    own:    that of the segmentation of each case
    """
    now = Reading(option="", codings=stated).dice(counts)
    if not now:
        return []
    others = [(reading, reading.dice(counts)) for reading in _other_readings(counts, own)]
    whole = [(reading, dice) for reading, dice in others if len(dice) == len(now) and _fits(dice)]
    if whole and (warning := _warn_of_all(now, whole)):
        return [warning]
    partly = [(_far_better(dice, now, counts), reading, dice) for reading, dice in others]
    names, reading, dice = max(partly, key=lambda each: (len(each[0]), _mean_of(each[0], each[2])))
    return [_warn_of_some(names, now, reading, dice)] if names else []


def _warn_of_all(now: Scores, others: Sequence[tuple[Reading, Scores]]) -> str:
    """The line for masks that are all in another order, "" where none of the other readings is far better."""
    reading, dice = max(others, key=lambda each: _mean(each[1]))
    there, here = _mean(dice), _mean(now)
    if there - here < FAR_BETTER:
        return ""
    return (
        f"read as {reading} these masks would score a mean Dice of {there:.2f}, not {here:.2f}; if that is their "
        f"order, add --prediction-coding {reading.option}, with another --out"
    )


def _warn_of_some(names: Sequence[str], now: Scores, reading: Reading, dice: Scores) -> str:
    there, here = (_mean_of(names, scores) for scores in (dice, now))
    return (
        f"read as {reading} {len(names)} of {len(now)} masks would score a mean Dice of {there:.2f}, not "
        f"{here:.2f}: {some(names)}; if that is their order, score them apart with --prediction-coding "
        f"{reading.option}"
    )


def _fits(dice: Scores) -> bool:
    """Whether every region scores well: the best of readings that fit poorly is as often a wrong one."""
    return all(fmean(regions[name] for regions in dice.values()) >= GOOD_DICE for name in REGIONS)


def _far_better(dice: Scores, now: Scores, counts: Mapping[str, CodeCounts]) -> list[str]:
    """The cases of more than one tumour code that another reading fits far better, and well."""
    return [
        name
        for name in dice
        if fmean(dice[name].values()) - fmean(now[name].values()) >= FAR_BETTER_CASE
        and _fits({name: dice[name]})
        and len(_tumour_codes(counts[name])) > 1
    ]


def _other_readings(counts: Mapping[str, CodeCounts], own: Mapping[str, Coding]) -> Iterator[Reading]:
    """The codings with a name, that of the cases first; then every assignment of tissues to a few codes."""
    if own:
        yield Reading(option=CASE, codings=own)
    for coding in known_codings().values():
        yield Reading(option=coding.name, codings=dict.fromkeys(counts, coding))
    codes = sorted({code for rows in counts.values() for code in _tumour_codes(rows)})
    for names in _assignments(len(codes)):
        coding = pairs_coding(",".join(f"{code}={name}" for code, name in zip(codes, names, strict=True)))
        yield Reading(option=coding.name, codings=dict.fromkeys(counts, coding))


def _assignments(n_codes: int) -> Iterator[tuple[str, ...]]:
    """What the codes of masks may stand for: each for a tissue of its own; of one more, one for the background."""
    if 2 <= n_codes <= len(TISSUES):
        yield from itertools.permutations(TISSUES, n_codes)
    elif n_codes == len(TISSUES) + 1:
        yield from itertools.permutations([*TISSUES, BACKGROUND])


def _tumour_codes(counts: CodeCounts) -> list[int]:
    return [row[0] for row in counts if row[0]]


def _mean(dice: Scores) -> float:
    """The mean over cases of the mean over regions."""
    return fmean(fmean(regions.values()) for regions in dice.values())


def _mean_of(names: Sequence[str], dice: Scores) -> float:
    """The mean of some cases, 0 of none."""
    return _mean({name: dice[name] for name in names}) if names else 0.0
