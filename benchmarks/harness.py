"""Two sides measured beside each other: timing in turns, medians and spread, one row per comparison."""

import importlib
import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

EXTRA = "pip install .[bench]"
LIMIT = "limit: "  # begins the peer of a row that says how far it is to what the hardware, or the aim, allows
SMALLEST = 1e-9  # stands in for a measured 0 in a ratio


class BenchmarkError(Exception):
    """A measurement that cannot be made, or whose sides do not agree. One line for the user."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison: a line of the table and an entry of the results.

    ours, peer_value: medians, in `unit`
    ratio:  ours against the peer, turned so that more is better and 1 is equal
    target: the ratio to reach, None where the row only informs
    met:    whether it was reached, None without a target
    ours_values: every measurement of ours, from which `benchmarks.against` takes the noise; none of a figure that
                 was taken once
    """

    stage: str
    ours: float
    peer: str
    peer_value: float
    unit: str
    ratio: float
    target: float | None
    met: bool | None
    more_is_better: bool
    ours_values: tuple[float, ...] = ()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`, after a passage through JSON text. Raises TypeError and KeyError."""
        return cls(**{**value, "ours_values": tuple(value["ours_values"])})


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one quantity."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        low, high = np.quantile(self.values, (0.25, 0.75)).tolist()
        return low, high

    def scaled(self, factor: float) -> "Spread":
        return Spread(tuple(value * factor for value in self.values))

    def __str__(self) -> str:
        low, high = self.quartiles
        return f"{self.median:.4g} ({low:.4g} to {high:.4g}, n {len(self.values)})"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one benchmark found: its rows, and by name what stands behind them (spreads, breakdowns, findings)."""

    rows: Sequence[Row] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    skipped: str = ""
    """Why nothing was measured, or ""."""


def compare(
    stage: str,
    ours: Spread | float,
    peer: str,
    peer_value: Spread | float,
    unit: str,
    *,
    target: float | None = None,
    more_is_better: bool = False,
) -> Row:
    """The row of two sides; by default of times or sizes, of which less is better."""
    left, right = (value.median if isinstance(value, Spread) else value for value in (ours, peer_value))
    better, worse = (left, right) if more_is_better else (right, left)
    ratio = max(better, SMALLEST) / max(worse, SMALLEST)
    return Row(
        stage=stage,
        ours=left,
        peer=peer,
        peer_value=right,
        unit=unit,
        ratio=ratio,
        target=target,
        met=None if target is None else ratio >= target,
        more_is_better=more_is_better,
        ours_values=ours.values if isinstance(ours, Spread) else (),
    )


def interleaved(sides: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, Spread]:
    """Seconds that each side takes, measured in turns after one warm-up round, so that drift hits all alike.

    Every round begins with another side: none always runs on the caches that the same other one left.
    """
    for run in sides.values():
        run()
    names = list(sides)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repetitions):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = time.perf_counter()
            sides[name]()
            seconds[name].append(time.perf_counter() - started)
    return {name: Spread(tuple(values)) for name, values in seconds.items()}


@contextmanager
def cores(n_cores: int) -> Iterator[None]:
    """Run what is inside on this many cores, with as many threads of torch."""
    import torch

    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, sorted(before)[:n_cores])
    torch.set_num_threads(min(n_cores, len(before)))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
        torch.set_num_threads(threads)


def require(*modules: str) -> None:
    """Raise BenchmarkError naming the packages that are missing and the extra that brings them."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise BenchmarkError(f"{', '.join(missing)} not installed, which is measured beside ours; run {EXTRA}")


def peer_module(name: str) -> Any:
    """A module of a peer package, untyped: some annotate a part of their functions only."""
    require(name.partition(".")[0])
    return importlib.import_module(name)


def check_close(what: str, ours: npt.ArrayLike, peer: str, theirs: npt.ArrayLike, tolerance: float) -> None:
    """Raise BenchmarkError unless two outputs agree everywhere to this absolute tolerance."""
    left, right = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if left.shape != right.shape:
        raise BenchmarkError(
            f"{what}: ours has shape {left.shape}, that of {peer} {right.shape}; nothing is written"
        )
    difference = float(np.max(np.abs(left - right), initial=0))
    if not difference <= tolerance:
        raise BenchmarkError(
            f"{what}: ours and that of {peer} differ by up to {difference:.3g}, more than {tolerance:g}; "
            "nothing is written"
        )


def check_growth(what: str, seconds_per_case: float) -> None:
    """Raise BenchmarkError when more cases took no more time: the machine was busy with something else."""
    if not seconds_per_case > 0:
        raise BenchmarkError(
            f"{what}: a further case took {seconds_per_case:.2f} s; measure again on an idle machine"
        )


def spreads(measured: Mapping[str, Spread], unit: str) -> dict[str, str]:
    """Medians with quartiles and counts as text, for the details."""
    return {name: f"{spread} {unit}" for name, spread in measured.items()}
