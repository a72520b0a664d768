"""Panoptic scores of 2025/26, every rule on a few voxels, computed by hand."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from brats.score.lesions import Lesion
from brats.score.panoptic_2026 import METRICS_2026, UNMATCHED_COST, lesions_2026, match
from brats.score.surface import Mask
from tests.support.lesions import cube, mask_of, pair_of

NOTHING = dict.fromkeys(("f1", "lesion_dice", "panoptic_quality", "lesion_hd95_mm", "lesion_surface_dice"))
WORST = {
    "f1": 0.0,
    "lesion_dice": 0.0,
    "panoptic_quality": 0.0,
    "lesion_hd95_mm": 373.0,
    "lesion_surface_dice": 0.0,
}
PERFECT = {
    "f1": 1.0,
    "lesion_dice": 1.0,
    "panoptic_quality": 1.0,
    "lesion_hd95_mm": 0.0,
    "lesion_surface_dice": 1.0,
}


def statuses(found: list[Lesion]) -> list[str]:
    return [lesion.status for lesion in found]


def scores(found: list[Lesion]) -> dict[str, float | int | None]:
    values = {metric.name.removesuffix("_2026"): metric.value(found) for metric in METRICS_2026}
    return {name: value for name, value in values.items() if not name.startswith("n_")}


@pytest.mark.parametrize(
    ("reference", "predicted", "expected"),
    [
        (mask_of(), mask_of(), NOTHING),
        (cube((5, 5, 5), 4), mask_of(), WORST),
        (mask_of(), cube((5, 5, 5), 4), WORST),
        (cube((5, 5, 5), 4), cube((15, 5, 5), 4), WORST),
        (cube((5, 5, 5), 4), cube((5, 5, 5), 4), PERFECT),
    ],
)
def test_scores_where_a_mask_or_both_or_neither_is_empty_and_where_nothing_was_found(
    reference: Mask, predicted: Mask, expected: dict[str, float | None]
) -> None:
    assert scores(lesions_2026(pair_of(reference, predicted))) == expected


def test_components_are_not_dilated_so_that_a_neighbour_is_missed_and_false() -> None:
    found = lesions_2026(pair_of(mask_of((10, 10, 10)), mask_of((11, 10, 10))))
    assert statuses(found) == ["missed", "false"]


def test_no_lesion_is_too_small() -> None:
    found = lesions_2026(pair_of(mask_of((10, 10, 10)), mask_of((10, 10, 10))))
    assert (statuses(found), found[0].dice, found[0].volume_mm3) == (["found"], 1, 1)


def test_of_two_parts_that_overlap_a_lesion_one_is_matched_and_the_other_false() -> None:
    reference = cube((5, 5, 5), 4)
    predicted = reference.copy()
    predicted[7] = False  # two parts: of 32 voxels and of 16
    found = lesions_2026(pair_of(reference, predicted))
    assert statuses(found) == ["found", "false"]
    assert found[0].dice == pytest.approx(2 * 32 / (64 + 32))
    assert (found[1].dice, found[1].volume_mm3) == (None, 16)
    assert scores(found)["f1"] == pytest.approx(1 / 1.5)
    assert scores(found)["panoptic_quality"] == pytest.approx(2 / 3 * 1 / 1.5)


def test_one_component_is_matched_with_one_of_the_lesions_that_it_joins() -> None:
    reference = cube((2, 5, 5), 3) | cube((20, 5, 5), 4)
    predicted = reference.copy()
    predicted[5:20, 5, 5] = True
    found = lesions_2026(pair_of(reference, predicted))
    assert statuses(found) == ["missed", "found"]  # the larger one has the larger Dice


def test_means_are_over_the_lesions_that_were_found_alone() -> None:
    reference = cube((0, 0, 0), 4) | cube((12, 0, 0), 4) | cube((20, 10, 10), 4)
    predicted = cube((0, 0, 0), 4) | cube((13, 0, 0), 4) | cube((0, 15, 10), 4)
    found = lesions_2026(pair_of(reference, predicted))
    assert statuses(found) == ["found", "found", "missed", "false"]
    values = scores(found)
    assert values["f1"] == pytest.approx(2 / 3)
    assert values["lesion_dice"] == pytest.approx((1 + 48 / 64) / 2)
    assert values["lesion_hd95_mm"] == pytest.approx(0.5)  # one cube is shifted by a voxel
    assert values["lesion_surface_dice"] == 1
    counts = [metric.value(found) for metric in METRICS_2026 if metric.is_count]
    assert counts == [3, 2, 1, 1]


def test_the_matching_has_the_largest_sum_of_dice_and_not_the_best_pair() -> None:
    pairs = np.array([[1, 1], [1, 2], [2, 1]])
    dice = np.array([0.6, 0.5, 0.5])
    assert match(pairs, dice, 2, 2).tolist() == [1, 2]


def test_pairs_that_hardly_overlap_are_not_matched() -> None:
    assert match(np.array([[1, 1], [2, 2]]), np.array([9e-7, 1e-6]), 2, 2).tolist() == [1]


@pytest.mark.parametrize("seed", range(5))
def test_the_matching_costs_as_little_as_that_of_a_full_table(seed: int) -> None:
    draw = np.random.default_rng(seed)
    n_reference, n_predicted = int(draw.integers(1, 30)), int(draw.integers(1, 30))
    table = draw.random((n_reference, n_predicted)) * (draw.random((n_reference, n_predicted)) < 0.2)
    pairs = np.argwhere(table > 0) + 1
    dice = table[table > 0]
    chosen = match(pairs, dice, n_reference, n_predicted)
    assert all(np.unique(side).size == side.size for side in pairs[chosen].T)
    costs = np.where(table > 0, 1 - table, UNMATCHED_COST)
    rows, columns = linear_sum_assignment(costs)
    expected = table[rows, columns]
    assert (chosen.size, dice[chosen].sum()) == ((expected > 0).sum(), pytest.approx(expected.sum()))


def test_a_region_that_fills_the_volume_is_one_lesion() -> None:
    full = np.ones((9, 8, 7), bool)
    assert scores(lesions_2026(pair_of(full, full))) == PERFECT


def test_a_thousand_lesions_are_matched_each_with_its_own() -> None:
    grid = np.zeros((30, 30, 30), bool)
    grid[::3, ::3, ::3] = True
    found = lesions_2026(pair_of(grid, grid))
    assert statuses(found) == ["found"] * 1000
    assert scores(found) == PERFECT
