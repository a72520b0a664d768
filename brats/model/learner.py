"""Learner: a network in training, its distributed wrapper, optimiser and loss scaler, and one step of it.

Axes: `B` batch, `C` channel, `R` region (WT, TC, ET), `H W` slice axes.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from brats.config import TrainConfig
from brats.data.batches import InputSpec, WorkerBatch
from brats.model.checkpoint import Checkpoint
from brats.model.distributed import Worker, parallel
from brats.model.history import HistoryRow
from brats.model.inference import Segmenter
from brats.model.inputs import training_tensors
from brats.model.losses import LOSSES, Loss
from brats.model.precision import autocast
from brats.model.sums import StepSums, SumsOnDevice
from brats.model.unet import build_unet, freeze_unused


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A network in training.

    model: the network as it is called in training: itself, or wrapped so that gradients are all-reduced
    """

    config: TrainConfig
    inputs: InputSpec
    worker: Worker
    network: nn.Module
    model: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loss: Loss
    sums: SumsOnDevice

    @classmethod
    def of(
        cls, config: TrainConfig, inputs: InputSpec, worker: Worker, checkpoint: Checkpoint | None = None
    ) -> Self:
        """The learner of a configuration, as a checkpoint left it, or from the start.

        The same on every rank. Raises ConfigError where the network cannot be built.
        """
        torch.manual_seed(config.seed)
        network = build_unet(
            encoder=config.encoder,
            n_channels=inputs.n_channels,
            decoder_channels=config.decoder_channels,
            encoder_weights=None if checkpoint else config.encoder_weights,  # a resumed run downloads nothing
        ).to(worker.device)
        freeze_unused(network, inputs.n_channels)
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        scaler = torch.amp.GradScaler(worker.device.type, enabled=worker.precision == "fp16")
        if checkpoint:
            network.load_state_dict(checkpoint.weights)
            optimiser.load_state_dict(checkpoint.optimiser)
            if checkpoint.scaler:  # empty where the run did not use fp16 so far
                scaler.load_state_dict(checkpoint.scaler)
        return cls(
            config=config,
            inputs=inputs,
            worker=worker,
            network=network,
            model=parallel(network, worker),
            optimiser=optimiser,
            scaler=scaler,
            loss=LOSSES[config.loss],
            sums=SumsOnDevice(worker.device),
        )

    def step(self, batch: WorkerBatch, learning_rate: float) -> tuple[Tensor, Tensor]:
        """One optimiser step; return this rank's sum of losses over its slices, and the norm of the gradient.

        Both stay on the device: looking at them would wait for it.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        loss_sum = self.accumulate_gradients(batch)
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.sums.add_norm(norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        return loss_sum, norm

    def accumulate_gradients(self, batch: WorkerBatch) -> Tensor:
        """Add the gradient of the mean loss of the global batch; return the sum of losses of this rank's slices.

        The shard is run in micro-batches. Each weighs as many slices as it has, so the gradient does not depend on
        which rank runs which micro-batch. (Dice and BatchNorm are taken over a micro-batch, so it does depend, a
        little, on how the global batch is cut into them.)
        """
        inputs, targets = training_tensors(batch, self.config.seed, self.worker.device)
        n_chunks = -(-len(inputs) // self.config.micro_batch_size)
        loss_sum = torch.zeros((), device=self.worker.device)
        chunks = zip(inputs.chunk(n_chunks), targets.chunk(n_chunks), strict=True)
        for number, (some_inputs, some_targets) in enumerate(chunks, start=1):
            with self._unsynchronised() if number < n_chunks else nullcontext():
                with autocast(self.worker.precision, self.worker.device):
                    logits = self.model(some_inputs)
                loss = self.loss(logits, some_targets)
                # The ranks' gradients are averaged, not summed: hence times world_size.
                weight = len(some_inputs) / batch.n_global * self.worker.world_size
                self.scaler.scale(loss * weight).backward()
            loss_sum += loss.detach() * len(some_inputs)
            self.sums.add_batch(logits.detach(), some_targets, loss.detach())
        return loss_sum

    def read_sums(self) -> StepSums:
        """Wait for the device; return the sums of this rank's steps since the last reading, and start anew."""
        return self.sums.read()

    def _unsynchronised(self) -> AbstractContextManager[None]:
        """Inside, backward passes leave the gradients of this rank as they are: only the last all-reduces them."""
        if not isinstance(self.model, DistributedDataParallel):
            return nullcontext()
        unsynchronised: AbstractContextManager[None] = self.model.no_sync()
        return unsynchronised

    def segmenter(self) -> Segmenter:
        """The network as validation uses it."""
        return Segmenter(
            network=self.network, inputs=self.inputs, device=self.worker.device, precision=self.worker.precision
        )

    def checkpoint(self, history: Sequence[HistoryRow]) -> Checkpoint:
        """All that a resumed run needs, after the last epoch of this history."""
        return Checkpoint(
            weights=self.network.state_dict(),
            optimiser=self.optimiser.state_dict(),
            scaler=self.scaler.state_dict(),
            history=list(history),
        )
