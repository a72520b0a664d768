"""Feeds: resident and streamed slices are the same, and which one is chosen."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from brats.config import Plane, TrainConfig
from brats.data.batches import TrainingSet, WorkerBatch
from brats.data.epoch import EpochShard, PlannedBatch
from brats.data.planes import in_plane
from brats.data.pool import TrainingVolume
from brats.data.slices import open_slices
from brats.errors import BratsError, ConfigError
from brats.model import feed as feed_module
from brats.model.distributed import Worker
from brats.model.feed import Feed, ResidentFeed, StreamFeed, allowed_bytes, choose_feed
from tests.support.prepared import (
    ALONE,
    CONFIG,
    CPU,
    MODALITIES,
    epochs,
    resident_feed,
    stream_feed,
    tiny_case,
    training_set,
    write_prepared,
)

pytestmark = pytest.mark.usefixtures("one_thread")

FIELDS = ("images", "labels", "numbers", "parameters")


@dataclasses.dataclass(frozen=True)
class Data:
    prepared: str
    paths: list[str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Three cases, one of them of floating-point numbers, of 30 slices: 4 steps an epoch."""
    prepared = str(tmp_path_factory.mktemp("prepared"))
    cases = [tiny_case(f"case{seed}", seed=seed) for seed in (1, 2)]
    cases.append(tiny_case("case3", seed=3, dtypes={"flair": "float32"}))
    return Data(prepared, write_prepared(prepared, cases))


def seen(feed: Feed, epoch: int) -> list[dict[str, torch.Tensor]]:
    """What the steps of an epoch are computed from; raw values as float32, which holds both of their types."""
    found = []
    for step in feed.epoch(epoch):
        slices = feed.slices(step.tensors)
        found.append({name: getattr(slices, name).float() for name in FIELDS})
    return found


# The same slices


@pytest.mark.parametrize(("rank", "world_size", "context"), [(0, 1, 0), (0, 2, 0), (1, 2, 0), (0, 1, 1), (1, 2, 2)])
def test_resident_slices_are_those_of_the_stream(data: Data, rank: int, world_size: int, context: int) -> None:
    worker = Worker(rank=rank, world_size=world_size, device=CPU, precision="fp32")
    config = dataclasses.replace(CONFIG, augmentation="full", context=context)
    resident = resident_feed(data.prepared, data.paths, config, worker=worker)  # first: streams read in a thread
    training = training_set(data.prepared, data.paths, config)
    batches = (
        training.read_shard(planned, rank, world_size) for epoch in (1, 2) for planned in training.plan.epoch(epoch)
    )
    streamed = stream_feed(data.prepared, data.paths, config, worker=worker, batches=batches)
    for epoch in (1, 2):
        torch.testing.assert_close(seen(resident, epoch), seen(streamed, epoch), rtol=0, atol=0)


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
def test_resident_slices_of_another_plane_are_those_of_its_cases(data: Data, plane: Plane) -> None:
    config = dataclasses.replace(CONFIG, augmentation="none", plane=plane, context=1)
    feed = resident_feed(data.prepared, data.paths, config)
    training = training_set(data.prepared, data.paths, config)
    cases = {case.case_id: case for case in (open_slices(path).read_case() for path in data.paths)}
    height, width = training.shapes[0][1:]
    assert (height, width) == {"coronal": (10, 40), "sagittal": (10, 36)}[plane]
    for step, planned in zip(feed.epoch(1), training.plan.epoch(1), strict=True):
        slices = feed.slices(step.tensors)
        for number, (case_id, row) in enumerate(planned.slices):
            for modality, name in enumerate(MODALITIES):
                expected = in_plane(cases[case_id].images[name], plane)[row]
                found = slices.images[number, 3 * modality + 1, :height, :width]
                np.testing.assert_array_equal(found.numpy(), expected)
            labels = in_plane(np.asarray(cases[case_id].labels), plane)
            np.testing.assert_array_equal(slices.labels[number, :height, :width].numpy(), labels[row])


