"""The training loop of one rank: batches in, checkpoints and history out. It knows torch but not Ray.

With more than one rank it runs under an initialised `torch.distributed` group, the same on every rank. Sums, counts
and the clock of rank 0 are shared by all-reduce, so every rank takes the same decisions.
"""

import math
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from brats.config import TrainConfig
from brats.data.batches import TrainingSet
from brats.errors import BratsError, DivergedError
from brats.model import schedule as schedules
from brats.model.average import decay_at
from brats.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from brats.model.distributed import Worker, all_reduce_sum
from brats.model.engine import Engine
from brats.model.epoch_figures import added, figures, from_values, to_values
from brats.model.feed import Feed, StepInput
from brats.model.graph import recordable
from brats.model.history import VALIDATION_COLUMNS, HistoryRow, write_history
from brats.model.initial import read_initial
from brats.model.learner import Learner
from brats.model.schedule import Cadence, EpochProgress, Moment, Schedule, finished, moment_of
from brats.model.sums import StepSums
from brats.model.validation import ValidationCases, validate
from brats.model.writer import CheckpointWriter

PROGRESS_S = 20.0  # between reports from within an epoch
SMALLEST_SCALE = 1.0  # of the fp16 loss, which starts at 65,536
REMEDY = (
    "the last finished epoch is kept; go on from there with --precision fp32 or, where it was that already, start "
    "again with a lower --learning-rate and another --out"
)


@dataclass(frozen=True, kw_only=True)
class Start:
    """What the epochs of one start of a run have in common, on one rank.

    cases:   that this rank validates on
    elapsed: seconds of training by this rank's clock, those of earlier starts included
    """

    learner: Learner
    engine: Engine
    feed: Feed
    data: TrainingSet
    cases: ValidationCases
    schedule: Schedule
    cadence: Cadence
    elapsed: Callable[[], float]
    on_progress: Callable[[EpochProgress], None]
    ends_early: Callable[[], bool]

    @property
    def worker(self) -> Worker:
        return self.learner.worker

    def shared_elapsed(self) -> float:
        """Rank 0's clock, on every rank."""
        return all_reduce_sum([0.0 if self.worker.rank else self.elapsed()], self.worker)[0]


