"""Components, dilation and overlaps on masks small enough to check by eye."""

import numpy as np
import pytest
from scipy import ndimage

from brats.score.components import MARGIN, RegionPair, count_pairs, dilate, find_components, union_box
from tests.support.lesions import UNIT, mask_of


def test_voxels_that_share_a_corner_are_one_component_and_others_are_not() -> None:
    found = find_components(mask_of((0, 0, 0), (1, 1, 1), (3, 3, 3)))
    assert (found.n, found.n_voxels.tolist()) == (2, [0, 2, 1])
    assert found.boxes[0] == np.s_[0:2, 0:2, 0:2]


def test_a_centroid_is_the_mean_index_of_the_voxels_of_a_component() -> None:
    found = find_components(mask_of((0, 0, 0), (0, 0, 1), (0, 1, 1), (4, 5, 6)))
    assert found.centroid(1) == pytest.approx((0, 1 / 3, 2 / 3))
    assert found.centroid(2) == (4, 5, 6)


def test_an_empty_mask_has_no_component() -> None:
    found = find_components(mask_of())
    assert (found.n, found.boxes, found.n_voxels.tolist()) == (0, [], [0])


@pytest.mark.parametrize("n_times", [0, 1, 3])
def test_dilation_is_that_of_scipy_with_18_neighbours(n_times: int) -> None:
    mask = np.random.default_rng(0).random((20, 17, 12)) < 0.003
    expected = mask
    for _ in range(n_times):
        expected = ndimage.binary_dilation(expected, ndimage.generate_binary_structure(3, 2))
    assert mask.any()
    np.testing.assert_array_equal(dilate(mask, n_times), expected)


def test_numbers_are_counted_by_component_in_ascending_order_without_background() -> None:
    numbers = np.array([[[2, 2, 1, 0, 0, 1, 1, 1]]], np.int32)
    components = find_components(np.array([[[1, 1, 1, 0, 1, 1, 0, 1]]], bool))
    pairs, counts = count_pairs(numbers, components)
    assert (pairs.tolist(), counts.tolist()) == ([[1, 1], [1, 2], [1, 3], [2, 1]], [1, 1, 1, 2])


def test_numbers_beside_the_components_make_no_pair() -> None:
    components = find_components(np.array([[[0, 1]]], bool))
    pairs, counts = count_pairs(np.array([[[1, 0]]], np.int32), components)
    assert (pairs.shape, counts.shape) == ((0, 2), (0,))


def test_a_pair_of_masks_is_cut_to_their_box_and_knows_where_it_lies() -> None:
    pair = RegionPair.of(mask_of((2, 3, 4)), mask_of((5, 3, 4)), (10, 20, 30), (2.0, 1.0, 0.5))
    assert pair.reference.shape == (4 + 2 * MARGIN, 1 + 2 * MARGIN, 1 + 2 * MARGIN)
    assert pair.reference[MARGIN, MARGIN, MARGIN]
    assert pair.predicted.numbers[MARGIN + 3, MARGIN, MARGIN] == 1
    assert pair.start == (12 - MARGIN, 23 - MARGIN, 34 - MARGIN)
    assert pair.place(pair.predicted, 1) == (1.0, (15, 23, 34))


def test_two_empty_masks_make_a_pair_without_components() -> None:
    pair = RegionPair.of(mask_of(), mask_of(), (0, 0, 0), UNIT)
    assert not pair.reference.any()
    assert pair.predicted.n == 0


def test_the_box_around_boxes_holds_all_of_them() -> None:
    assert union_box([np.s_[1:2, 5:9, 0:1], np.s_[0:1, 6:7, 3:4]]) == np.s_[0:2, 5:9, 0:4]
