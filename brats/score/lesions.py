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

    def counted(name: str, convention: str, *statuses: Status) -> LesionMetric:
        return LesionMetric(
            f"n_{name}_{year}", convention, lambda lesions: count(lesions, *statuses), is_count=True
        )

    return (
        counted("lesions", "lesions of the reference that count: found and missed", "found", "missed"),
        counted("found", "of them those that were found", "found"),
        counted("missed", "of them those that were missed", "missed"),
        counted("false", "components of the prediction that are no lesion of the reference", "false"),
    )


def mean(values: Iterable[float | None]) -> float:
    """The mean of values, none of which is None; there is at least one."""
    return float(np.mean([value for value in values if value is not None]))
