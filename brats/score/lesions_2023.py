"""Lesion-wise Dice and HD95, as the code of BraTS 2023 defines them.

Axes: `X Y Z` the voxel axes of the masks, in any order.

Source: https://github.com/rachitsaluja/BraTS-2023-Metrics, commit 43c9052. The reference is dilated, and what of it
lies in one component of the dilated mask is one lesion. Every component of the prediction that touches the dilated
lesion belongs to it, and may belong to several; those that touch none are false.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from brats.config import RulesName
from brats.score.components import (
    Components,
    Ints,
    RegionPair,
    count_pairs,
    dilate,
    number_components,
    union_box,
)
from brats.score.lesions import Lesion, LesionMetric, count_metrics
from brats.score.surface import hd95_mm, surface_distances

PENALTY_HD95_MM = 374.0  # of a missed lesion and of a false component, `get_LesionWiseResults`


@dataclass(frozen=True)
class Rules:
    """How one challenge of BraTS 2023 defined its lesions.

    n_dilations: of the reference, by 18 neighbours
    largest_ignored_mm3: lesions of this volume, and smaller ones, do not count
    """

    n_dilations: int
    largest_ignored_mm3: float


RULES: Mapping[RulesName, Rules] = {
    "gli": Rules(n_dilations=3, largest_ignored_mm3=50),
    "ssa": Rules(n_dilations=3, largest_ignored_mm3=50),
    "ped": Rules(n_dilations=3, largest_ignored_mm3=50),
    "men": Rules(n_dilations=1, largest_ignored_mm3=50),
    "met": Rules(n_dilations=1, largest_ignored_mm3=2),
}


def lesions_2023(regions: RegionPair, rules: Rules) -> list[Lesion]:
    """The lesions of a region: those of the reference, then the false components."""
    grown = number_components(dilate(regions.reference, rules.n_dilations))
    lesions = Components.of(regions.reference, np.where(regions.reference, grown, np.int32(0)))
    touching, _ = count_pairs(grown, regions.predicted)
    false = np.setdiff1d(np.arange(1, regions.predicted.n + 1), touching[:, 1])
    return [
        *_reference_lesions(regions, rules, lesions, touching),
        *(
            Lesion("false", *regions.place(regions.predicted, number), 0.0, PENALTY_HD95_MM)
            for number in false.tolist()
        ),
    ]


def _reference_lesions(regions: RegionPair, rules: Rules, lesions: Components, touching: Ints) -> Iterator[Lesion]:
    """The lesions of the reference.

    touching: pairs (P, 2) of a lesion and a component that touches it, in the order of the lesions
    """
    belonging = np.split(touching[:, 1], np.searchsorted(touching[:, 0], np.arange(2, lesions.n + 1)))
    for number, components in zip(range(1, lesions.n + 1), belonging, strict=False):  # one, empty, of no lesion
        place = regions.place(lesions, number)
        if place.volume_mm3 <= rules.largest_ignored_mm3:
            yield Lesion("ignored", *place)
        elif not components.size:
            yield Lesion("missed", *place, 0.0, PENALTY_HD95_MM)
        else:
            dice, hd95 = _dice_and_hd95_mm(regions, lesions, number, components)
            yield Lesion("found", *place, dice, hd95)


def _dice_and_hd95_mm(
    regions: RegionPair, lesions: Components, number: int, components: Ints
) -> tuple[float, float]:
    """The scores of a lesion and the components that belong to it, in the box of both."""
    predicted = regions.predicted
    box = union_box([lesions.boxes[number - 1], *(predicted.boxes[one - 1] for one in components)])
    chosen = np.zeros(predicted.n + 1, bool)
    chosen[components] = True
    lesion, found = lesions.numbers[box] == number, chosen[predicted.numbers[box]]
    n_all = int(lesions.n_voxels[number]) + int(predicted.n_voxels[components].sum())
    dice = 2 * int(np.count_nonzero(lesion & found)) / n_all
    if regions.hd95_mm is not None and lesions.n == 1 and components.size == predicted.n:
        return dice, regions.hd95_mm
    return dice, hd95_mm(surface_distances(lesion, found, regions.spacing_mm))


def _mean_dice(lesions: Sequence[Lesion]) -> float:
    scores = [lesion.dice for lesion in lesions if lesion.dice is not None]
    return sum(scores) / len(scores) if scores else 1.0


def _mean_hd95_mm(lesions: Sequence[Lesion]) -> float:
    scores = [lesion.hd95_mm for lesion in lesions if lesion.hd95_mm is not None]
    return sum(scores) / len(scores) if scores else 0.0


METRICS_2023 = (
    LesionMetric(
        "lesion_dice_2023",
        "mean of the Dice of the lesions that count, missed ones 0, and of a 0 for each false component; 1 where "
        "there is neither",
        _mean_dice,
    ),
    LesionMetric(
        "lesion_hd95_mm_2023",
        f"likewise of HD95, by surface area as in google-deepmind/surface-distance; {PENALTY_HD95_MM:g} for a "
        "missed lesion and a false component; 0 where there is neither",
        _mean_hd95_mm,
    ),
    *count_metrics(2023),
)
