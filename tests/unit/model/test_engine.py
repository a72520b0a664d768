"""The engine: eager and recorded steps are the same, and what it does where something does not fit or go.

`tests.support.recording` stands for CUDA graphs.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from brats.errors import BratsError
from brats.model import engine as engine_module
from brats.model.engine import WARM_UP_STEPS, Engine
from brats.model.feed import ResidentFeed
from brats.model.graph import Work
from brats.model.learner import Learner
from tests.support.prepared import ALONE, CONFIG, INPUTS, resident_feed, tiny_case, write_prepared
from tests.support.recording import Recorder, Replayed

pytestmark = pytest.mark.usefixtures("one_thread")

EPOCHS = 3
BIAS = "segmentation_head.0.bias"


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> ResidentFeed:
    """Three cases of ten slices: steps of 8, 8, 7 and 7."""
    prepared = str(tmp_path_factory.mktemp("prepared"))
    paths = write_prepared(prepared, [tiny_case(f"case{seed}", seed=seed) for seed in range(3)])
    return resident_feed(prepared, paths, CONFIG)


def train(feed: ResidentFeed, learner: Learner, epochs: int = EPOCHS, **options: Any) -> Engine:
    engine = Engine(learner, feed, **options)
    learner.network.train()
    for epoch in range(1, epochs + 1):
        for number, step in enumerate(feed.epoch(epoch)):
            engine.step(step, 1e-2 / (1 + number), 0.5 + number / 10)
    return engine


def new_learner(**options: Any) -> Learner:
    return Learner.of(dataclasses.replace(CONFIG, micro_batch_size=None, **options), INPUTS, ALONE)


# Recorded steps


def test_recorded_steps_leave_the_weights_and_sums_of_eager_ones(feed: ResidentFeed) -> None:
    eager, recorded, recorder = new_learner(), new_learner(), Recorder()
    sums = [train(feed, eager).read_sums(), train(feed, recorded, record=recorder).read_sums()]
    assert sums[0] == sums[1]
    assert sums[0].n_slices == 30 * EPOCHS
    torch.testing.assert_close(recorded.network.state_dict(), eager.network.state_dict(), rtol=0, atol=0)
    assert recorded.average is not None
    assert eager.average is not None
    averages = [average.network.state_dict() for average in (recorded.average, eager.average)]
    torch.testing.assert_close(*averages, rtol=0, atol=0)
    assert not torch.equal(averages[0][BIAS], recorded.network.state_dict()[BIAS])
    torch.testing.assert_close(recorded.optimiser.state_dict(), eager.optimiser.state_dict(), rtol=0, atol=0)


def test_there_is_one_recording_for_each_number_of_slices_made_after_the_warm_up(feed: ResidentFeed) -> None:
    recorder = Recorder()
    train(feed, new_learner(), 1, record=recorder)
    assert recorder.shapes == []  # two steps of either size so far
    assert 2 * 1 < WARM_UP_STEPS <= 2 * 2
    train(feed, new_learner(), record=recorder)
    assert [shapes["windows"] for shapes in recorder.shapes] == [(8, 10), (7, 10)]


@contextmanager
def waiting(_device: torch.device) -> Iterator[None]:
    """Fails as a step does that waits for a GPU where that is refused."""
    yield
    raise RuntimeError("called a synchronizing CUDA operation\nand more")


def breaking_off(learner: Learner) -> Callable[..., Replayed]:
    """A recorder that fails as CUDA graphs do: the error at the end of a recording hides the one that broke it."""

    def record(*_: Any) -> Replayed:
        try:
            learner.scaler.unscale_(learner.optimiser)
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        except RuntimeError:
            raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B904

    return record


@pytest.mark.parametrize(
    ("at_rehearsal", "reason"),
    [
        (True, "called a synchronizing CUDA operation"),
        (False, "operation not permitted when stream is capturing"),
    ],
)
@pytest.mark.parametrize("scaled", [False, True])
def test_a_step_that_cannot_be_recorded_is_said_once_and_taken_all_the_same(
    feed: ResidentFeed, monkeypatch: pytest.MonkeyPatch, at_rehearsal: bool, reason: str, scaled: bool
) -> None:
    """Also where the loss is scaled, and the recording breaks off between unscaling and updating."""
    learners = []
    for _ in range(2):
        worker = dataclasses.replace(ALONE, precision="fp16" if scaled else "fp32")
        learner = Learner.of(dataclasses.replace(CONFIG, micro_batch_size=None), INPUTS, worker)
        learners.append(dataclasses.replace(learner, worker=ALONE))  # fp16 takes a CPU fifteen times as long
    eager, refused = learners
    said: list[str] = []
    expected = train(feed, eager).read_sums()
    if at_rehearsal:
        monkeypatch.setattr(engine_module, "refusing_waits", waiting)
    engine = train(feed, refused, record=breaking_off(refused), say=said.append)
    assert said == [f"a step cannot be recorded as a CUDA graph and is taken kernel by kernel ({reason})"]
    assert engine.read_sums().n_slices == expected.n_slices
    for name, weight in eager.network.named_parameters():
        torch.testing.assert_close(refused.network.get_parameter(name), weight, rtol=0, atol=0)


# Memory


class Greedy(nn.Module):
    """A network for which a GPU has memory for so many slices."""

    def __init__(self, network: nn.Module, most: int) -> None:
        super().__init__()
        self.network, self.most = network, most
        self.seen: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        logits: Tensor = self.network(images)
        return logits


class Crowded(Recorder):
    """Recordings that take the room of one size of steps: another size does not fit beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.held = 0

    def __call__(self, work: Work, tensors: Mapping[str, Tensor]) -> Replayed:
        self.held += 1
        return super().__call__(work, tensors)


