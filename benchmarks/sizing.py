"""What the default recipe takes on BraTS 2020 with two T4s, on paper: steps, minutes and dollars.

`python -m benchmarks.sizing`. The rates are those that `cost` models; no T4 was measured.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.cost import RECOMMENDED, SPOT, WIRE, Shape, slices_per_s
from brats.config import TrainConfig
from brats.model.schedule import CLOSING_SHARE, bounded

N_TRAIN, N_VAL, N_TEST = 295, 37, 37  # cases; those of BraTS 2020 with segmentations are 369
SLICES_PER_EPOCH = 26_000  # about: with tumour, and a quarter as many without
CASE_MB = 7.3  # prepared; the mean of real cases in RESULTS.md
STORE_MB_PER_S = 100.0  # to one machine (assumed)
AIM_MINUTES, START_MINUTES = 60.0, 5.0  # of all; of these left to Ray and to the test cases (assumed)
AIM_DICE = ".905 (WT), .855 (TC), .80 (ET)"
ENCODER, _, SHAPE = RECOMMENDED
BATCHES = (32, 64)  # the default, and what the README names for two T4s

Range = tuple[float, float]
"""Low and high."""


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """A run of so many epochs with so many slices a step.

    minutes: of training, validation and the first reading of all cases
    usd:     on demand
    """

    batch: int
    epochs: int
    n_steps: int
    n_slices: int
    slices_per_s: Range
    minutes: Range
    usd: Range

    @property
    def in_time(self) -> bool:
        """Whether the aim is reached with the slow card too."""
        return self.minutes[1] <= AIM_MINUTES

    def __str__(self) -> str:
        return (
            f"{self.epochs} epochs, {self.n_steps:,} steps of {self.batch}, {self.n_slices:,} slices at "
            f"{span(self.slices_per_s)} a second: {span(self.minutes)} min, {span(self.usd, 2)} USD on demand"
        )


def span(values: Range, digits: int = 0) -> str:
    """A range in words."""
    low, high = (f"{value:.{digits}f}" for value in values)
    return f"{low} to {high}"


def size(batch: int, shape: Shape = SHAPE) -> Sizing:
    """The default recipe with so many slices a step, on these machines."""
    steps_per_epoch = math.ceil(SLICES_PER_EPOCH / batch)
    epochs = bounded(TrainConfig(out="run", batch_size=batch), steps_per_epoch).epochs
    assert epochs is not None
    n_slices = epochs * SLICES_PER_EPOCH
    slow, fast = slices_per_s(ENCODER, batch, shape, WIRE["fp16"])
    low, high = (minutes(n_slices, rate) for rate in (fast, slow))
    return Sizing(
        batch=batch,
        epochs=epochs,
        n_steps=epochs * steps_per_epoch,
        n_slices=n_slices,
        slices_per_s=(slow, fast),
        minutes=(low, high),
        usd=(low / 60 * shape.usd_h, high / 60 * shape.usd_h),
    )


def minutes(n_slices: int, rate: float) -> float:
    """Minutes to read all cases once and to train on so many slices, with the validation that goes with it."""
    read_s = (N_TRAIN + N_VAL) * CASE_MB / STORE_MB_PER_S
    return (read_s + n_slices / rate * (1 + CLOSING_SHARE)) / 60


ASSUMPTIONS = (
    f"{N_TRAIN} cases to train on, {N_VAL} to validate, {N_TEST} to test; {SLICES_PER_EPOCH:,} slices an epoch",
    f"validation and checkpoints take {CLOSING_SHARE:.0%} of the training, the most that a run gives them",
    f"each machine reads all cases once, {CASE_MB} MB each at {STORE_MB_PER_S:.0f} MB/s (assumed), and keeps them "
    "in the memory of its card; where they do not fit it streams them, which overlaps with training",
    "starting the machines, preparing the cases and predicting the test cases are not counted",
    f"on spot a third of the price (assumed: {SPOT:.2f})",
    "of the rates: what `python -m benchmarks.link` lists below its table",
)
PREPARE = "python jobs/prepare.py --data BraTS2020/ --out prepared --val-fraction 0.1 --test-fraction 0.1"
TRAIN = "python jobs/train.py --data prepared --out runs/brats2020"


def text() -> Iterator[str]:
    """The lines that are printed."""
    default, larger = (size(batch) for batch in BATCHES)
    yield f"The default recipe on BraTS 2020, {SHAPE.name}, on paper:"
    yield from (f"  {default}", f"  {larger}")
    yield from verdict(default)
    yield f"Whether it reaches a Dice of {AIM_DICE} is not known: it was not run."
    yield from (f"assumption {number}: {line}" for number, line in enumerate(ASSUMPTIONS, 1))


def verdict(sizing: Sizing) -> Iterator[str]:
    """Whether the aim is kept, and the commands for those who have the data."""
    left = AIM_MINUTES - START_MINUTES
    bounded_train = f"{TRAIN} --minutes {left:.0f}"
    if sizing.in_time:
        times = left / sizing.minutes[1], left / sizing.minutes[0]
        yield f"The aim is {AIM_MINUTES:.0f} min, enough for {span(times, 1)} times as much training."
        yield from (f"  {PREPARE}", f"  {TRAIN}", "or, for as long as the aim allows:", f"  {bounded_train}")
    else:
        yield f"The aim is {AIM_MINUTES:.0f} min, NOT kept unless it bounds the run."
        yield from (f"  {PREPARE}", f"  {bounded_train}")


if __name__ == "__main__":
    print("\n".join(text()))
