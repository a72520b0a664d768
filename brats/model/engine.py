"""The engine: takes the steps of a learner, recorded as CUDA graphs on a GPU, in micro-batches that fit it."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from brats.errors import BratsError
from brats.model.feed import Feed, StepInput
from brats.model.graph import GraphRecorder, Recorder, Recording, refusing_waits
from brats.model.learner import Learner
from brats.model.memory import is_out_of_memory
from brats.model.sums import StepSums

WARM_UP_STEPS = 3  # done step by step before one is recorded: libraries choose and set up what they use

Key = tuple[Any, ...]
"""What a recording is made for: slices of the global batch, shape and dtype of each tensor. An epoch has few."""


class Engine:
    """Takes the optimiser steps of one rank.

    A rank's whole shard is one micro-batch, unless `config.micro_batch_size` or the memory of the GPU allows
    fewer slices: then it is halved until it fits.
    """

    def __init__(
        self,
        learner: Learner,
        feed: Feed,
        *,
        record: Recorder | None = None,
        say: Callable[[str], None] = lambda _message: None,
    ) -> None:
        """
        record: what records work; by default CUDA graphs on a GPU, nothing elsewhere
        say:    told what was found out about the GPU
        """
        self._learner, self._feed, self._say = learner, feed, say
        device = learner.worker.device
        self._record = record or (GraphRecorder(device) if device.type == "cuda" else None)
        self._micro_batch_size = learner.config.micro_batch_size
        self._n_done: dict[Key, int] = {}
        self._recorded: dict[Key, Recording] = {}
        self._update: Recording | None = None

    def step(self, batch: StepInput, learning_rate: float, decay: float) -> None:
        """Take an optimiser step; what came of it is added to the sums.

        decay: how much of the average of the weights is kept
        """
        learner = self._learner
        learner.set_rates(learning_rate, decay)
        key = (batch.n_global, *((tensor.shape, tensor.dtype) for tensor in batch.tensors.values()))
        n_done = self._n_done.get(key, 0)
        if self._record and key not in self._recorded and n_done >= WARM_UP_STEPS:
            self._try_to_record(batch, key)
        if recording := self._recorded.get(key):
            recording.replay(batch.tensors)
            if self._update:
                learner.exchange()
                self._update.replay({})
        else:
            if not (n_done == WARM_UP_STEPS - 1 and self._rehearsed(batch)):
                self._compute_in_memory(batch)
            learner.exchange()
            learner.update()
        self._n_done[key] = n_done + 1
        learner.sums.count(batch.n_slices, math.prod(self._feed.size))

    def read_sums(self) -> StepSums:
        """The sums of this rank's steps since the last reading; waits for the device."""
        return self._learner.sums.read()

    def _rehearsed(self, batch: StepInput) -> bool:
        """Compute the gradients as they would be recorded; return whether that worked."""
        if not self._record:
            return False
        try:
            with refusing_waits(self._learner.worker.device):
                self._compute(batch.tensors, batch.n_global)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                self._give_up(error)
            return False
        return True

    def _compute_in_memory(self, batch: StepInput) -> None:
        """Compute the gradients, in smaller micro-batches from now on where the memory of the GPU demands it."""
        while True:
            try:
                self._compute(batch.tensors, batch.n_global)
                return
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._check_divisible(batch, error)
            # After the `except` block, where the error and the tensors that it refers to are gone.
            self._make_room(batch)

    def _check_divisible(self, batch: StepInput, error: RuntimeError) -> None:
        """Raise BratsError where not even one slice fits, and no recording takes its room."""
        if not self._recorded and min(self._micro_batch_size or batch.n_slices, batch.n_slices) == 1:
            raise BratsError(
                "one slice does not fit into the memory of the GPU; use a smaller --encoder or --decoder-channels, "
                "or a GPU with more memory"
            ) from error

    def _make_room(self, batch: StepInput) -> None:
        """Give up the memory of recordings, to be made again, or else halve the micro-batch."""
        if self._recorded:
            self._recorded.clear()
            self._update = None
        else:
            self._micro_batch_size = -(-min(self._micro_batch_size or batch.n_slices, batch.n_slices) // 2)
            self._say(
                f"a step of {batch.n_slices} slices is too large for the GPU: {self._micro_batch_size} at a time "
                "from now on"
            )
        if self._learner.worker.device.type == "cuda":
            torch.cuda.empty_cache()

    def _compute(self, tensors: Mapping[str, Tensor], n_global: int) -> None:
        device = self._learner.worker.device
        here = {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
        slices = self._feed.slices(here)
        self._learner.compute(slices, n_global, self._micro_batch_size or len(slices.labels))

    def _try_to_record(self, batch: StepInput, key: Key) -> None:
        """Record a step like this one. Where that cannot be done, steps are taken one by one for good."""
        assert self._record is not None
        alone = self._learner.worker.world_size == 1

        def work(tensors: Mapping[str, Tensor]) -> None:
            self._compute(tensors, batch.n_global)
            if alone:
                self._learner.update()

        try:
            with capturable(self._learner.optimiser):
                recording = self._record(work, batch.tensors)
                if not alone and self._update is None:  # the exchange between them is not recorded
                    self._update = self._record(lambda _: self._learner.update(), {})
        except RuntimeError as error:
            self._give_up(error)
        else:
            self._recorded[key] = recording

    def _give_up(self, error: RuntimeError) -> None:
        """Record nothing any more, whatever the size of a step."""
        self._record = self._update = None
        self._recorded.clear()
        scaler = self._learner.scaler
        if scaler.is_enabled():
            scaler.update(scaler.get_scale())  # it may have been left in the middle of a step
        cause = error.__context__ or error  # ending a recording that failed raises an error of its own
        reason = "its memory does not hold both" if is_out_of_memory(error) else str(cause).partition("\n")[0]
        self._say(f"a step cannot be recorded as a CUDA graph and is taken kernel by kernel ({reason})")


@contextmanager
def capturable(optimiser: torch.optim.Optimizer) -> Iterator[None]:
    """Inside, the optimiser takes its step to be captured. Outside, torch would warn of every step that is not."""
    groups = [group for group in optimiser.param_groups if "capturable" in group]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in groups:
            group["capturable"] = False