def test_steps_say_which_they_are_and_how_many_slices_all_ranks_take(data: Data) -> None:
    worker = Worker(rank=1, world_size=2, device=CPU, precision="fp32")
    for feed in (
        resident_feed(data.prepared, data.paths, CONFIG, worker=worker),
        stream_feed(data.prepared, data.paths, CONFIG, worker=worker),
    ):
        steps = list(feed.epoch(1))
        assert [(step.epoch, step.step) for step in steps] == [(1, number) for number in range(4)]
        assert sum(step.n_global for step in steps) == 30
        assert [step.n_slices for step in steps] == [step.n_global - step.n_global // 2 for step in steps]


def test_a_slice_is_augmented_alike_whichever_rank_takes_it(data: Data) -> None:
    config = dataclasses.replace(CONFIG, augmentation="full")
    whole = seen(resident_feed(data.prepared, data.paths, config), 1)
    ranks = [Worker(rank=rank, world_size=2, device=CPU, precision="fp32") for rank in (0, 1)]
    halves = [seen(resident_feed(data.prepared, data.paths, config, worker=rank), 1) for rank in ranks]
    for one, first, second in zip(whole, *halves, strict=True):
        for name in FIELDS:
            assert torch.equal(one[name], torch.cat([first[name], second[name]]))


def test_epochs_of_resident_slices_may_be_left_and_begun_anywhere(data: Data) -> None:
    feed = resident_feed(data.prepared, data.paths, CONFIG)
    second = seen(resident_feed(data.prepared, data.paths, CONFIG), 2)
    next(iter(feed.epoch(1)))
    torch.testing.assert_close(seen(feed, 2), second, rtol=0, atol=0)


# A stream with a fault


def batches_of(data: Data) -> list[WorkerBatch]:
    return list(epochs(data.prepared, data.paths, CONFIG))


def test_a_stream_that_ends_too_soon_is_said_to(data: Data) -> None:
    feed = stream_feed(data.prepared, data.paths, CONFIG, batches=iter(batches_of(data)[:2]))
    with pytest.raises(BratsError, match="the batches end before step 2 of epoch 1; this is a bug"):
        list(feed.epoch(1))


def test_a_batch_out_of_turn_is_refused(data: Data) -> None:
    first, _, third, *_ = batches_of(data)
    feed = stream_feed(data.prepared, data.paths, CONFIG, batches=iter([first, third]))
    with pytest.raises(BratsError, match="batch 2 of epoch 1 came for 1 of 1; this is a bug"):
        list(feed.epoch(1))


# The choice


def choice(data: Data, monkeypatch: pytest.MonkeyPatch, *, allowed: int, **options: Any) -> tuple[Feed, list[str]]:
    """The feed chosen where resident slices may take so many bytes, and what was said of it."""
    said: list[str] = []
    config: TrainConfig = dataclasses.replace(CONFIG, **options)
    training: TrainingSet = training_set(data.prepared, data.paths, config)
    monkeypatch.setattr(feed_module, "allowed_bytes", lambda *_: allowed)

    def volumes() -> Iterator[TrainingVolume]:
        return (training.read_volume(case.case_id) for case in training.plan.cases)

    feed = choose_feed(
        config, training, ALONE, n_neighbours=1, volumes=volumes, batches=lambda: iter(()), say=said.append
    )
    return feed, said


N_VOXELS = 3 * 10 * 40 * 36
AS_INT16, TURNED_INTO_FLOAT32 = N_VOXELS * (2 * 2 + 1), N_VOXELS * (2 * (2 + 4) + 1)


def test_slices_that_fit_are_resident(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    feed, said = choice(data, monkeypatch, allowed=TURNED_INTO_FLOAT32)
    assert isinstance(feed, ResidentFeed)
    assert said == ["3 training cases resident in memory: 0.00 GB, at most 0.00 GB"]


@pytest.mark.parametrize("allowed", [AS_INT16 - 1, TURNED_INTO_FLOAT32 - 1])
def test_slices_that_do_not_fit_are_streamed(data: Data, monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
    """With the larger allowance it is found out only when the case of floating-point numbers has come."""
    feed, said = choice(data, monkeypatch, allowed=allowed)
    assert isinstance(feed, StreamFeed)
    assert said[0].startswith(
        "training slices streamed, read for every step: 3 cases take 0.00 GB of memory, more than"
    )


def test_slices_are_streamed_where_that_is_asked_for(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    feed, said = choice(data, monkeypatch, allowed=TURNED_INTO_FLOAT32, feeding="streamed")
    assert isinstance(feed, StreamFeed)
    assert said == ["training slices streamed, read for every step"]


def test_slices_that_are_to_be_resident_and_do_not_fit_are_refused(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"--feeding: 3 cases take .* use --feeding streamed"):
        choice(data, monkeypatch, allowed=0, feeding="resident")


@pytest.mark.parametrize("feeding", ["auto", "resident"])
def test_slices_of_another_plane_that_do_not_fit_are_refused(
    data: Data, monkeypatch: pytest.MonkeyPatch, feeding: str
) -> None:
    with pytest.raises(
        ConfigError, match=r"^--plane: only axial slices .* and 3 cases take .* use machines with more"
    ):
        choice(data, monkeypatch, allowed=0, feeding=feeding, plane="coronal")


def test_neighbours_take_no_memory_of_their_own(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    feed, _ = choice(data, monkeypatch, allowed=TURNED_INTO_FLOAT32, context=2, extra_channels=("foreground",))
    assert isinstance(feed, ResidentFeed)


def test_ranks_of_one_host_divide_its_memory_and_a_gpu_is_of_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "free_bytes", lambda _: 1000)
    assert (allowed_bytes(CPU, 1), allowed_bytes(CPU, 3)) == (300, 100)
    assert allowed_bytes(torch.device("cuda"), 3) == 600


def test_shard_of_an_epoch_counts_how_often_a_slice_came_before_on_any_rank() -> None:
    steps = [(("a", 1), ("a", 1), ("b", 0)), (("a", 1), ("b", 0))]
    batches = [PlannedBatch(3, number, slices) for number, slices in enumerate(steps)]
    first, second = (EpochShard.of(batches, rank, 2) for rank in (0, 1))
    assert first.slices == (("a", 1), ("a", 1))
    assert first.occurrences == (0, 2)
    assert second.slices == (("a", 1), ("b", 0), ("b", 0))
    assert second.occurrences == (1, 0, 1)
    assert [second.step(number) for number in (0, 1)] == [slice(0, 2), slice(2, 3)]
    assert first.n_global == (3, 2)
