"""Schedule: how long a run trains, the learning rate of its steps, and which epochs are validated and saved.

A run is bounded by epochs, by steps or by minutes. Where minutes bound it, rank 0's clock decides: its readings are
shared at check points, so every function here has the same arguments, and the same answer, on every rank.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from brats.config import DEFAULT_EPOCHS, DEFAULT_STEPS, TrainConfig
from brats.model.checkpoint import best_epoch
from brats.model.history import HistoryRow

TINY_S = 1e-9  # for a step that no time is known of
CHECK_S, CHECK_STEPS = 2.0, 50  # between check points, at most: each waits for the device and for all ranks
FEED_STEPS, FEED_STEPS_PER_S = 50_000, 50  # planned at once, at most, for a run that minutes bound
LOW_RATE = 1 / 4  # of the highest learning rate: half a cosine is there after two thirds
CLOSING_SHARE = 1 / 25  # of the time that a GPU trains: what validation and checkpoints may take
CLOSING_GAP_S = 600.0  # of training on a GPU, after which an epoch is validated and saved in any case

Cadence = Callable[[float, float], bool]
"""Whether to validate and save, by the seconds trained since that was last done and the seconds it took."""


def bounded(config: TrainConfig, steps_per_epoch: int) -> TrainConfig:
    """The configuration with a number of epochs, where nothing bounds the run: 30, or more of a small dataset.

    Patients and slices alone do not say how long to train: few patients need as many steps as more of them.
    """
    if any((config.epochs, config.steps, config.minutes)):
        return config
    return dataclasses.replace(config, epochs=max(DEFAULT_EPOCHS, math.ceil(DEFAULT_STEPS / steps_per_epoch)))


@dataclass(frozen=True, kw_only=True)
class Moment:
    """How far a run is, the same on every rank.

    step:      optimiser steps done, those of earlier starts included
    elapsed_s: seconds of training by rank 0's clock, those of earlier starts included
    step_s:    seconds that a step takes now; None before the first is done
    """

    step: int
    elapsed_s: float
    step_s: float | None

    def then(self, n_steps: int, elapsed_s: float) -> "Moment":
        """The moment so many steps later."""
        step_s = (elapsed_s - self.elapsed_s) / n_steps
        return Moment(step=self.step + n_steps, elapsed_s=elapsed_s, step_s=step_s)


@dataclass(frozen=True, kw_only=True)
class EpochProgress:
    """How far a run is within an epoch.

    step:     done, of this epoch
    run_step: done, of the whole run
    """

    epoch: int
    step: int
    run_step: int
    slices_per_s: float
    elapsed_s: float
    left_s: float


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long a run trains and how fast it learns.

    n_steps: of the whole run; infinite where minutes bound it
    seconds: of the whole run, all that belongs to training included; infinite where steps or epochs bound it
    highest: learning rate, after the warm-up
    """

    n_steps: float
    seconds: float
    highest: float
    warmup_steps: int

    @classmethod
    def of(cls, config: TrainConfig, steps_per_epoch: int, history: Sequence[HistoryRow]) -> Self:
        """The schedule of a run that has come this far; an epoch cut short by an earlier bound counts as it is."""
        n_steps = math.inf
        assert any((config.epochs, config.steps, config.minutes)), "see `bounded`"
        if config.steps is not None:
            n_steps = config.steps
        elif config.epochs is not None:
            n_steps = moment_of(history).step + (config.epochs - len(history)) * steps_per_epoch
        return cls(
            n_steps=n_steps,
            seconds=math.inf if config.minutes is None else 60 * config.minutes,
            highest=config.learning_rate,
            warmup_steps=config.warmup_steps,
        )

    def learning_rate(self, step: int, moment: Moment) -> float:
        """Linear warm-up, then half a cosine, over the steps of the run; steps count from 0.

        Over its time where that bounds it: a cosine over all of it, under a warm-up that ends at half of it at the
        latest. From the last look at the clock, in `moment`, time goes on by as much per step as before.
        """
        if math.isinf(self.seconds):
            return self.highest * step_rate(step, self.n_steps, self.warmup_steps)
        passed_s = moment.elapsed_s + (step - moment.step) * (moment.step_s or 0)
        progress = min(1.0, passed_s / self.seconds)
        warmed = max((step + 1) / max(1, self.warmup_steps), 2 * progress)
        return self.highest * min(1.0, warmed) * half_cosine(progress)

    def steps_to_check(self, moment: Moment, reserve_s: float) -> int:
        """Steps until the ranks share their sums and clock again; 0 when the run is over.

        reserve_s: seconds to leave for what follows the last step
        """
        left_s = self.seconds - reserve_s - moment.elapsed_s
        in_time = left_s / (moment.step_s or TINY_S)
        return math.floor(max(0, min(check_steps(moment.step_s), self.n_steps - moment.step, in_time + 0.5)))

    def left_s(self, moment: Moment, overhead: float) -> float:
        """Seconds until the end, where steps alone take `overhead` times less than all."""
        if math.isinf(self.n_steps):
            return max(0.0, self.seconds - moment.elapsed_s)
        return (self.n_steps - moment.step) * (moment.step_s or 0) * overhead

    def epochs(self, history: Sequence[HistoryRow], steps_per_epoch: int) -> range:
        """The epochs that one start may train: all that are left, or of a run in minutes as many as are planned."""
        now = moment_of(history)
        n_steps = self.n_steps - now.step
        if math.isinf(n_steps):
            n_steps = min(FEED_STEPS, FEED_STEPS_PER_S * self.left_s(now, 1))
        return range(len(history) + 1, len(history) + 1 + math.ceil(n_steps / steps_per_epoch))


