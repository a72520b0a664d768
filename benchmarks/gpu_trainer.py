"""The engine of training on generated slices, without Ray: what figures and checks of a GPU are taken from."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Literal, Self

import torch
import torch.distributed
from torch import Tensor

from benchmarks.generated import Generated
from brats.config import Precision, TrainConfig
from brats.data.batches import InputSpec, TrainingSet, WorkerBatch
from brats.model.distributed import Worker
from brats.model.engine import WARM_UP_STEPS, Engine
from brats.model.feed import Feed, ResidentFeed, StepInput, StreamFeed
from brats.model.graph import GraphRecorder, Recorder, Recording, Work
from brats.model.learner import Learner
from brats.model.pool import SlicePool
from brats.model.sums import StepSums

Form = Literal["graph", "eager"]
EVERYTHING = 2**63  # bytes that a pool may take: more than there are


@dataclass(frozen=True)
class Redone:
    """Work that is done anew at every replay: stands in for a graph where there is no GPU."""

    work: Work

    def replay(self, tensors: Mapping[str, Tensor]) -> None:
        self.work(tensors)


def redo(work: Work, _tensors: Mapping[str, Tensor]) -> Recording:
    """Record work for a device without graphs."""
    return Redone(work)


def refuse(_work: Work, _tensors: Mapping[str, Tensor]) -> Recording:
    """Record nothing, so that the engine takes its steps kernel by kernel."""
    raise RuntimeError("recording is turned off")


def recorder(form: Form, device: torch.device) -> Recorder:
    """What makes an engine take its steps in this form."""
    if form == "eager":
        return refuse
    return GraphRecorder(device) if device.type == "cuda" else redo


def alone(device: torch.device, precision: Precision) -> Worker:
    """The only worker of a training."""
    return Worker(rank=0, world_size=1, device=device, precision=precision)


@contextmanager
def group_of_one(device: torch.device) -> Iterator[None]:
    """A process group that this process is alone in."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    with TemporaryDirectory() as folder:
        torch.distributed.init_process_group(backend, init_method=f"file://{folder}/group", rank=0, world_size=1)
        try:
            yield
        finally:
            torch.distributed.destroy_process_group()


def resident(generated: Generated, config: TrainConfig, worker: Worker) -> Feed:
    """Slices that stay on the device."""
    data = generated.training_set(config)
    volumes = (data.read_volume(case.case_id) for case in data.plan.cases)
    return ResidentFeed(
        SlicePool.fill(data.pool_layout(), volumes, worker.device, EVERYTHING), config, data, worker
    )


def streamed(generated: Generated, config: TrainConfig, worker: Worker) -> Feed:
    """Slices that come as batches, read while earlier ones are trained on."""
    data = generated.training_set(config)
    return StreamFeed(read_batches(data), config, data, worker)


def streamed_from_memory(generated: Generated, config: TrainConfig, worker: Worker) -> Feed:
    """The batches of the first epoch again and again, read beforehand: the stream is never late."""
    data = generated.training_set(config)
    batches = list(itertools.islice(read_batches(data), data.plan.steps_per_epoch))
    repeated = (dataclasses.replace(batch, epoch=epoch) for epoch in itertools.count(1) for batch in batches)
    return StreamFeed(repeated, config, data, worker)


def read_batches(data: TrainingSet) -> Iterator[WorkerBatch]:
    """Every batch of epoch after epoch, without end, as the only worker gets them."""
    for epoch in itertools.count(1):
        for planned in data.plan.epoch(epoch):
            yield data.read_shard(planned, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """An engine, its feed and what it has said."""

    learner: Learner
    engine: Engine
    inputs: Iterator[StepInput]
    said: list[str]

    @classmethod
    def of(
        cls,
        generated: Generated,
        config: TrainConfig,
        worker: Worker,
        *,
        make_feed: Callable[[Generated, TrainConfig, Worker], Feed] = resident,
        record: Recorder,
    ) -> Self:
        """The trainer of a configuration from its start."""
        learner = Learner.of(config, InputSpec.of(config), worker)
        return cls.around(learner, make_feed(generated, config, worker), record)

    @classmethod
    def around(cls, learner: Learner, feed: Feed, record: Recorder) -> Self:
        said: list[str] = []
        learner.network.train()
        engine = Engine(learner, feed, record=record, say=said.append)
        return cls(learner=learner, engine=engine, inputs=all_steps(feed), said=said)

    def step(self) -> None:
        """Take the next step of the plan."""
        config = self.learner.config
        self.engine.step(next(self.inputs), config.learning_rate, config.ema)

    def sums(self, n_steps: int) -> list[StepSums]:
        """The sums of each of the next steps."""
        found = []
        for _ in range(n_steps):
            self.step()
            found.append(self.engine.read_sums())
        return found

    def losses(self, n_steps: int) -> list[float]:
        """The mean loss of each of the next steps."""
        return [sums.loss_sum / sums.n_slices for sums in self.sums(n_steps)]

    def weights(self) -> Tensor:
        """All parameters in one vector, on the host."""
        return torch.cat([value.detach().reshape(-1).float().cpu() for value in self.learner.network.parameters()])


def all_steps(feed: Feed) -> Iterator[StepInput]:
    """The steps of epoch after epoch, without end."""
    for epoch in itertools.count(1):
        yield from feed.epoch(epoch)


def steady_batch(generated: Generated, config: TrainConfig, n_replays: int) -> int:
    """The first batch size from the configuration's on with which so many steps are replayed before one differs."""
    return _batch_size(generated, config, lambda larger, _smaller: larger >= WARM_UP_STEPS + n_replays)


def uneven_batch(generated: Generated, config: TrainConfig) -> int:
    """The first batch size from the configuration's on that leaves smaller batches, all recorded in two epochs."""
    return _batch_size(generated, config, lambda larger, smaller: 2 * min(larger, smaller) > WARM_UP_STEPS)


def _batch_size(generated: Generated, config: TrainConfig, wanted: Callable[[int, int], bool]) -> int:
    """The first whose epochs have as many larger and smaller batches as is wanted."""
    for batch_size in range(config.batch_size, 4 * config.batch_size):
        plan = generated.training_set(dataclasses.replace(config, batch_size=batch_size)).plan
        larger = plan.slices_per_epoch % plan.steps_per_epoch or plan.steps_per_epoch
        if wanted(larger, plan.steps_per_epoch - larger):
            return batch_size
    raise ValueError(f"no batch size from {config.batch_size} on cuts an epoch as it is needed")
