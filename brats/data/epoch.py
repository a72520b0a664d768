"""The epoch plan: which slices are trained on in which batches, a pure function of the seed and the epoch.

Nothing here depends on how many workers there are or on what ran before, so a resumed run, or one with fewer
workers, sees exactly what an uninterrupted one would have seen.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from brats.config import TrainConfig
from brats.data.planes import counts_column

GROUP_SIZE = 16  # cases at least, and fewer than twice as many, are dealt into the same batches
MIN_TUMOUR_FREE = 2  # tumour-free slices of a case per epoch, where it has as many
MOST_WITH_ET = 4  # times that a slice with ET comes in an epoch: more would teach the network these few by heart


@dataclass(frozen=True)
class TrainingCase:
    """A prepared case to train on: its id and the number of voxels of the tumour, and of ET, in each of its slices.

    Those of ET are left out where nothing is asked of slices with ET.
    """

    case_id: str
    tumour_per_slice: tuple[int, ...]
    et_per_slice: tuple[int, ...] = ()


@dataclass(frozen=True)
class PlannedBatch:
    """The slices of one optimiser step over all workers: pairs of case id and slice row."""

    epoch: int
    step: int
    slices: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """All that decides which slices come when. Hashable, so that a process keeps the epoch it is reading.

    cases: of the training split
    """

    cases: tuple[TrainingCase, ...]
    seed: int
    batch_size: int
    tumour_free_ratio: float
    et_ratio: float = 0.0

    @classmethod
    def of(cls, config: TrainConfig, split: Sequence[Mapping[str, Any]]) -> Self:
        """The plan of a run from the rows of its split."""
        training = [row for row in split if row["split"] == "train"]
        tumour, et = (counts_column(counted, config.plane) for counted in ("tumour", "et"))
        cases = [
            TrainingCase(row["case_id"], tuple(row[tumour]), tuple(row[et]) if config.et_ratio else ())
            for row in training
        ]
        return cls(
            cases=tuple(cases),
            seed=config.seed,
            batch_size=config.batch_size,
            tumour_free_ratio=config.tumour_free_ratio,
            et_ratio=config.et_ratio,
        )

    def epoch(self, epoch: int) -> list[PlannedBatch]:
        """The batches of one epoch; epochs count from 1."""
        return plan_epoch(
            self.cases,
            seed=self.seed,
            epoch=epoch,
            batch_size=self.batch_size,
            tumour_free_ratio=self.tumour_free_ratio,
            et_ratio=self.et_ratio,
        )

    @cached_property
    def _batch_sizes(self) -> list[int]:
        """Of every epoch: they differ in which slices they sample, not in how many."""
        return [len(batch.slices) for batch in self.epoch(1)]

    @property
    def steps_per_epoch(self) -> int:
        return len(self._batch_sizes)

    @property
    def slices_per_epoch(self) -> int:
        return sum(self._batch_sizes)

    @property
    def smallest_batch(self) -> int:
        """Slices of the smallest batch."""
        return min(self._batch_sizes)

    def smallest_micro_batch(self, workers: int, most: int) -> int:
        """Slices of the smallest micro-batch of an epoch, where one has `most` slices at most."""
        shards = {edge for n in self._batch_sizes for edge in (n // workers, -(-n // workers))}
        return min(smallest_chunk(n_slices, most) for n_slices in shards)


def plan_epoch(
    cases: Sequence[TrainingCase],
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    tumour_free_ratio: float,
    et_ratio: float = 0.0,
) -> list[PlannedBatch]:
    """The batches of one epoch.

    Every slice with tumour comes once; of each case's other slices `tumour_free_ratio` as many are sampled anew;
    slices with ET come again as `repeated_et` states.
    Neighbouring slices are nearly the same picture, so the cases are shuffled into groups of some 16 and the
    slices of a case are spread evenly over the batches of its group; a reader has few files open at a time.
    Batches differ in size by one at most and none is larger than `batch_size`; no slice is dropped.
    """
    random = np.random.default_rng([seed, epoch])
    again = repeated_et(cases, et_ratio, random)  # draws nothing where nothing comes again
    shuffled = [cases[index] for index in random.permutation(len(cases))]
    order: list[tuple[str, int]] = []
    for group in np.array_split(np.arange(len(shuffled)), max(1, len(shuffled) // GROUP_SIZE)):
        order += _mix([shuffled[index] for index in group], again, tumour_free_ratio, random)
    n_batches = -(-len(order) // batch_size)
    batches = np.array_split(np.arange(len(order)), n_batches)
    return [PlannedBatch(epoch, step, tuple(order[i] for i in rows)) for step, rows in enumerate(batches)]


def _mix(
    group: Sequence[TrainingCase],
    again: Mapping[str, Sequence[int]],
    tumour_free_ratio: float,
    random: np.random.Generator,
) -> list[tuple[str, int]]:
    """The sampled slices of a group of cases and those that come again, those of each case at even distances."""
    entries: list[tuple[float, str, int]] = []
    for case in group:
        sampled = [*sample_slices(case, tumour_free_ratio, random), *again.get(case.case_id, ())]
        rows = random.permutation(sampled)
        positions = (np.arange(len(rows)) + random.random()) / max(1, len(rows))
        entries += [(position, case.case_id, int(row)) for position, row in zip(positions, rows, strict=True)]
    return [(case_id, row) for _, case_id, row in sorted(entries)]


def sample_slices(
    case: TrainingCase, tumour_free_ratio: float, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Rows of a case for one epoch: all with tumour, and a sample of those without."""
    tumour = np.array(case.tumour_per_slice) > 0
    free = np.flatnonzero(~tumour)
    wanted = min(len(free), max(MIN_TUMOUR_FREE, round(tumour_free_ratio * int(tumour.sum()))))
    if tumour_free_ratio == 0 and tumour.any():
        wanted = 0
    return np.concatenate([np.flatnonzero(tumour), random.choice(free, wanted, replace=False)])


