"""Lesion-wise scores of 2023, every rule on a few voxels, computed by hand."""

import numpy as np
import pytest

from brats.score.lesions import Lesion
from brats.score.lesions_2023 import METRICS_2023, PENALTY_HD95_MM, RULES, lesions_2023
from brats.score.surface import Mask, Spacing
from tests.support.lesions import UNIT, cube, mask_of, pair_of

COARSE: Spacing = (4.0, 4.0, 4.0)  # a voxel of 64 mm3 is a lesion that counts
Statuses = list[str]


def lesions(reference: Mask, predicted: Mask, spacing_mm: Spacing = UNIT, rules: str = "gli") -> list[Lesion]:
    return lesions_2023(pair_of(reference, predicted, spacing_mm), RULES[rules])  # type: ignore[index]


def statuses(found: list[Lesion]) -> Statuses:
    return [lesion.status for lesion in found]


def scores(found: list[Lesion]) -> dict[str, float | int | None]:
    return {metric.name.removesuffix("_2023"): metric.value(found) for metric in METRICS_2023}


@pytest.mark.parametrize(
    ("rules", "offset", "touches"),
    [
        ("gli", (3, 0, 0), True),
        ("gli", (4, 0, 0), False),
        ("gli", (3, 3, 0), True),  # by edges, but not by corners:
        ("gli", (3, 3, 1), False),
        ("gli", (2, 2, 2), True),
        ("ssa", (3, 0, 0), True),
        ("ped", (3, 0, 0), True),
        ("men", (1, 1, 0), True),
        ("men", (1, 1, 1), False),
        ("met", (1, 0, 0), True),
        ("met", (2, 0, 0), False),
    ],
)
def test_a_component_belongs_to_a_lesion_that_reaches_it_when_dilated(
    rules: str, offset: tuple[int, int, int], touches: bool
) -> None:
    x, y, z = offset
    found = lesions(mask_of((10, 10, 10)), mask_of((10 + x, 10 + y, 10 + z)), COARSE, rules)
    assert statuses(found) == (["found"] if touches else ["missed", "false"])
    assert found[0].dice == 0


def test_hd95_of_a_lesion_is_that_of_surface_elements() -> None:
    (found,) = lesions(mask_of((10, 10, 10)), mask_of((13, 10, 10)), COARSE)
    assert found.hd95_mm == 12  # half of the corners are 3 voxels away, half of them 2


@pytest.mark.parametrize(("apart", "n_lesions"), [(7, 1), (8, 2)])
def test_parts_whose_dilations_touch_are_one_lesion(apart: int, n_lesions: int) -> None:
    found = lesions(mask_of((10, 10, 10), (10 + apart, 10, 10)), mask_of((10, 10, 10)), COARSE)
    assert statuses(found) == ["found", "missed"][:n_lesions]
    assert [lesion.volume_mm3 for lesion in found] == [128 / n_lesions] * n_lesions
    assert found[0].dice == pytest.approx(2 / 3 if n_lesions == 1 else 1)
    assert found[0].centroid == ((10 + apart / 2 if n_lesions == 1 else 10), 10, 10)


@pytest.mark.parametrize(("rules", "n_voxels"), [("gli", 50), ("ssa", 50), ("ped", 50), ("men", 50), ("met", 2)])
def test_a_lesion_up_to_the_volume_of_the_rules_does_not_count(rules: str, n_voxels: int) -> None:
    for extra, status in ((0, "ignored"), (1, "missed")):
        reference = mask_of(*[(3, voxel // 20, voxel % 20) for voxel in range(n_voxels + extra)])
        (found,) = lesions(reference, mask_of(), rules=rules)
        assert (found.status, found.volume_mm3) == (status, n_voxels + extra)


def test_what_touches_an_ignored_lesion_is_not_false() -> None:
    found = lesions(mask_of((10, 10, 10)), cube((10, 10, 10), 4))
    assert statuses(found) == ["ignored"]
    assert (found[0].dice, found[0].hd95_mm) == (None, None)
    assert scores(found) == {
        "lesion_dice": 1,
        "lesion_hd95_mm": 0,
        "n_lesions": 0,
        "n_found": 0,
        "n_missed": 0,
        "n_false": 0,
    }


def test_volumes_are_in_mm3_whatever_the_spacing() -> None:
    for thickness_mm, status in ((2.0, "ignored"), (2.5, "missed")):
        (found,) = lesions(mask_of((1, 2, 3)), mask_of(), (5.0, 5.0, thickness_mm))
        assert (found.status, found.volume_mm3) == (status, 25 * thickness_mm)


def test_all_components_that_touch_a_lesion_are_scored_together() -> None:
    reference = cube((5, 5, 5), 4)
    predicted = cube((5, 5, 5), 4)
    predicted[7] = False  # two parts: of 32 voxels and of 16
    (found,) = lesions(reference, predicted)
    assert found.dice == pytest.approx(2 * 48 / (64 + 48))


def test_a_component_that_touches_two_lesions_belongs_to_both_as_a_whole() -> None:
    reference = cube((2, 5, 5), 4) | cube((20, 5, 5), 4)
    predicted = reference.copy()
    predicted[6:20, 5, 5] = True  # a bridge of 14 voxels
    found = lesions(reference, predicted)
    assert statuses(found) == ["found", "found"]
    assert [lesion.dice for lesion in found] == [pytest.approx(2 * 64 / (64 + 142))] * 2


def test_missed_lesions_and_false_components_count_dice_0_and_the_penalty() -> None:
    reference = cube((0, 0, 0), 4) | cube((12, 0, 0), 4)
    predicted = cube((0, 0, 0), 4) | cube((24, 15, 15), 2)
    found = lesions(reference, predicted)
    assert statuses(found) == ["found", "missed", "false"]
    assert [(lesion.dice, lesion.hd95_mm) for lesion in found] == [(1, 0), (0, 374), (0, 374)]
    assert [lesion.volume_mm3 for lesion in found] == [64, 64, 8]
    assert found[2].centroid == (24.5, 15.5, 15.5)
    assert scores(found) == {
        "lesion_dice": pytest.approx(1 / 3),
        "lesion_hd95_mm": pytest.approx(2 * 374 / 3),
        "n_lesions": 2,
        "n_found": 1,
        "n_missed": 1,
        "n_false": 1,
    }


@pytest.mark.parametrize(
    ("reference", "predicted", "dice", "hd95_mm", "found_statuses"),
    [
        (mask_of(), mask_of(), 1, 0, []),
        (cube((5, 5, 5), 4), mask_of(), 0, PENALTY_HD95_MM, ["missed"]),
        (mask_of(), cube((5, 5, 5), 4), 0, PENALTY_HD95_MM, ["false"]),
        (cube((5, 5, 5), 4), cube((5, 5, 5), 4), 1, 0, ["found"]),
    ],
)
def test_scores_where_a_mask_or_both_or_neither_is_empty(
    reference: Mask, predicted: Mask, dice: float, hd95_mm: float, found_statuses: Statuses
) -> None:
    found = lesions(reference, predicted)
    assert statuses(found) == found_statuses
    values = scores(found)
    assert (values["lesion_dice"], values["lesion_hd95_mm"]) == (dice, hd95_mm)


def test_a_region_that_fills_the_volume_is_one_lesion() -> None:
    full = np.ones((9, 8, 7), bool)
    (found,) = lesions(full, full)
    assert (found.status, found.dice, found.hd95_mm, found.volume_mm3) == ("found", 1, 0, 504)
