"""A learner: its gradients, one step of it, and how it goes on from a checkpoint."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from brats.config import LossName, OptimiserName, OutputKind
from brats.model.augment import noise_table
from brats.model.decoding import Decoding
from brats.model.feed import RawSlices, ResidentFeed, StepInput
from brats.model.inputs import training_tensors
from brats.model.learner import Learner
from brats.model.losses import LOSSES, bce_dice_loss, region_targets
from brats.model.outputs import OutputSpec
from tests.support.prepared import (
    ALONE,
    CONFIG,
    CPU,
    INPUTS,
    learner_of,
    resident_feed,
    step_inputs,
    tiny_case,
    write_prepared,
)

pytestmark = pytest.mark.usefixtures("one_thread")

NOISE = noise_table(CONFIG.seed, CPU)


@dataclasses.dataclass(frozen=True)
class Data:
    """A feed and the first two steps of an epoch, of eight slices each."""

    feed: ResidentFeed
    steps: list[StepInput]

    def slices(self, number: int = 0) -> RawSlices:
        return self.feed.slices(self.steps[number].tensors)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    prepared = str(tmp_path_factory.mktemp("prepared"))
    paths = write_prepared(prepared, [tiny_case(f"train{seed}", seed=seed) for seed in range(3)])
    feed = resident_feed(prepared, paths, CONFIG)
    return Data(feed, step_inputs(feed)[:2])


def small_network() -> nn.Module:
    """With BatchNorm, and quick."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1))