def step_rate(step: int, n_steps: float, warmup_steps: int) -> float:
    """Share of the highest learning rate: a warm-up of at most half of the steps, then half a cosine to 0."""
    warmup = min(warmup_steps, n_steps // 2)
    if step < warmup:
        return (step + 1) / warmup
    return half_cosine((step - warmup) / max(1, n_steps - warmup))


def half_cosine(progress: float) -> float:
    """From 1 at 0 to 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def check_steps(step_s: float | None) -> int:
    """Steps between check points by the time of one: the first step is looked at, to know."""
    if step_s is None:
        return 1
    return CHECK_STEPS if step_s <= 0 else min(CHECK_STEPS, max(1, int(CHECK_S / step_s)))


def moment_of(history: Sequence[HistoryRow]) -> Moment:
    """How far a run is after the last epoch of its history."""
    return Moment(
        step=sum(row["n_steps"] for row in history),
        elapsed_s=sum(row["elapsed_s"] for row in history),
        step_s=history[-1]["train_s"] / history[-1]["n_steps"] if history else None,
    )


def finished(history: Sequence[HistoryRow], config: TrainConfig) -> bool:
    """Whether all there was to train is done, or patience is over.

    Minutes are over when what is left is too short for a step and the validation after it.
    """
    if not history:
        return False
    if out_of_patience(history, config):
        return True
    if config.minutes is not None:
        now = moment_of(history)
        return 60 * config.minutes - now.elapsed_s <= (now.step_s or 0) + closing_s(history)
    if config.steps is not None:
        return moment_of(history).step >= config.steps
    return config.epochs is not None and len(history) >= config.epochs


def out_of_patience(history: Sequence[HistoryRow], config: TrainConfig) -> bool:
    """Whether the last `patience` validations, up to the last epoch, found no better Dice than one before."""
    if config.patience is None or not history or not is_closed(history[-1]):
        return False
    return waited(history) >= config.patience


def waited(history: Sequence[HistoryRow]) -> int:
    """Validations since the best, of those since the learning rate has come down to `LOW_RATE`.

    While it is high, validation figures go up and down, and the best epochs are still to come.
    """
    low = LOW_RATE * max(row["learning_rate"] for row in history)
    n_low = sum(1 for _ in itertools.takewhile(lambda row: row["learning_rate"] <= low, reversed(history)))
    return sum(map(is_closed, history[max(len(history) - n_low, best_epoch(history)) :]))


# Which epochs are validated and saved


def every_epoch(_trained_s: float, _cost_s: float) -> bool:
    """The cadence of validations and checkpoints on CPUs."""
    return True


def spaced_by_time(trained_s: float, cost_s: float) -> bool:
    """The cadence of validations and checkpoints on a GPU, on which a short epoch takes less time than they do."""
    return trained_s >= min(cost_s / CLOSING_SHARE, CLOSING_GAP_S)


def cadence_on(device_type: str) -> Cadence:
    """The cadence of validations and checkpoints on a device."""
    return spaced_by_time if device_type == "cuda" else every_epoch


def is_closed(row: HistoryRow) -> bool:
    """Whether an epoch was validated, and then saved."""
    return row["val_dice"] is not None


def since_closed(history: Sequence[HistoryRow]) -> Sequence[HistoryRow]:
    """The epochs after the last one that was validated."""
    closed = [number for number, row in enumerate(history, start=1) if is_closed(row)]
    return history[closed[-1] if closed else 0 :]


def closing_s(history: Sequence[HistoryRow]) -> float:
    """Seconds that the last validation, with its checkpoint, held up training; 0 before the first."""
    costs = [row["elapsed_s"] - row["train_s"] for row in history if is_closed(row)]
    return costs[-1] if costs else 0.0


def trained_s(history: Sequence[HistoryRow]) -> float:
    """Seconds of steps since the last validation."""
    return float(sum(row["train_s"] for row in since_closed(history)))


def overhead(history: Sequence[HistoryRow]) -> float:
    """How much longer all took than the steps alone, from the last validation but one to the last; 1 before it."""
    closed = history[: len(history) - len(since_closed(history))]
    recent = [*since_closed(closed[:-1]), *closed[-1:]]
    steps_s = sum(row["train_s"] for row in recent)
    return sum(row["elapsed_s"] for row in recent) / steps_s if steps_s else 1.0
