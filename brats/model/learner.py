"""The learner: a network in training, with its gradients, optimiser and loss scaler, and the parts of a step.

What a step does is three functions: `compute` the gradients of this rank's slices, `exchange` them with the other
ranks, and `update` the weights. Neither the first nor the last waits for the device or decides by what is on it,
so that both can be captured and replayed.

Axes: `B` batch, `C` channel, `K` channel of the output, `H W` slice axes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from brats.config import OptimiserName, TrainConfig
from brats.data.batches import InputSpec
from brats.model.augment import noise_table
from brats.model.average import AveragedNetwork
from brats.model.checkpoint import Checkpoint
from brats.model.distributed import FlatGradients, Worker, average_buffers, share_state, wire_dtype
from brats.model.feed import RawSlices
from brats.model.history import HistoryRow
from brats.model.inference import Segmenter
from brats.model.inputs import training_tensors
from brats.model.losses import LOSSES, Loss
from brats.model.outputs import OutputSpec
from brats.model.precision import autocast
from brats.model.sums import DeviceSums, outputs_of
from brats.model.unet import build_unet, freeze_unused

OPTIMISERS: dict[OptimiserName, Any] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A network in training.

    average: of the weights, which is validated and exported in their place; None where none is kept
    rate:    the learning rate of the next update, a scalar on the device
    noise:   of `brats.model.augment.noise_table`
    """

    config: TrainConfig
    inputs: InputSpec
    outputs: OutputSpec
    worker: Worker
    network: nn.Module
    average: AveragedNetwork | None
    gradients: FlatGradients
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    rate: Tensor
    loss: Loss
    noise: Tensor
    sums: DeviceSums

    @classmethod
    def of(
        cls,
        config: TrainConfig,
        inputs: InputSpec,
        worker: Worker,
        checkpoint: Checkpoint | None = None,
        initial: Mapping[str, Tensor] | None = None,
    ) -> Self:
        """The learner of a configuration, as a checkpoint left it, or from the start.

        initial: weights to start from, in place of random or pretrained ones; without a checkpoint

        The same on every rank. Raises ConfigError where the network cannot be built.
        """
        torch.manual_seed(config.seed)
        network = build_unet(
            encoder=config.encoder,
            n_channels=inputs.n_channels,
            decoder_channels=config.decoder_channels,
            encoder_weights=None if checkpoint else config.encoder_weights,  # a resumed run downloads nothing
            outputs=OutputSpec(config.outputs),
            dropout=config.dropout,
        ).to(worker.device)
        freeze_unused(network, inputs.n_channels)
        optimiser = OPTIMISERS[config.optimiser](
            network.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        scaler = torch.amp.GradScaler(worker.device.type, enabled=worker.precision == "fp16")
        if checkpoint:
            network.load_state_dict(checkpoint.weights)
            optimiser.load_state_dict(checkpoint.optimiser)
            if checkpoint.scaler:  # empty where the run did not use fp16 so far
                scaler.load_state_dict(checkpoint.scaler)
        elif initial:
            network.load_state_dict(initial)
        share_state(network, worker)
        learner = cls.around(network, optimiser, scaler, config=config, inputs=inputs, worker=worker)
        if learner.average and checkpoint and checkpoint.average:
            learner.average.network.load_state_dict(checkpoint.average)
        return learner

    @classmethod
    def around(
        cls,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        *,
        config: TrainConfig,
        inputs: InputSpec,
        worker: Worker,
    ) -> Self:
        """The learner of a network that is on the device, with an optimiser of its parameters."""
        rate = torch.tensor(config.learning_rate, device=worker.device)
        for group in optimiser.param_groups:
            group["lr"] = rate  # shared, so that setting it reaches a captured update too
        return cls(
            config=config,
            inputs=inputs,
            outputs=OutputSpec(config.outputs),
            worker=worker,
            network=network,
            average=AveragedNetwork.of(network, worker.device) if config.ema else None,
            gradients=FlatGradients.of(network, worker.device, wire_dtype(worker)),
            optimiser=optimiser,
            scaler=scaler,
            rate=rate,
            loss=LOSSES[config.loss],
            noise=noise_table(config.seed, worker.device),
            sums=DeviceSums(worker.device),
        )

    def set_rates(self, learning_rate: float, decay: float) -> None:
        """Set how far the next update moves the weights, and how much of their average it keeps."""
        self.rate.fill_(learning_rate)
        if self.average:
            self.average.set_decay(decay)

    def compute(self, slices: RawSlices, n_global: int, micro_batch_size: int) -> None:
        """Compute the gradient of the mean loss of the global batch, as far as it is of these slices.

        They are run in micro-batches. Each weighs as many slices as it has, so the gradient does not depend on
        which rank runs which micro-batch. (Dice and BatchNorm are taken over a micro-batch, so it does depend, a
        little, on how the global batch is cut into them.)
        """
        self.gradients.zero()
        drops = self.config.modality_dropout > 0
        images, labels = training_tensors(slices, self.noise, self.config.augmentation, self.inputs, drops=drops)
        n_chunks = -(-len(images) // micro_batch_size)
        sums = []
        for some_images, some_labels in zip(images.chunk(n_chunks), labels.chunk(n_chunks), strict=True):
            with autocast(self.worker.precision, self.worker.device):
                logits = self.network(some_images)
            loss = self.loss(logits, self.outputs.targets(some_labels))
            self.scaler.scale(loss * (len(some_images) / n_global)).backward()
            sums.append(outputs_of(loss, logits, some_labels, self.outputs))
        self.gradients.pack()
        self.sums.add(torch.stack(sums).sum(0))  # last: what does not fit is computed again, and counted once

    def exchange(self) -> None:
        """Add up the gradients of all ranks."""
        if self.worker.world_size > 1:
            self.gradients.exchange()

    def update(self) -> None:
        """Update the weights by the gradient, scaled down where it is too long, then their average."""
        self.gradients.unpack()
        self.scaler.unscale_(self.optimiser)
        norm = self.gradients.clip(self.config.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average:
            self.average.follow()
        self.sums.add_norm(norm)

    def share_statistics(self) -> None:
        """Make the BatchNorm statistics of all ranks their mean, and so those of the average."""
        average_buffers(self.network, self.worker)
        if self.average:
            average_buffers(self.average.network, self.worker)

    def segmenter(self) -> Segmenter:
        """The network as validation uses it: the average where one is kept."""
        network = self.average.network if self.average else self.network
        return Segmenter(
            network=network,
            inputs=self.inputs,
            device=self.worker.device,
            precision=self.worker.precision,
            outputs=self.outputs,
        )

    def checkpoint(self, history: Sequence[HistoryRow]) -> Checkpoint:
        """All that a resumed run needs, after the last epoch of this history."""
        return Checkpoint(
            weights=self.network.state_dict(),
            average=self.average.network.state_dict() if self.average else None,
            optimiser=self.optimiser.state_dict(),
            scaler=self.scaler.state_dict(),
            history=list(history),
        )