def repeated_et(
    cases: Sequence[TrainingCase], et_ratio: float, random: np.random.Generator
) -> dict[str, list[int]]:
    """Rows, by case, of the slices with ET that come again, and how often, so that they are a share of the slices
    with tumour in an epoch: `et_ratio`, or as much of it as `MOST_WITH_ET` allows.

    All slices with ET come again equally often, but for what is left over, which is drawn. Their number is the
    same in every epoch.
    """
    with_et = [(case.case_id, row) for case in cases for row, n_voxels in enumerate(case.et_per_slice) if n_voxels]
    n_tumour = sum(n_voxels > 0 for case in cases for n_voxels in case.tumour_per_slice)
    wanted = math.ceil((et_ratio * n_tumour - len(with_et)) / (1 - et_ratio))
    n_again = min(max(0, wanted), (MOST_WITH_ET - 1) * len(with_et))
    rows: dict[str, list[int]] = defaultdict(list)
    if n_again:
        whole, left_over = divmod(n_again, len(with_et))
        drawn = random.choice(len(with_et), left_over, replace=False)
        for case_id, row in [*with_et * whole, *(with_et[index] for index in drawn)]:
            rows[case_id].append(row)
    return rows


def smallest_chunk(n_slices: int, most: int) -> int:
    """Slices of the last of the micro-batches that a shard is cut into, as `torch.chunk` does it."""
    size = -(-n_slices // -(-n_slices // most))
    return n_slices - (n_slices - 1) // size * size


def shard(batch: PlannedBatch, rank: int, world_size: int) -> range:
    """Positions in `batch.slices` that one rank takes: ranges that differ by one slice at most."""
    cut = [len(batch.slices) * number // world_size for number in range(world_size + 1)]
    return range(cut[rank], cut[rank + 1])


@dataclass(frozen=True, kw_only=True)
class EpochShard:
    """The slices of an epoch that one rank takes, step after step.

    slices:      (case_id, row)
    occurrences: how often each came before in the epoch, on any rank
    ends:        for each step, where its slices end in `slices`
    n_global:    for each step, its slices over all ranks
    """

    epoch: int
    slices: tuple[tuple[str, int], ...]
    occurrences: tuple[int, ...]
    ends: tuple[int, ...]
    n_global: tuple[int, ...]

    @classmethod
    def of(cls, batches: Sequence[PlannedBatch], rank: int, world_size: int) -> Self:
        """Of the batches of a whole epoch."""
        seen: Counter[tuple[str, int]] = Counter()
        slices: list[tuple[str, int]] = []
        occurrences: list[int] = []
        ends: list[int] = []
        for batch in batches:
            own = shard(batch, rank, world_size)
            for position, entry in enumerate(batch.slices):
                if position in own:
                    slices.append(entry)
                    occurrences.append(seen[entry])
                seen[entry] += 1
            ends.append(len(slices))
        return cls(
            epoch=batches[0].epoch,
            slices=tuple(slices),
            occurrences=tuple(occurrences),
            ends=tuple(ends),
            n_global=tuple(len(batch.slices) for batch in batches),
        )

    def step(self, number: int) -> slice:
        """Where the slices of a step lie in `slices`; steps count from 0."""
        return slice(self.ends[number - 1] if number else 0, self.ends[number])
