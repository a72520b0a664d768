"""Feeds: where the slices of a step come from. They stay on the device, or come as a stream; the batches are equal.

Axes: `B` slices of a batch, `C` channel, `H W` slice axes.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from brats.config import TrainConfig
from brats.data.batches import TrainingSet, WorkerBatch
from brats.data.epoch import EpochShard
from brats.data.pool import FLOAT32_BYTES, INT16_BYTES, TrainingVolume
from brats.errors import BratsError, ConfigError, TooLargeError
from brats.model.augment_draw import draw
from brats.model.distributed import Worker
from brats.model.memory import free_bytes
from brats.model.pool import SlicePool
from brats.model.prefetch import pin, prefetched, use_device

GPU_SHARE = 0.6  # of the free memory of a GPU, for resident slices; the rest is for the network and its work
HOST_SHARE = 0.3  # of that of a host: tasks that read, and the object store, take theirs later


@dataclass(frozen=True, kw_only=True)
class StepInput:
    """What one rank takes in one step, as tensors by name whose first axis is B; on the device, or on their way."""

    epoch: int
    step: int
    n_global: int
    tensors: Mapping[str, Tensor]

    @property
    def n_slices(self) -> int:
        return len(self.tensors["parameters"])


@dataclass(frozen=True, kw_only=True)
class RawSlices:
    """Slices as they are stored, on the device, with all that turns them into the network's input.

    images:     (B, C, H, W), raw values, of the channels that are slices of images
    labels:     (B, H, W) uint8
    numbers:    (B, 4, C), of `brats.data.stacks.channel_numbers`
    parameters: (B, P), of `brats.model.augment_draw.draw`
    """

    images: Tensor
    labels: Tensor
    numbers: Tensor
    parameters: Tensor


class Feed(Protocol):
    """The steps of a rank.

    size:    (H, W) of every slice
    endless: whether there is always one more epoch, and not only those that were planned from the start
    """

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def endless(self) -> bool: ...

    def make_ready(self) -> None:
        """Wait until the first step, if there is one, can be taken."""
        ...

    def epoch(self, number: int) -> Iterator[StepInput]:
        """The steps of an epoch, in order; epochs come one after the other. Raises BratsError for a gap."""
        ...

    def slices(self, tensors: Mapping[str, Tensor]) -> RawSlices:
        """The slices of a step whose tensors are on the device: work of the device alone."""
        ...


def draw_parameters(shard: EpochShard, config: TrainConfig) -> npt.NDArray[np.float32]:
    """How each slice of an epoch is augmented, (B, P)."""
    return draw(
        shard.slices,
        seed=config.seed,
        epoch=shard.epoch,
        n_channels=len(config.modalities),
        kind=config.augmentation,
        modality_dropout=config.modality_dropout,
        occurrences=shard.occurrences,
    )


class StreamFeed:
    """Batches as they come, those ahead made ready by a thread: in pinned memory for a GPU."""

    endless = False

    def __init__(
        self, batches: Iterator[WorkerBatch], config: TrainConfig, data: TrainingSet, worker: Worker
    ) -> None:
        self._data = data
        self._inputs: Iterator[StepInput] = prefetched(_step_inputs(batches, config, data, worker), worker.device)

    def make_ready(self) -> None:
        """See `Feed`."""
        self._inputs = itertools.chain(list(itertools.islice(self._inputs, 1)), self._inputs)

    @property
    def size(self) -> tuple[int, int]:
        """See `Feed`."""
        return self._data.size

    def epoch(self, number: int) -> Iterator[StepInput]:
        """See `Feed`."""
        for step in range(self._data.plan.steps_per_epoch):
            found = next(self._inputs, None)
            if found is None:
                raise BratsError(f"the batches end before step {step} of epoch {number}; this is a bug")
            if (found.epoch, found.step) != (number, step):
                raise BratsError(
                    f"batch {found.step} of epoch {found.epoch} came for {step} of {number}; this is a bug"
                )
            yield found

    def slices(self, tensors: Mapping[str, Tensor]) -> RawSlices:
        """See `Feed`."""
        return RawSlices(**tensors)


def _step_inputs(
    batches: Iterator[WorkerBatch], config: TrainConfig, data: TrainingSet, worker: Worker
) -> Iterator[StepInput]:
    """The batches, each with the parameters of its augmentation."""
    shard: EpochShard | None = None
    for batch in batches:
        if shard is None or shard.epoch != batch.epoch:
            shard = EpochShard.of(data.plan.epoch(batch.epoch), worker.rank, worker.world_size)
            parameters = draw_parameters(shard, config)
        slices = batch.slices
        arrays = {
            "images": slices.images,
            "labels": batch.labels,
            "numbers": np.stack([slices.offset, slices.scale, slices.background, slices.tolerance], axis=1),
            "parameters": parameters[shard.step(batch.step)],
        }
        tensors = {name: pin(torch.from_numpy(array), worker.device) for name, array in arrays.items()}
        yield StepInput(epoch=batch.epoch, step=batch.step, n_global=batch.n_global, tensors=tensors)


class ResidentFeed:
    """Slices that stay on the device.

    A thread works out which an epoch takes while the one before it is trained.
    """

    endless = True

    def __init__(self, pool: SlicePool, config: TrainConfig, data: TrainingSet, worker: Worker) -> None:
        self._pool, self._config, self._data, self._worker = pool, config, data, worker
        self._thread = ThreadPoolExecutor(1, initializer=use_device, initargs=(worker.device,))
        self._next: tuple[int, Future[_Table]] | None = None

    def make_ready(self) -> None:
        """See `Feed`: the slices are there."""

    @property
    def size(self) -> tuple[int, int]:
        """See `Feed`."""
        return self._data.size

    def epoch(self, number: int) -> Iterator[StepInput]:
        """See `Feed`."""
        table = self._take(number)
        self._next = (number + 1, self._thread.submit(self._work_out, number + 1))
        device = {name: tensor.to(self._worker.device, non_blocking=True) for name, tensor in table.tensors.items()}
        for step, n_global in enumerate(table.shard.n_global):
            rows = table.shard.step(step)
            tensors = {name: tensor[rows] for name, tensor in device.items()}
            yield StepInput(epoch=number, step=step, n_global=n_global, tensors=tensors)

    def _take(self, number: int) -> "_Table":
        if self._next and self._next[0] == number:
            return self._next[1].result()
        return self._work_out(number)

    def _work_out(self, number: int) -> "_Table":
        worker = self._worker
        shard = EpochShard.of(self._data.plan.epoch(number), worker.rank, worker.world_size)
        numbers = self._pool.numbers[self._pool.layout.cases(shard.slices)]
        arrays: dict[str, npt.NDArray[Any]] = {
            "windows": self._pool.layout.windows(shard.slices),
            "numbers": np.repeat(numbers, len(self._data.inputs.steps), axis=2),
            "parameters": draw_parameters(shard, self._config),
        }
        tensors = {name: pin(torch.from_numpy(array), worker.device) for name, array in arrays.items()}
        return _Table(shard=shard, tensors=tensors)

    def slices(self, tensors: Mapping[str, Tensor]) -> RawSlices:
        """See `Feed`."""
        data, numbers = self._data, tensors["numbers"]
        images, labels = self._pool.gather(tensors["windows"], numbers, data.size, data.inputs.context)
        return RawSlices(images=images, labels=labels, numbers=numbers, parameters=tensors["parameters"])


@dataclass(frozen=True, kw_only=True)
class _Table:
    """What the steps of an epoch take, one row for each slice."""

    shard: EpochShard
    tensors: Mapping[str, Tensor]


def choose_feed(
    config: TrainConfig,
    data: TrainingSet,
    worker: Worker,
    *,
    n_neighbours: int,
    volumes: Callable[[], Iterable[TrainingVolume]],
    batches: Callable[[], Iterator[WorkerBatch]],
    say: Callable[[str], None],
) -> Feed:
    """The feed of a rank: resident where its slices fit into their share of the free memory, else streamed.

    Ranks may choose differently, for both feeds give the same batches.

    n_neighbours: ranks that share the memory of the host; a GPU is a rank's own
    volumes:      every training case once, in any order
    batches:      this rank's shard of every step of every epoch still to come, in order
    say:          told what was chosen, and why

    Raises ConfigError where the slices are to be resident, as those of other planes than axial are, and do not fit.
    """
    layout, n_cases = data.pool_layout(), len(data.plan.cases)
    needed, at_most = layout.n_bytes(INT16_BYTES), allowed_bytes(worker.device, n_neighbours)
    if config.feeding != "streamed" and needed <= at_most:
        try:
            pool = SlicePool.fill(layout, volumes(), worker.device, at_most=at_most)
        except (TooLargeError, torch.OutOfMemoryError):
            needed = layout.n_bytes(FLOAT32_BYTES)
            if worker.device.type == "cuda":
                torch.cuda.empty_cache()  # what was taken so far is free for others
        else:
            say(f"{n_cases} training cases resident in memory: {_gb(pool.n_bytes)}, at most {_gb(at_most)}")
            return ResidentFeed(pool, config, data, worker)
    too_large = f"{n_cases} cases take {_gb(needed)} of memory, more than the {_gb(at_most)} they may have"
    if data.inputs.plane != "axial":
        raise ConfigError(f"--plane: only axial slices can be streamed, and {too_large}; use machines with more")
    if config.feeding == "resident":
        raise ConfigError(f"--feeding: {too_large}; use --feeding streamed")
    say("training slices streamed, read for every step" + (f": {too_large}" if config.feeding == "auto" else ""))
    return StreamFeed(batches(), config, data, worker)


def allowed_bytes(device: torch.device, n_neighbours: int) -> int:
    """How much memory resident slices may take: a share of what is free on a GPU, less of a host's."""
    if device.type == "cuda":
        return int(GPU_SHARE * free_bytes(device))
    return int(HOST_SHARE * free_bytes(device) / n_neighbours)


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB"
