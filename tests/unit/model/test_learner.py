"""A learner: its gradients, one step of it, and how it goes on from a checkpoint."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from brats.data.batches import WorkerBatch
from brats.model.inputs import training_tensors
from brats.model.learner import Learner
from brats.model.losses import bce_dice_loss
from tests.support.prepared import ALONE, CONFIG, CPU, INPUTS, epochs, learner_of, tiny_case, write_prepared

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> list[WorkerBatch]:
    """The first two batches of an epoch, of eight slices each."""
    prepared = str(tmp_path_factory.mktemp("prepared"))
    paths = write_prepared(prepared, [tiny_case(f"train{seed}", seed=seed) for seed in range(3)])
    stream = epochs(prepared, paths, CONFIG)
    return [next(stream), next(stream)]


def small_network() -> nn.Module:
    """With BatchNorm, and quick."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1))


def gradients(network: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


def weights(network: nn.Module) -> Tensor:
    """All of them, as one vector; a copy."""
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


# Gradients


@pytest.mark.parametrize(("micro_batch_size", "sizes"), [(8, [8]), (7, [4, 4]), (3, [3, 3, 2]), (1, [1] * 8)])
def test_each_micro_batch_weighs_as_many_slices_as_it_has(
    batches: list[WorkerBatch], micro_batch_size: int, sizes: list[int]
) -> None:
    config, batch = dataclasses.replace(CONFIG, micro_batch_size=micro_batch_size), batches[0]
    expected, network = small_network(), small_network()
    images, targets = training_tensors(batch, config.seed, CPU)
    loss_sum = 0.0
    for part, target in zip(images.split(sizes), targets.split(sizes), strict=True):
        loss = bce_dice_loss(expected(part), target)
        (loss * len(part) / 8).backward()
        loss_sum += loss.item() * len(part)
    found = learner_of(network, config=config).accumulate_gradients(batch)
    assert found.item() == pytest.approx(loss_sum, rel=1e-6)
    torch.testing.assert_close(gradients(network), gradients(expected), rtol=1e-5, atol=1e-7)


# One step


def test_a_long_gradient_is_scaled_down_to_the_clip_norm(batches: list[WorkerBatch]) -> None:
    network = small_network()
    before = weights(network)
    _, norm = learner_of(network, config=dataclasses.replace(CONFIG, clip_norm=1e-3)).step(batches[0], 0.5)
    assert norm > 1e-2  # as it was before
    assert (weights(network) - before).norm().item() == pytest.approx(0.5 * 1e-3, rel=1e-3)


def test_a_short_gradient_is_left_alone(batches: list[WorkerBatch]) -> None:
    network, other = small_network(), small_network()
    before = weights(network)
    loss_sum, norm = learner_of(network, config=dataclasses.replace(CONFIG, clip_norm=1e6)).step(batches[0], 0.5)
    expected_loss = learner_of(other).accumulate_gradients(batches[0])
    expected = torch.cat([gradient.flatten() for gradient in gradients(other)])
    torch.testing.assert_close(weights(network) - before, -0.5 * expected, rtol=1e-4, atol=1e-7)
    assert torch.equal(loss_sum, expected_loss)
    torch.testing.assert_close(norm, expected.norm())


def test_a_step_leaves_no_gradient_to_the_next(batches: list[WorkerBatch]) -> None:
    network = small_network()
    learner_of(network).step(batches[0], 0.5)
    assert gradients(network) == []


# From the start and from a checkpoint


def states(learner: Learner) -> tuple[dict[str, Any], dict[str, Any]]:
    return learner.network.state_dict(), learner.optimiser.state_dict()


def test_learners_of_one_seed_begin_with_the_same_weights_and_of_another_with_others() -> None:
    first, again, other = (
        Learner.of(dataclasses.replace(CONFIG, seed=seed), INPUTS, ALONE).network for seed in (0, 0, 1)
    )
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


def test_a_learner_of_a_checkpoint_takes_the_next_step_as_the_one_that_wrote_it(
    batches: list[WorkerBatch],
) -> None:
    learner = Learner.of(CONFIG, INPUTS, ALONE)
    learner.step(batches[0], 1e-2)
    written = learner.checkpoint([{"epoch": 1, "val_dice": 0.5}])
    assert written.history == [{"epoch": 1, "val_dice": 0.5}]
    kept = copy.deepcopy(written)  # its tensors are those of the learner, which goes on
    resumed = Learner.of(dataclasses.replace(CONFIG, seed=1), INPUTS, ALONE, kept)
    torch.testing.assert_close(states(resumed), states(learner), rtol=0, atol=0)
    for one in (learner, dataclasses.replace(resumed, config=CONFIG)):
        one.step(batches[1], 1e-2)
    torch.testing.assert_close(states(resumed), states(learner), rtol=0, atol=0)


def test_only_fp16_scales_the_loss_and_a_run_without_a_scale_begins_with_one() -> None:
    exact = Learner.of(CONFIG, INPUTS, ALONE)
    assert not exact.scaler.is_enabled()
    halves = dataclasses.replace(ALONE, precision="fp16")
    resumed = Learner.of(CONFIG, INPUTS, halves, exact.checkpoint([{"epoch": 1, "val_dice": 0.5}]))
    assert resumed.scaler.is_enabled()
    assert resumed.scaler.get_scale() == 65536


def test_validation_uses_the_network_in_training_and_the_arithmetic_of_the_worker() -> None:
    learner = learner_of(small_network(), worker=dataclasses.replace(ALONE, precision="bf16"))
    segmenter = learner.segmenter()
    assert segmenter.network is learner.network
    assert (segmenter.inputs, segmenter.device, segmenter.precision) == (INPUTS, CPU, "bf16")
    assert list(segmenter.thresholds) == [0.5, 0.5, 0.5]