class Beside(nn.Module):
    """A network for which there is no memory in its first two passes after the first recording was made."""

    def __init__(self, network: nn.Module, recorder: Crowded) -> None:
        super().__init__()
        self.network, self.recorder, self.failures = network, recorder, 0

    def forward(self, images: Tensor) -> Tensor:
        if self.recorder.held and self.failures < 2 and len(images) == 7:
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        logits: Tensor = self.network(images)
        return logits


def test_recordings_give_way_to_a_step_that_does_not_fit_beside_them_and_are_made_again(feed: ResidentFeed) -> None:
    recorder, said = Crowded(), list[str]()
    learner = new_learner()
    network = Beside(learner.network, recorder)
    train(feed, dataclasses.replace(learner, network=network), record=recorder, say=said.append)
    assert network.failures == 2  # as it is found out whether the step can be recorded, and then
    assert said == []  # nothing was halved
    assert [shapes["windows"][0] for shapes in recorder.shapes].count(8) == 2


def greedy_learner(most: int) -> Learner:
    learner = new_learner()
    return dataclasses.replace(learner, network=Greedy(learner.network, most))


def test_a_share_that_does_not_fit_is_halved_until_it_does_and_stays_so(feed: ResidentFeed) -> None:
    said: list[str] = []
    learner = greedy_learner(most=2)
    before = copy.deepcopy(learner.network.state_dict())
    engine = train(feed, learner, 1, say=said.append)
    assert said == [
        "a step of 8 slices is too large for the GPU: 4 at a time from now on",
        "a step of 8 slices is too large for the GPU: 2 at a time from now on",
    ]
    assert learner.network.seen == [8, 4, *[2] * 4, *[2] * 4, *[2] * 3, 1, *[2] * 3, 1]
    sums = engine.read_sums()
    assert (sums.n_slices, sums.n_bad) == (30, 0)
    assert sums.n_voxels == 30 * 64 * 64
    assert not torch.equal(before[f"network.{BIAS}"], learner.network.state_dict()[f"network.{BIAS}"])


class FailsOnce(nn.Module):
    """A network for whose second pass there is no memory."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.passes = network, 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        if self.passes == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        logits: Tensor = self.network(images)
        return logits


def test_what_was_computed_before_memory_ran_out_is_not_counted_twice(feed: ResidentFeed) -> None:
    step = next(iter(feed.epoch(1)))
    found = []
    for micro_batch_size, network in ((4, FailsOnce), (2, nn.Identity)):
        learner = new_learner()
        config = dataclasses.replace(learner.config, micro_batch_size=micro_batch_size)
        wrapped = learner.network if network is nn.Identity else network(learner.network)
        engine = Engine(dataclasses.replace(learner, config=config, network=wrapped.train()), feed)
        engine.step(step, 1e-3, 0.5)
        found.append(engine.read_sums())
    assert found[0] == found[1]


def test_a_single_slice_that_does_not_fit_ends_the_training_with_one_line(feed: ResidentFeed) -> None:
    with pytest.raises(BratsError, match="one slice does not fit into the memory of the GPU; use a smaller"):
        train(feed, greedy_learner(most=0), 1)


def test_by_default_the_whole_share_is_one_micro_batch(feed: ResidentFeed) -> None:
    learner = greedy_learner(most=100)
    train(feed, learner, 1)
    assert learner.network.seen == [8, 8, 7, 7]


def test_micro_batches_are_no_larger_than_asked_for(feed: ResidentFeed) -> None:
    learner = greedy_learner(most=100)
    learner = dataclasses.replace(learner, config=dataclasses.replace(learner.config, micro_batch_size=3))
    train(feed, learner, 1)
    assert learner.network.seen == [3, 3, 2, 3, 3, 2, 3, 3, 1, 3, 3, 1]
