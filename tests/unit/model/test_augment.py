"""Flips: a pure function of seed, epoch and step, the same for images and labels."""

import numpy as np
import pytest
import torch

from brats.model.augment import draw_flips, flip

SQUARE = torch.tensor([[1, 2], [3, 4]])


def test_flips_are_a_pure_function_of_seed_epoch_and_step() -> None:
    drawn = draw_flips(64, seed=1, epoch=2, step=3)
    np.random.default_rng(0).random(10)
    torch.rand(10)
    np.testing.assert_array_equal(draw_flips(64, seed=1, epoch=2, step=3), drawn)


@pytest.mark.parametrize("other", [{"seed": 2}, {"epoch": 3}, {"step": 4}])
def test_another_seed_epoch_or_step_draws_other_flips(other: dict[str, int]) -> None:
    at = {"seed": 1, "epoch": 2, "step": 3}
    assert (draw_flips(64, **{**at, **other}) != draw_flips(64, **at)).any()


def test_half_of_the_slices_are_flipped_along_each_axis_independently() -> None:
    flips = draw_flips(10_000, seed=0, epoch=1, step=0)
    assert flips.shape == (10_000, 2)
    np.testing.assert_allclose(flips.mean(axis=0), 0.5, atol=0.02)
    assert flips.all(axis=1).mean() == pytest.approx(0.25, abs=0.02)


def test_each_slice_is_flipped_along_its_own_axes() -> None:
    flips = np.array([[False, False], [True, False], [False, True], [True, True]])
    flipped = flip(SQUARE.repeat(4, 1, 1), flips)
    assert flipped.tolist() == [[[1, 2], [3, 4]], [[3, 4], [1, 2]], [[2, 1], [4, 3]], [[4, 3], [2, 1]]]


def test_images_and_labels_flip_alike() -> None:
    labels = torch.arange(8 * 4 * 6, dtype=torch.int16).reshape(8, 4, 6)
    images = torch.stack([labels, -labels], dim=1)
    flips = draw_flips(8, seed=0, epoch=1, step=0)
    assert flips.any(axis=0).all()
    flipped = flip(images, flips)
    assert torch.equal(flipped[:, 0], flip(labels, flips))
    assert torch.equal(flipped[:, 1], -flip(labels, flips))


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.float32])
def test_flipping_keeps_the_number_type_and_the_original(dtype: torch.dtype) -> None:
    slices = SQUARE[None].to(dtype)
    flipped = flip(slices, np.array([[True, True]]))
    assert flipped.dtype == dtype
    assert slices.tolist() == [[[1, 2], [3, 4]]]


def test_flipping_twice_is_the_identity() -> None:
    slices = torch.rand(16, 2, 5, 7)
    flips = draw_flips(16, seed=0, epoch=1, step=0)
    assert torch.equal(flip(flip(slices, flips), flips), slices)
