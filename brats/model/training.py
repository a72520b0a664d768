"""The training loop of one rank: batches in, checkpoints and history out. It knows torch but not Ray.

With more than one rank it runs under an initialised `torch.distributed` group, the same on every rank. Sums and
counts are all-reduced, so every rank takes the same decisions.
"""

import math
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from brats.config import TrainConfig
from brats.data.batches import TrainingSet, WorkerBatch
from brats.errors import BratsError, DivergedError
from brats.model.checkpoint import best_epoch, load_checkpoint, save_checkpoint
from brats.model.distributed import Worker, all_reduce_sum, average_buffers
from brats.model.history import HistoryRow, write_history
from brats.model.learner import Learner
from brats.model.prefetch import prefetched
from brats.model.validation import ValidationCases, validate

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
    data: TrainingSet,
    batches: Iterator[WorkerBatch],
    val_paths: Sequence[str],
    run: str,
    on_epoch: Callable[[HistoryRow], bool],
) -> list[HistoryRow]:
    """Train from the last checkpoint below `run`, or from the start, to the last epoch; return the history.

    batches:   this rank's shard of every step of every epoch still to come, in order
    val_paths: prepared validation cases; every `world_size`-th is this rank's
    on_epoch:  called on every rank after each epoch, when its checkpoint is written; training ends early, on every
               rank, where one returns True

    Raises DivergedError, on every rank, when a loss or a gradient is not finite.
    """
    batches = prefetched(batches, worker.device)
    checkpoint = load_checkpoint(run)
    learner = Learner.of(config, data.inputs, worker, checkpoint)
    history = list(checkpoint.history) if checkpoint else []
    cases = ValidationCases(val_paths[worker.rank :: worker.world_size], data.inputs, worker.device)
    while not finished(history, config):
        started = time.monotonic()
        epoch = len(history) + 1
        trained = train_epoch(learner, batches, epoch, data.plan.steps_per_epoch)
        if trained["n_slices"] != data.plan.slices_per_epoch:
            raise BratsError(
                f"epoch {epoch}: {trained['n_slices']:.0f} slices came of {data.plan.slices_per_epoch} planned; "
                "this is a bug"
            )
        average_buffers(learner.network, worker)
        validated = validate(learner.segmenter(), learner.loss, worker, cases)
        row: HistoryRow = {"epoch": epoch, **trained, **validated, "elapsed_s": time.monotonic() - started}
        history.append(row)
        if worker.rank == 0:
            write_history(run, history, asdict(config))
            save_checkpoint(run, learner.checkpoint(history))
        if any(all_reduce_sum([on_epoch(row)], worker)):
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


def train_epoch(learner: Learner, batches: Iterator[WorkerBatch], epoch: int, n_steps: int) -> dict[str, float]:
    """Run one epoch; return its figures. Sums are over all ranks; times and memory are this rank's.

    Raises DivergedError, on every rank, when a loss or a gradient is not finite.
    """
    config, worker = learner.config, learner.worker
    seed_dropout(config.seed, epoch, worker.rank)
    learner.model.train()
    loss_sum = torch.zeros((), device=worker.device)
    norms: list[Tensor] = []
    n_slices, waited, started = 0, 0.0, time.monotonic()
    rate = 0.0
    for step in range(n_steps):
        asked = time.monotonic()
        batch = next_batch(batches, epoch, step)
        waited += time.monotonic() - asked
        rate = learning_rate(config, (epoch - 1) * n_steps + step, config.epochs * n_steps)
        loss, norm = learner.step(batch, rate)
        loss_sum += loss
        norms.append(norm)
        n_slices += len(batch.labels)
        if len(norms) == CHECK_EVERY or step + 1 == n_steps:
            check_finite(norms, learner.scaler, epoch, step)
            norms = []
    seconds = time.monotonic() - started
    total_loss, slices, wait = all_reduce_sum([loss_sum.item(), n_slices, waited], worker)
    if not math.isfinite(total_loss):
        raise DivergedError(f"epoch {epoch}: the mean loss is {total_loss}; {REMEDY}")
    return {
        "train_loss": total_loss / slices,
        "learning_rate": rate,
        "n_slices": slices,
        "slices_per_s": slices / seconds,
        "data_wait_s": wait / worker.world_size,
        "train_s": seconds,
        "peak_memory_mb": peak_memory_mb(worker.device),
    }


def next_batch(batches: Iterator[WorkerBatch], epoch: int, step: int) -> WorkerBatch:
    """The batch of this step. Raises BratsError where another one comes, or none."""
    batch = next(batches, None)
    if batch is None:
        raise BratsError(f"the batches end before step {step} of epoch {epoch}; this is a bug")
    if (batch.epoch, batch.step) != (epoch, step):
        raise BratsError(f"batch {batch.step} of epoch {batch.epoch} came for {step} of {epoch}; this is a bug")
    return batch


def check_finite(norms: Sequence[Tensor], scaler: torch.amp.GradScaler, epoch: int, step: int) -> None:
    """Look at the gradient norms of the last steps, which are the same on every rank.

    In fp16 a gradient that overflows is skipped and the loss scale halved, until it fits; only a scale that has
    shrunk to nothing means that no scale will do.
    """
    n_bad = int((~torch.isfinite(torch.stack(list(norms)))).sum())
    if n_bad and (not scaler.is_enabled() or scaler.get_scale() < SMALLEST_SCALE):
        raise DivergedError(
            f"epoch {epoch}, step {step}: the loss is no longer finite ({n_bad} of the last {len(norms)} gradients "
            f"are not); {REMEDY}"
        )


def seed_dropout(seed: int, epoch: int, rank: int) -> None:
    """Begin the epoch with random numbers of its own, so that encoders with dropout train alike after a resume."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]))


def peak_memory_mb(device: torch.device) -> float:
    """The most memory used so far: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
