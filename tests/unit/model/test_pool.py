"""The pool of training slices: what is gathered from it is what was put in, padded."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from brats.data.pool import PoolLayout, TrainingVolume
from brats.errors import BratsError, TooLargeError
from brats.model.pool import NUMBERS_BACKGROUND, SlicePool
from tests.support.prepared import CPU

SHAPES = {"a": (2, 3, 4), "b": (3, 2, 2)}  # Z H W
LAYOUT = PoolLayout.of(list(SHAPES), list(SHAPES.values()), n_channels=2)
MUCH = 10**6


def volume(case_id: str, dtype: type = np.int16, *, half: float = 0.0) -> TrainingVolume:
    """Random voxels; the background of its two images is -7 and 9."""
    shape = SHAPES[case_id]
    random = np.random.default_rng(ord(case_id))
    numbers = np.zeros((4, 2), np.float32)
    numbers[2] = -7, 9
    return TrainingVolume(
        case_id=case_id,
        images=(random.integers(-500, 500, (2, *shape)) + half).astype(dtype),
        labels=random.integers(0, 4, shape, np.uint8),
        numbers=numbers,
    )


def volumes() -> Iterator[TrainingVolume]:
    return iter([volume("b"), volume("a")])  # in another order than the layout


def gathered(
    pool: SlicePool, slices: list[tuple[str, int]], size: tuple[int, int], context: int = 0
) -> list[np.ndarray]:
    """Images and labels, which a CPU copies and a GPU indexes: they are the same."""
    windows = torch.from_numpy(pool.layout.windows(slices))
    numbers = pool.numbers[pool.layout.cases(slices)].repeat(2 * context + 1, axis=2)
    copied = pool.gather(windows, torch.from_numpy(numbers), size, context)
    background = torch.from_numpy(numbers)[:, NUMBERS_BACKGROUND, :, None, None].to(pool.values.dtype)
    torch.testing.assert_close(pool._index(windows, background, size, context), copied, rtol=0, atol=0)
    return [tensor.numpy() for tensor in copied]


def test_gathered_slices_are_the_stored_ones_padded_with_background_and_label_0() -> None:
    pool = SlicePool.fill(LAYOUT, volumes(), CPU, MUCH)
    slices = [("a", 1), ("b", 2), ("b", 0)]
    images, labels = gathered(pool, slices, (4, 5))
    assert images.dtype == np.int16
    assert labels.dtype == np.uint8
    for number, (case_id, row) in enumerate(slices):
        stored = volume(case_id)
        _, height, width = SHAPES[case_id]
        expected = np.empty((2, 4, 5), np.int16)
        expected[0], expected[1] = -7, 9
        expected[:, :height, :width] = stored.images[:, row]
        np.testing.assert_array_equal(images[number], expected)
        np.testing.assert_array_equal(labels[number, :height, :width], stored.labels[row])
        assert labels[number].sum() == stored.labels[row].sum()


@pytest.mark.parametrize("context", [1, 2])
def test_neighbours_are_those_of_the_case_and_background_beyond_its_ends(context: int) -> None:
    pool = SlicePool.fill(LAYOUT, volumes(), CPU, MUCH)
    slices = [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2)]
    images, labels = gathered(pool, slices, (4, 5), context)
    depth = 2 * context + 1
    assert images.shape == (5, 2 * depth, 4, 5)
    for number, (case_id, row) in enumerate(slices):
        stored = volume(case_id)
        _, height, width = SHAPES[case_id]
        for modality, background in enumerate((-7, 9)):
            for place in range(depth):
                expected = np.full((4, 5), background)
                neighbour = row + place - context
                if 0 <= neighbour < SHAPES[case_id][0]:
                    expected[:height, :width] = stored.images[modality, neighbour]
                np.testing.assert_array_equal(images[number, modality * depth + place], expected)
        np.testing.assert_array_equal(labels[number, :height, :width], stored.labels[row])


def test_one_case_of_floating_point_numbers_makes_the_pool_one_without_loss() -> None:
    fine = volume("a", np.float32, half=0.5)
    pool = SlicePool.fill(LAYOUT, [volume("b"), fine], CPU, MUCH)
    images, _ = gathered(pool, [("a", 0), ("b", 1)], (3, 4))
    np.testing.assert_array_equal(images[0], fine.images[:, 0])
    np.testing.assert_array_equal(images[1, :, :2, :2], volume("b").images[:, 1])
    assert pool.n_bytes == LAYOUT.n_bytes(4)


def test_floating_point_numbers_that_do_not_fit_are_refused_by_case() -> None:
    with pytest.raises(TooLargeError, match="the images of a are of floating-point numbers"):
        SlicePool.fill(LAYOUT, [volume("b"), volume("a", np.float32)], CPU, at_most=LAYOUT.n_bytes(2))


def test_a_case_that_does_not_come_is_missed() -> None:
    with pytest.raises(BratsError, match="1 of 2 training cases did not come"):
        SlicePool.fill(LAYOUT, [volume("b")], CPU, MUCH)


def test_a_case_of_another_shape_is_refused_by_name() -> None:
    other = PoolLayout.of(list(SHAPES), [(2, 3, 4), (3, 2, 3)], n_channels=2)
    with pytest.raises(BratsError, match="b: a volume of"):
        SlicePool.fill(other, volumes(), CPU, MUCH)