def fit(
    config: TrainConfig,
    worker: Worker,
    *,
    data: TrainingSet,
    feed: Feed,
    val_paths: Sequence[str],
    run: str,
    on_epoch: Callable[[Sequence[HistoryRow]], None],
    on_progress: Callable[[EpochProgress], None],
    ends_early: Callable[[], bool],
    say: Callable[[str], None] = lambda _message: None,
    cadence: Cadence | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[HistoryRow]:
    """Train from the last checkpoint below `run`, or from the start, to the end; return the history.

    feed:        of this rank's slices, for the epochs of `Schedule.epochs`
    val_paths:   prepared validation cases; every `world_size`-th is this rank's
    on_epoch:    called by a thread of rank 0 with the history so far, when the checkpoint of its end is written
    on_progress: called on rank 0, within an epoch that takes long
    ends_early:  asked on every rank after each epoch; training ends there, on every rank, where one returns True
    say:         told what was found out about the GPU
    cadence:     which epochs are validated and saved; by default all of them on CPUs, spaced by time on a GPU

    Raises DivergedError, on every rank, when a loss or a gradient is not finite.
    """
    checkpoint = load_checkpoint(run)
    initial = read_initial(run) if config.init and not checkpoint else None
    learner = Learner.of(config, data.inputs, worker, checkpoint, initial)
    history = list(checkpoint.history) if checkpoint else []
    feed.make_ready()  # what brings the slices takes a while to start, which is not training
    origin = clock() - moment_of(history).elapsed_s
    start = Start(
        learner=learner,
        engine=Engine(learner, feed, say=say),
        feed=feed,
        data=data,
        cases=ValidationCases(val_paths[worker.rank :: worker.world_size], data.inputs, worker.device),
        schedule=Schedule.of(config, data.plan.steps_per_epoch, history),
        cadence=cadence or schedules.cadence_on(worker.device.type),
        elapsed=lambda: clock() - origin,
        on_progress=on_progress,
        ends_early=ends_early,
    )

    def write(checkpoint: Checkpoint) -> None:
        write_history(run, checkpoint.history, asdict(config))
        save_checkpoint(run, checkpoint)
        on_epoch(checkpoint.history)

    with recordable(worker.device), CheckpointWriter(write) as writer:
        history = run_epochs(start, writer, history)
        writer.wait()
    return history


def run_epochs(start: Start, writer: CheckpointWriter, history: Sequence[HistoryRow]) -> list[HistoryRow]:
    """Train the epochs after this history, to the end of the run or of this start; return the longer history.

    The last epoch is validated and handed to the writer, as are those before it that the cadence names.
    """
    config, worker, history = start.learner.config, start.worker, list(history)
    planned = start.schedule.epochs(history, start.data.plan.steps_per_epoch)

    def is_over() -> bool:
        fed = start.feed.endless or len(history) + 1 in planned
        return not fed or finished(history, config)

    stops = False
    while not (stops or is_over()):
        history.append(train_epoch(start, history))
        start.learner.share_statistics()
        stops = any(all_reduce_sum([start.ends_early()], worker))
        if stops or is_over() or start.cadence(schedules.trained_s(history), schedules.closing_s(history)):
            history[-1] = close_epoch(start, writer, history)
    return history


def close_epoch(start: Start, writer: CheckpointWriter, history: Sequence[HistoryRow]) -> HistoryRow:
    """Validate after the last epoch of this history and have it saved; return its row."""
    learner, worker = start.learner, start.worker
    validated = validate(learner.segmenter(), learner.loss, worker, start.cases)
    state = None if worker.rank else learner.checkpoint(history).copied()
    writer.wait()  # now, so that its time is that of this epoch
    elapsed_s = start.shared_elapsed() - moment_of(history[:-1]).elapsed_s
    row: HistoryRow = {**history[-1], **validated, "elapsed_s": elapsed_s}
    if state:
        writer.submit(replace(state, history=[*history[:-1], row]))
    return row


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """The steps from one check point to the next.

    sums:          over all ranks
    waited_s:      seconds that the ranks together waited for batches
    learning_rate: of the last step
    then:          the moment at its end
    """

    sums: StepSums
    waited_s: float
    learning_rate: float
    then: Moment


def train_epoch(start: Start, history: Sequence[HistoryRow]) -> HistoryRow:
    """Run the epoch after this history, or what of it the run has left; return its row, without validation.

    Sums are over all ranks; memory is this rank's. Raises DivergedError, on every rank, when a loss or a gradient
    is not finite, BratsError when other slices came than were planned.
    """
    worker, plan, epoch, began = start.worker, start.data.plan, len(history) + 1, moment_of(history)
    seed_dropout(start.learner.config.seed, epoch, worker.rank)
    start.learner.network.train()
    stretches = run_stretches(start, history)
    sums, now = added([each.sums for each in stretches]), stretches[-1].then
    n_steps, train_s = now.step - began.step, now.elapsed_s - began.elapsed_s
    if n_steps == plan.steps_per_epoch and sums.n_slices != plan.slices_per_epoch:
        raise BratsError(
            f"epoch {epoch}: {sums.n_slices} slices came of {plan.slices_per_epoch} planned; this is a bug"
        )
    if not math.isfinite(sums.loss_sum):
        raise DivergedError(f"epoch {epoch}: the mean loss is {sums.loss_sum / sums.n_slices}; {REMEDY}")
    return {
        "epoch": epoch,
        "n_steps": n_steps,
        **figures(sums, start.learner.outputs.regions),
        **dict.fromkeys(VALIDATION_COLUMNS),
        "learning_rate": stretches[-1].learning_rate,
        "n_slices": sums.n_slices,
        "slices_per_s": rate_of(sums.n_slices, train_s),
        "data_wait_s": sum(each.waited_s for each in stretches) / worker.world_size,
        "train_s": train_s,
        "elapsed_s": train_s,
        "peak_memory_mb": peak_memory_mb(worker.device),
    }


def run_stretches(start: Start, history: Sequence[HistoryRow]) -> list[Stretch]:
    """Run the steps of the epoch after this history, check point by check point; at least one step."""
    n_planned, reserve_s = start.data.plan.steps_per_epoch, schedules.closing_s(history)
    began = moment = moment_of(history)
    shown_s = began.elapsed_s
    batches = start.feed.epoch(len(history) + 1)
    stretches: list[Stretch] = []
    done = 0
    while n_steps := min(n_planned - done, start.schedule.steps_to_check(moment, reserve_s) or int(not done)):
        stretches.append(run_stretch(start, batches, len(history) + 1, range(done, done + n_steps), moment))
        moment, done = stretches[-1].then, done + n_steps
        if moment.elapsed_s - shown_s >= PROGRESS_S and done < n_planned and not start.worker.rank:
            shown_s = moment.elapsed_s
            n_slices = sum(each.sums.n_slices for each in stretches)
            start.on_progress(
                EpochProgress(
                    epoch=len(history) + 1,
                    step=done,
                    run_step=moment.step,
                    slices_per_s=n_slices / (moment.elapsed_s - began.elapsed_s),
                    elapsed_s=moment.elapsed_s,
                    left_s=start.schedule.left_s(moment, schedules.overhead(history)),
                )
            )
    return stretches


def run_stretch(start: Start, batches: Iterator[StepInput], epoch: int, steps: range, moment: Moment) -> Stretch:
    """Run these steps of an epoch, the first of which follows `moment`, then share sums and clock.

    Raises DivergedError, on every rank, when a gradient is not finite.
    """
    learner, waited_s, rate = start.learner, 0.0, 0.0
    for step in steps:
        asked = time.monotonic()
        batch = next(batches)
        waited_s += time.monotonic() - asked
        number = moment.step + step - steps.start
        rate = start.schedule.learning_rate(number, moment)
        start.engine.step(batch, rate, decay_at(number, learner.config.ema))
    own = to_values(start.engine.read_sums())
    elapsed_s = 0.0 if start.worker.rank else start.elapsed()
    *values, waited_s, elapsed_s = all_reduce_sum([*own, waited_s, elapsed_s], start.worker)
    sums = from_values(values)
    n_bad = round(sums.n_bad / start.worker.world_size)  # each rank counted the same gradients
    check_finite(n_bad, len(steps), learner.scaler, epoch, steps[-1])
    return Stretch(sums=sums, waited_s=waited_s, learning_rate=rate, then=moment.then(len(steps), elapsed_s))


def check_finite(n_bad: int, n_steps: int, scaler: torch.amp.GradScaler, epoch: int, step: int) -> None:
    """Raise DivergedError where gradients of the last steps are not finite and that is not for fp16 to bear.

    In fp16 a gradient that overflows is skipped and the loss scale halved, until it fits; only a scale that has
    shrunk to nothing means that no scale will do.
    """
    if n_bad and (not scaler.is_enabled() or scaler.get_scale() < SMALLEST_SCALE):
        raise DivergedError(
            f"epoch {epoch}, step {step}: the loss is no longer finite ({n_bad} of the last {n_steps} gradients "
            f"are not); {REMEDY}"
        )


def rate_of(n_slices: int, seconds: float) -> float:
    """Slices per second; 0 where no time passed."""
    return n_slices / seconds if seconds else 0.0


def seed_dropout(seed: int, epoch: int, rank: int) -> None:
    """Begin the epoch with random numbers of its own, so that encoders with dropout train alike after a resume."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]))


def peak_memory_mb(device: torch.device) -> float:
    """The most memory used so far: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
