"""The training loop of one worker: batches in, checkpoints and history out. It knows torch but not Ray.

With more than one worker it runs under an initialised `torch.distributed` group, the same on every rank. Sums and
counts are reduced over the ranks, so every rank takes the same decisions.

Axes: `B` batch, `C` modality, `R` region (WT, TC, ET), `H W` slice axes.
"""

import math
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from brats.config import TrainConfig
from brats.data.batches import WorkerBatch
from brats.errors import BratsError, DivergedError
from brats.labels import REGIONS
from brats.model.augment import draw_flips, flip
from brats.model.checkpoint import Checkpoint, HistoryRow, best_epoch, load_checkpoint, save_checkpoint
from brats.model.distributed import Worker, all_sum, average_buffers, parallel
from brats.model.history import write_history
from brats.model.losses import bce_dice_loss, region_targets
from brats.model.precision import autocast
from brats.model.prefetch import prefetched
from brats.model.unet import build_unet, freeze_unused, normalise
from brats.model.validation import validate_case

CHECK_EVERY = 20  # steps between looks at the gradient norms; each look waits for the device
SMALLEST_SCALE = 1.0  # of the fp16 loss, which starts at 65,536
REMEDY = (
    "the last finished epoch is kept; go on from there with --precision fp32 or, where it was that already, start "
    "again with a lower --learning-rate and another --out"
)


def fit(
    config: TrainConfig,
    worker: Worker,
    *,
    batches: Iterator[WorkerBatch],
    steps_per_epoch: int,
    slices_per_epoch: int,
    val_paths: Sequence[str],
    run: str,
    on_epoch: Callable[[HistoryRow], bool],
) -> list[HistoryRow]:
    """Train from the last checkpoint below `run`, or from the start, to the last epoch; return the history.

    batches:   this worker's share of every step of every epoch still to come, in order
    val_paths: prepared validation cases; every `world_size`-th is this worker's
    on_epoch:  called on every rank after each epoch, when its checkpoint is written; training ends early, on every
               rank, where one returns True

    Raises DivergedError, on every rank, when a loss or a gradient is not finite.
    """
    batches = prefetched(batches, worker.device)
    checkpoint = load_checkpoint(run)
    torch.manual_seed(config.seed)
    network = build_unet(
        encoder=config.encoder,
        n_modalities=len(config.modalities),
        decoder_channels=config.decoder_channels,
        encoder_weights=None if checkpoint else config.encoder_weights,  # a resumed run downloads nothing
    ).to(worker.device)
    freeze_unused(network, len(config.modalities))
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    scaler = torch.amp.GradScaler(worker.device.type, enabled=worker.precision == "fp16")
    history: list[HistoryRow] = []
    if checkpoint:
        network.load_state_dict(checkpoint.weights)
        optimiser.load_state_dict(checkpoint.optimiser)
        if checkpoint.scaler:  # empty where the run did not use fp16 so far
            scaler.load_state_dict(checkpoint.scaler)
        history = list(checkpoint.history)
    model = parallel(network, worker)
    while not finished(history, config):
        started = time.monotonic()
        epoch = len(history) + 1
        trained = train_epoch(model, optimiser, scaler, config, worker, batches, epoch, steps_per_epoch)
        if trained["n_slices"] != slices_per_epoch:
            raise BratsError(
                f"epoch {epoch}: {trained['n_slices']:.0f} slices came of {slices_per_epoch} planned; this is a bug"
            )
        average_buffers(network, worker)
        validated = validate(network, config, worker, val_paths[worker.rank :: worker.world_size])
        row: HistoryRow = {"epoch": epoch, **trained, **validated, "elapsed_s": time.monotonic() - started}
        history.append(row)
        if worker.rank == 0:
            write_history(run, history, asdict(config))
            save_checkpoint(
                run,
                Checkpoint(
                    weights=network.state_dict(),
                    optimiser=optimiser.state_dict(),
                    scaler=scaler.state_dict(),
                    history=history,
                ),
            )
        if any(all_sum([on_epoch(row)], worker)):
            break
    return history


def finished(history: Sequence[HistoryRow], config: TrainConfig) -> bool:
    """Whether all epochs are done or the validation Dice has not improved for `patience` epochs."""
    if not history:
        return False
    return len(history) >= config.epochs or len(history) - best_epoch(history) >= config.patience