def gradients(network: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


def weights(network: nn.Module) -> Tensor:
    """All of them, as one vector; a copy."""
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def take_step(learner: Learner, slices: RawSlices, learning_rate: float, decay: float = 0.5) -> None:
    learner.set_rates(learning_rate, decay)
    learner.compute(slices, 8, 8)
    learner.exchange()
    learner.update()


# Gradients


@pytest.mark.parametrize(("micro_batch_size", "sizes"), [(8, [8]), (7, [4, 4]), (3, [3, 3, 2]), (1, [1] * 8)])
def test_each_micro_batch_weighs_as_many_slices_as_it_has(
    data: Data, micro_batch_size: int, sizes: list[int]
) -> None:
    expected, network = small_network(), small_network()
    images, labels = training_tensors(data.slices(), NOISE, CONFIG.augmentation, INPUTS)
    loss_sum = 0.0
    for part, target in zip(images.split(sizes), region_targets(labels).split(sizes), strict=True):
        loss = bce_dice_loss(expected(part), target)
        (loss * len(part) / 8).backward()
        loss_sum += loss.item() * len(part)
    learner = learner_of(network)
    learner.compute(data.slices(), 8, micro_batch_size)
    assert learner.sums.read().loss_sum == pytest.approx(loss_sum, rel=1e-6)
    torch.testing.assert_close(gradients(network), gradients(expected), rtol=1e-5, atol=1e-7)


def test_computing_again_does_not_add_to_the_gradient_of_before(data: Data) -> None:
    network = small_network()
    learner = learner_of(network)
    learner.compute(data.slices(), 8, 8)
    once = gradients(network)
    learner.compute(data.slices(), 8, 8)
    torch.testing.assert_close(gradients(network), once, rtol=0, atol=0)


# One step


def test_a_long_gradient_is_scaled_down_to_the_clip_norm(data: Data) -> None:
    network = small_network()
    before = weights(network)
    take_step(learner_of(network, config=dataclasses.replace(CONFIG, clip_norm=1e-3)), data.slices(), 0.5)
    assert (weights(network) - before).norm().item() == pytest.approx(0.5 * 1e-3, rel=1e-3)


def test_a_short_gradient_is_left_alone(data: Data) -> None:
    network, other = small_network(), small_network()
    before = weights(network)
    take_step(learner_of(network, config=dataclasses.replace(CONFIG, clip_norm=1e6)), data.slices(), 0.5)
    learner_of(other).compute(data.slices(), 8, 8)
    expected = torch.cat([gradient.flatten() for gradient in gradients(other)])
    torch.testing.assert_close(weights(network) - before, -0.5 * expected, rtol=1e-4, atol=1e-7)


def test_a_gradient_that_is_not_finite_is_counted(data: Data) -> None:
    learner = learner_of(small_network())
    take_step(learner, data.slices(), 0.0)
    assert learner.sums.read().n_bad == 0
    slices = data.slices()
    take_step(learner, dataclasses.replace(slices, numbers=slices.numbers * float("nan")), 0.0)
    assert learner.sums.read().n_bad == 1


# The average


def test_after_two_steps_the_average_is_what_is_computed_by_hand(data: Data) -> None:
    learner = learner_of(small_network())
    assert learner.average is not None
    expected = {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}
    for number, decay in enumerate((0.1, 0.75)):
        take_step(learner, data.slices(number), 0.5, decay)
        for name, tensor in learner.network.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * tensor
    averaged = learner.average.network.state_dict()
    assert sum("running" in name for name in averaged) == 2
    torch.testing.assert_close(
        {name: averaged[name] for name in averaged if "num_batches" not in name},
        {name: expected[name] for name in averaged if "num_batches" not in name},
    )
    assert not torch.equal(weights(learner.average.network), weights(learner.network))


def test_without_a_decay_no_average_is_kept(data: Data) -> None:
    learner = learner_of(small_network(), config=dataclasses.replace(CONFIG, ema=0))
    take_step(learner, data.slices(), 0.5)
    assert learner.average is None
    assert learner.segmenter().network is learner.network
    written = learner.checkpoint([{"epoch": 1, "val_dice": 0.5}])
    assert written.average is None
    assert written.validated is written.weights


# From the start and from a checkpoint


def states(learner: Learner) -> tuple[dict[str, Any], ...]:
    assert learner.average is not None
    averaged = learner.average.network.state_dict()
    return learner.network.state_dict(), averaged, learner.optimiser.state_dict()["state"]


def test_learners_of_one_seed_begin_with_the_same_weights_and_of_another_with_others() -> None:
    first, again, other = (
        Learner.of(dataclasses.replace(CONFIG, seed=seed), INPUTS, ALONE).network for seed in (0, 0, 1)
    )
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


def test_a_learner_of_a_checkpoint_takes_the_next_step_as_the_one_that_wrote_it(data: Data) -> None:
    learner = Learner.of(CONFIG, INPUTS, ALONE)
    take_step(learner, data.slices(0), 1e-2)
    written = learner.checkpoint([{"epoch": 1, "val_dice": 0.5}])
    assert written.history == [{"epoch": 1, "val_dice": 0.5}]
    assert written.validated is written.average
    kept = copy.deepcopy(written)  # its tensors are those of the learner, which goes on
    resumed = Learner.of(CONFIG, INPUTS, ALONE, kept)
    torch.testing.assert_close(states(resumed), states(learner), rtol=0, atol=0)
    for one in (learner, resumed):
        take_step(one, data.slices(1), 2e-2)
    torch.testing.assert_close(states(resumed), states(learner), rtol=0, atol=0)


def test_only_fp16_scales_the_loss_and_a_run_without_a_scale_begins_with_one() -> None:
    exact = Learner.of(CONFIG, INPUTS, ALONE)
    assert not exact.scaler.is_enabled()
    halves = dataclasses.replace(ALONE, precision="fp16")
    resumed = Learner.of(CONFIG, INPUTS, halves, exact.checkpoint([{"epoch": 1, "val_dice": 0.5}]))
    assert resumed.scaler.is_enabled()
    assert resumed.scaler.get_scale() == 65536


@pytest.mark.parametrize(
    ("optimiser", "decay", "expected_class", "expected"),
    [
        ("adamw", None, torch.optim.AdamW, 0.01),
        ("adam", None, torch.optim.Adam, 0),
        ("adam", 0.5, torch.optim.Adam, 0.5),
    ],
)
def test_the_optimiser_is_the_one_that_is_named_with_its_own_weight_decay(
    optimiser: OptimiserName, decay: float | None, expected_class: type, expected: float
) -> None:
    config = dataclasses.replace(CONFIG, optimiser=optimiser, weight_decay=decay)
    learner = Learner.of(config, INPUTS, ALONE)
    assert type(learner.optimiser) is expected_class
    assert learner.optimiser.param_groups[0]["weight_decay"] == expected


def test_dropout_is_that_of_the_configuration() -> None:
    learner = Learner.of(dataclasses.replace(CONFIG, dropout=0.25), INPUTS, ALONE)
    assert [module.p for module in learner.network.modules() if isinstance(module, nn.Dropout)] == [0.25]


@pytest.mark.parametrize(
    ("outputs", "loss"), [("classes", "cross-entropy"), ("whole-tumour", "dice"), ("whole-tumour", "bce-dice")]
)
def test_a_step_of_every_kind_of_outputs_minimises_its_loss_of_its_targets(
    data: Data, outputs: OutputKind, loss: LossName
) -> None:
    config = dataclasses.replace(CONFIG, outputs=outputs, loss=loss, augmentation="none")
    learner = Learner.of(config, INPUTS, ALONE)
    slices = data.slices()
    learner.compute(slices, len(slices.labels), len(slices.labels))
    images, labels = training_tensors(slices, learner.noise, "none", INPUTS)
    logits = learner.network(images)
    expected = LOSSES[loss](logits, OutputSpec(outputs).targets(labels)).item()
    assert learner.sums.read().loss_sum / len(labels) == pytest.approx(expected, rel=1e-4)
    assert learner.gradients.flat.any()
    assert learner.segmenter().outputs == OutputSpec(outputs)
    assert learner.segmenter().outputs == OutputSpec(outputs)


def test_validation_uses_the_average_and_the_arithmetic_of_the_worker() -> None:
    learner = learner_of(small_network(), worker=dataclasses.replace(ALONE, precision="bf16"))
    segmenter = learner.segmenter()
    assert learner.average is not None
    assert segmenter.network is learner.average.network
    assert (segmenter.inputs, segmenter.device, segmenter.precision) == (INPUTS, CPU, "bf16")
    assert segmenter.decoding == Decoding()
