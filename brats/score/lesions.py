"""A lesion and how it was scored, and the metrics of a case that follow from its lesions."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Status = Literal["found", "missed", "false", "ignored"]


@dataclass(frozen=True)
class Lesion:
    """A lesion of the reference or, where it is false, a component of the prediction.

    status:       found or missed; false: predicted without a counterpart; ignored: too small to count
    centroid:     mean voxel index along the axes of the masks
    dice, hd95_mm, surface_dice: None where its convention gives none
    """

    status: Status
    volume_mm3: float
    centroid: tuple[float, float, float]
    dice: float | None = None
    hd95_mm: float | None = None
    surface_dice: float | None = None


@dataclass(frozen=True)
class LesionMetric:
    """A score of a region, from its lesions: the name of its column, its convention, its value; None if undefined.

    is_count: whether the value is a number of lesions
    """

    name: str
    convention: str
    value: Callable[[Sequence[Lesion]], float | int | None]
    is_count: bool = False


def count(lesions: Iterable[Lesion], *statuses: Status) -> int:
    """How many lesions have one of these statuses."""
    return sum(lesion.status in statuses for lesion in lesions)


def count_metrics(year: int) -> tuple[LesionMetric, ...]:
    """How many lesions were found, missed and made up, in columns of a year."""
    return (
        LesionMetric(
            f"n_lesions_{year}",
            "lesions of the reference that count: found and missed",
            lambda lesions: count(lesions, "found", "missed"),
            is_count=True,
        ),
        LesionMetric(
            f"n_found_{year}",
            "of them those that were found",
            lambda lesions: count(lesions, "found"),
            is_count=True,
        ),
        LesionMetric(
            f"n_missed_{year}",
            "of them those that were missed",
            lambda lesions: count(lesions, "missed"),
            is_count=True,
        ),
        LesionMetric(
            f"n_false_{year}",
            "components of the prediction that are no lesion of the reference",
            lambda lesions: count(lesions, "false"),
            is_count=True,
        ),
    )


def mean(values: Iterable[float | None]) -> float:
    """The mean of values, none of which is None; there is at least one."""
    return float(np.mean([value for value in values if value is not None]))