def learning_rate(config: TrainConfig, step: int, n_steps: int) -> float:
    """Linear warm-up, then half a cosine that would reach 0 one step after the last; steps count from 0."""
    warmup = min(config.warmup_steps, n_steps // 2)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, n_steps - warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def train_epoch(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    config: TrainConfig,
    worker: Worker,
    batches: Iterator[WorkerBatch],
    epoch: int,
    n_steps: int,
) -> dict[str, float]:
    """Run one epoch; return its figures. Sums are over all ranks; times and memory are this rank's.

    Raises DivergedError, on every rank, when a loss or a gradient is not finite.
    """
    seed_dropout(config.seed, epoch, worker.rank)
    model.train()
    loss_sum = torch.zeros((), device=worker.device)
    norms: list[Tensor] = []
    n_slices, waited, started = 0, 0.0, time.monotonic()
    rate = 0.0
    for step in range(n_steps):
        asked = time.monotonic()
        batch = next(batches, None)
        waited += time.monotonic() - asked
        if batch is None:
            raise BratsError(f"the batches end before step {step} of epoch {epoch}; this is a bug")
        if (batch.epoch, batch.step) != (epoch, step):
            raise BratsError(f"batch {batch.step} of epoch {batch.epoch} came for {step} of {epoch}; this is a bug")
        rate = learning_rate(config, (epoch - 1) * n_steps + step, config.epochs * n_steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss_sum += accumulate_gradients(model, scaler, config, worker, batch)
        scaler.unscale_(optimiser)
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm))
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad(set_to_none=True)
        n_slices += len(batch.slices.labels)
        if len(norms) == CHECK_EVERY or step + 1 == n_steps:
            check_finite(norms, scaler, epoch, step)
            norms = []
    seconds = time.monotonic() - started
    loss, slices, wait = all_sum([loss_sum.item(), n_slices, waited], worker)
    if not math.isfinite(loss):
        raise DivergedError(f"epoch {epoch}: the mean loss is {loss}; {REMEDY}")
    return {
        "train_loss": loss / slices,
        "learning_rate": rate,
        "n_slices": slices,
        "slices_per_s": slices / seconds,
        "data_wait_s": wait / worker.world_size,
        "train_s": seconds,
        "peak_memory_mb": peak_memory_mb(worker.device),
    }


def accumulate_gradients(
    model: nn.Module,
    scaler: torch.amp.GradScaler,
    config: TrainConfig,
    worker: Worker,
    batch: WorkerBatch,
) -> Tensor:
    """Add the gradient of the mean loss of the global batch; return this worker's sum of losses over its slices.

    The share is run in micro-batches. Each weighs as many slices as it has, so the gradient does not depend on
    which worker runs which micro-batch. (Dice and BatchNorm are taken over a micro-batch, so it does depend, a
    little, on how the global batch is cut into them.)
    """
    inputs, targets = prepare_batch(batch, config.seed, worker.device)
    chunks = torch.arange(len(inputs)).chunk(-(-len(inputs) // config.micro_batch_size))
    loss_sum = torch.zeros((), device=worker.device)
    for number, rows in enumerate(chunks):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        last = number + 1 == len(chunks)
        alone = model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()
        with alone:
            with autocast(worker.precision, worker.device):
                logits = model(inputs[part])
            loss = bce_dice_loss(logits, targets[part])
            # The workers' gradients are averaged, not summed: hence times world_size.
            weight = len(rows) / batch.n_global * worker.world_size
            scaler.scale(loss * weight).backward()
        loss_sum += loss.detach() * len(rows)
    return loss_sum


def prepare_batch(batch: WorkerBatch, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Network input (B, C, H, W) and region targets (B, R, H, W) of a batch, augmented, on the device."""
    flips = draw_flips(batch.n_global, seed=seed, epoch=batch.epoch, step=batch.step)
    flips = flips[batch.first : batch.first + len(batch.slices.labels)]
    arrays = (batch.slices.offset, batch.slices.scale, batch.slices.background)
    offset, scale, background = (to_device(array, device) for array in arrays)
    images = flip(to_device(batch.slices.images, device), flips)
    labels = flip(to_device(batch.slices.labels, device), flips)
    return normalise(images, offset, scale, background), region_targets(labels)


def to_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """The array on the device; from pinned memory without waiting for the copy."""
    return torch.from_numpy(array).to(device, non_blocking=True)


def check_finite(norms: Sequence[Tensor], scaler: torch.amp.GradScaler, epoch: int, step: int) -> None:
    """Look at the gradient norms of the last steps, which every rank shares.

    In fp16 a gradient that overflows is skipped and the loss scale halved, until it fits; only a scale that has
    shrunk to nothing means that no scale will do.
    """
    n_bad = int((~torch.isfinite(torch.stack(list(norms)))).sum())
    if n_bad and (not scaler.is_enabled() or scaler.get_scale() < SMALLEST_SCALE):
        raise DivergedError(
            f"epoch {epoch}, step {step}: the loss is no longer finite ({n_bad} of the last {len(norms)} gradients "
            f"are not); {REMEDY}"
        )


def validate(network: nn.Module, config: TrainConfig, worker: Worker, paths: Sequence[str]) -> dict[str, float]:
    """Loss and 3-D Dice on whole cases, this worker's read here, averaged over the cases of all workers."""
    network.eval()
    sums = torch.zeros(2 + len(REGIONS), dtype=torch.float64)
    for path in paths:
        loss, dice = validate_case(
            network, path, modalities=config.modalities, device=worker.device, precision=worker.precision
        )
        sums += torch.tensor([1, loss, *dice], dtype=torch.float64)
    n_cases, loss, *dice = all_sum(sums.tolist(), worker)
    means = [value / n_cases for value in dice]
    per_region = {f"val_dice_{region.lower()}": mean for region, mean in zip(REGIONS, means, strict=True)}
    return {"val_loss": loss / n_cases, "val_dice": sum(means) / len(means), **per_region}


def seed_dropout(seed: int, epoch: int, rank: int) -> None:
    """Begin the epoch with random numbers of its own, so that encoders with dropout train alike after a resume."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]))


def peak_memory_mb(device: torch.device) -> float:
    """The most memory used so far: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
