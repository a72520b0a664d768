"""The loss: by hand, against the field's packages, and its gradient where there is no tumour."""

import math
import warnings
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from segmentation_models_pytorch.losses import DiceLoss as SmpDiceLoss
from torch import Tensor
from torch.nn import functional

from brats.config import LossName
from brats.labels import REGIONS, region_mask
from brats.model.losses import LOSSES, bce_dice_loss, cross_entropy_loss, dice_loss, region_targets


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits and targets (4, 3, 16, 16), every region present."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 3, 16, 16, generator=generator)
    return logits, (torch.rand(4, 3, 16, 16, generator=generator) < 0.3).float()


@pytest.fixture(scope="module")
def monai_dice_loss() -> Callable[[Tensor, Tensor], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on import, of torch's own deprecations
        from monai.losses.dice import DiceLoss
    loss: Callable[[Tensor, Tensor], Tensor] = DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
    return loss


def test_undecided_about_one_tumour_pixel_of_two() -> None:
    logits, targets = torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]])
    # probabilities 0.5: cross-entropy ln 2; Dice (2 x 0.5 + 1) / (1 + 1 + 1)
    assert bce_dice_loss(logits, targets).item() == pytest.approx(math.log(2) + 1 - 2 / 3)


def test_three_quarters_sure_of_the_tumour_pixel() -> None:
    logits, targets = torch.full((1, 1, 1, 1), math.log(3)), torch.ones(1, 1, 1, 1)
    # probability 0.75: cross-entropy -ln 0.75; Dice (1.5 + 1) / (1.75 + 1)
    assert bce_dice_loss(logits, targets).item() == pytest.approx(-math.log(0.75) + 1 - 2.5 / 2.75)


def test_the_regions_weigh_the_same_whatever_their_size() -> None:
    logits = torch.full((1, 2, 1, 2), 40.0)  # certain of tumour everywhere
    targets = torch.tensor([[[[1.0, 1.0]], [[1.0, 0.0]]]])
    # region 1 is right; region 2 has a false positive: cross-entropy 40 in a quarter, Dice (2 + 1) / (3 + 1)
    assert bce_dice_loss(logits, targets).item() == pytest.approx(40 / 4 + 1 - (1 + 3 / 4) / 2)


def test_certain_and_right_costs_nothing() -> None:
    _, targets = batch()
    assert bce_dice_loss(100 * (2 * targets - 1), targets).item() == pytest.approx(0, abs=1e-6)


def test_extreme_logits_give_a_finite_loss_and_gradient() -> None:
    logits, targets = batch()
    logits = (1e4 * logits).requires_grad_()
    loss = bce_dice_loss(logits, targets)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


def test_parity_with_segmentation_models_where_every_region_is_present() -> None:
    logits, targets = batch()
    theirs = SmpDiceLoss(mode="multilabel", from_logits=True, smooth=0.5)(logits, targets)  # theirs counts twice
    expected = theirs + functional.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(bce_dice_loss(logits, targets), expected)


@pytest.mark.parametrize("absent", [(), (2,), (0, 1, 2)])
def test_parity_with_monai_also_where_regions_are_absent(
    monai_dice_loss: Callable[[Tensor, Tensor], Tensor], absent: tuple[int, ...]
) -> None:
    logits, targets = batch()
    targets[:, list(absent)] = 0
    expected = monai_dice_loss(logits, targets) + functional.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(bce_dice_loss(logits, targets), expected)


def test_false_positives_in_slices_without_tumour_are_pushed_down_where_dice_alone_is_blind() -> None:
    logits = batch()[0].requires_grad_()
    empty = torch.zeros_like(logits)
    (ours,) = torch.autograd.grad(bce_dice_loss(logits, empty), logits)
    (dice_alone,) = torch.autograd.grad(SmpDiceLoss(mode="multilabel", from_logits=True)(logits, empty), logits)
    assert (ours > 0).all()
    assert (dice_alone == 0).all()


def test_the_loss_of_bf16_logits_is_computed_in_float32() -> None:
    logits, targets = batch()
    rounded = logits.bfloat16()
    loss = bce_dice_loss(rounded, targets)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, bce_dice_loss(rounded.float(), targets))


def test_region_targets_are_the_region_masks_of_the_labels() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (5, 7, 6)).astype(np.uint8)
    targets = region_targets(torch.from_numpy(labels))
    assert targets.dtype == torch.float32
    expected = np.stack([region_mask(labels, region) for region in REGIONS], axis=1)
    np.testing.assert_array_equal(targets.numpy(), expected)


def test_targets_of_some_regions_are_those_channels_alone() -> None:
    labels = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 4)
    assert region_targets(labels, ["WT"]).tolist() == [[[[0, 1, 1, 1]]]]
    assert torch.equal(region_targets(labels, ["ET", "TC"]), region_targets(labels)[:, [2, 1]])


# Dice alone, and exclusive classes


def test_dice_alone_is_what_the_cross_entropy_leaves_of_both() -> None:
    logits, targets = torch.full((1, 1, 1, 1), math.log(3)), torch.ones(1, 1, 1, 1)
    assert dice_loss(logits, targets).item() == pytest.approx(1 - 2.5 / 2.75)  # probability 0.75
    logits, targets = batch()
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(dice_loss(logits, targets) + cross_entropy, bce_dice_loss(logits, targets))


def test_the_cross_entropy_of_classes_is_the_mean_surprise_of_the_right_ones() -> None:
    logits = torch.log(torch.tensor([[0.7, 0.1], [0.1, 0.2], [0.1, 0.3], [0.1, 0.4]]))[
        None, :, None
    ]  # (1, K, 1, 2)
    targets = torch.tensor([[1.0, 0], [0, 0], [0, 0], [0, 1]])[None, :, None]
    assert cross_entropy_loss(logits, targets).item() == pytest.approx(-(math.log(0.7) + math.log(0.4)) / 2)


@pytest.mark.parametrize("name", get_args(LossName))
def test_every_loss_is_a_finite_float32_scalar_with_a_gradient_also_of_bf16_logits(name: LossName) -> None:
    logits, targets = batch()
    logits = (100 * logits).bfloat16().requires_grad_()
    loss = LOSSES[name](logits, targets / targets.sum(1, keepdim=True).clamp(1))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (loss.dtype, loss.shape) == (torch.float32, ())
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    assert gradient.any()


def test_every_loss_that_may_be_asked_for_is_there() -> None:
    assert set(LOSSES) == set(get_args(LossName))
    assert LOSSES["bce-dice"] is bce_dice_loss
