"""The plan of an epoch: what comes, how it is mixed, and that it depends on the seed and the epoch alone."""

import os
import pickle
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from brats.config import TrainConfig
from brats.data.epoch import EpochPlan, PlannedBatch, TrainingCase, plan_epoch, sample_slices, shard, smallest_chunk


def case(case_id: str, n_free_below: int, n_tumour: int, n_free_above: int) -> TrainingCase:
    return TrainingCase(case_id, (0,) * n_free_below + (50,) * n_tumour + (0,) * n_free_above)


def realistic(n: int, seed: int = 0) -> list[TrainingCase]:
    """Cases of 140 slices, of which 10 to 100 have tumour, as in BraTS."""
    random = np.random.default_rng([n, seed])
    sizes = random.integers(10, 100, n)
    starts = [int(random.integers(0, 140 - size)) for size in sizes]
    return [
        case(f"case_{k:03}", start, int(size), 140 - start - int(size))
        for k, (start, size) in enumerate(zip(starts, sizes, strict=True))
    ]


def plan(
    cases: list[TrainingCase], *, seed: int = 0, epoch: int = 1, batch_size: int = 16, ratio: float = 0.25
) -> list[PlannedBatch]:
    return plan_epoch(cases, seed=seed, epoch=epoch, batch_size=batch_size, tumour_free_ratio=ratio)


def slices_of(batches: list[PlannedBatch]) -> list[tuple[str, int]]:
    return [entry for batch in batches for entry in batch.slices]


# What comes


def test_every_slice_with_tumour_comes_exactly_once() -> None:
    cases = realistic(20)
    counts = Counter(slices_of(plan(cases)))
    for one in cases:
        for row, tumour in enumerate(one.tumour_per_slice):
            assert counts[one.case_id, row] == 1 if tumour else counts[one.case_id, row] <= 1


@pytest.mark.parametrize(
    ("free_below", "tumour", "ratio", "expected"),
    [
        (40, 20, 0.25, 5),  # a quarter of 20
        (40, 21, 0.25, 5),  # 5.25
        (40, 2, 0.25, 2),  # no fewer than 2 of a case
        (1, 2, 0.25, 1),  # there is only one
        (0, 9, 0.25, 0),  # there is none
        (40, 0, 0.25, 2),  # a case without tumour shows what health looks like
        (40, 0, 0.0, 2),
        (40, 20, 0.0, 0),
        (40, 20, 1.0, 20),
        (40, 20, 9.0, 40),  # all there are
    ],
)
def test_tumour_free_slices_of_a_case_come_in_proportion(
    free_below: int, tumour: int, ratio: float, expected: int
) -> None:
    rows = sample_slices(case("a", free_below, tumour, 0), ratio, np.random.default_rng(0)).tolist()
    assert sum(row < free_below for row in rows) == expected
    assert sum(row >= free_below for row in rows) == tumour
    assert len(set(rows)) == len(rows)


def test_tumour_free_slices_are_drawn_anew_each_epoch_until_all_have_come() -> None:
    cases = [case("a", 20, 20, 20)]
    drawn = [{row for _, row in slices_of(plan(cases, epoch=epoch)) if not 20 <= row < 40} for epoch in range(60)]
    assert len({frozenset(rows) for rows in drawn}) > 50
    assert set().union(*drawn) == {*range(20), *range(40, 60)}


# Slices with ET


def with_et(n_cases: int, n_et: int, n_tumour: int = 20) -> list[TrainingCase]:
    """Cases of 40 slices: so many with tumour, the first of which show ET, and the others without."""
    tumour = (50,) * n_tumour + (0,) * (40 - n_tumour)
    return [TrainingCase(f"c{k}", tumour, (5,) * n_et + (0,) * (40 - n_et)) for k in range(n_cases)]


def et_counts(cases: list[TrainingCase], et_ratio: float, epoch: int = 1) -> Counter[tuple[str, int]]:
    """How often each slice comes in an epoch."""
    batches = plan_epoch(cases, seed=0, epoch=epoch, batch_size=16, tumour_free_ratio=0.25, et_ratio=et_ratio)
    return Counter(slices_of(batches))


@pytest.mark.parametrize(
    ("n_et", "et_ratio", "n_times"),
    [
        (5, 0.25, 20),  # a quarter shows it: as they come
        (5, 0.4, 40),  # of 4 x 20 slices with tumour 20 show ET; 20 more make it 40 of 100
        (5, 0.5, 60),  # 60 of 120
        (5, 0.9, 80),  # 540 of 600 would be; each comes four times at most
        (20, 0.9, 80),  # all show it
        (0, 0.9, 0),
    ],
)
def test_slices_with_et_come_as_often_as_is_asked_for_or_four_times(
    n_et: int, et_ratio: float, n_times: int
) -> None:
    counts = et_counts(with_et(4, n_et), et_ratio)
    of_et = {entry: count for entry, count in counts.items() if entry[1] < n_et}
    assert sum(of_et.values()) == n_times
    if n_et:
        assert max(of_et.values()) - min(of_et.values()) <= 1
    assert all(count == 1 for entry, count in counts.items() if entry not in of_et)


def test_which_slices_with_et_come_once_more_is_drawn_anew_each_epoch() -> None:
    cases = with_et(4, 5)
    again = [
        {entry for entry, count in et_counts(cases, 0.3, epoch).items() if count > 1} for epoch in range(1, 20)
    ]
    assert {len(entries) for entries in again} == {6}  # 26 of 86 are three tenths
    assert len({frozenset(entries) for entries in again}) > 10


def test_all_other_slices_come_as_they_would_without_those_that_come_again() -> None:
    cases = with_et(20, 5)
    plain, more = et_counts(cases, 0.0), et_counts(cases, 0.5)
    assert sum(more.values()) - sum(plain.values()) == 200  # 300 of 600 instead of 100 of 400
    assert {entry for entry in plain if entry[1] < 20} == {entry for entry in more if entry[1] < 20}
    assert sum(entry[1] >= 20 for entry in plain) == sum(entry[1] >= 20 for entry in more) == 20 * 5


def test_slices_with_et_are_known_to_the_plan_only_where_something_is_asked_of_them() -> None:
    row = {"case_id": "a", "split": "train", "tumour_per_slice": [2, 0, 1], "et_per_slice": [1, 0, 0]}
    asked = EpochPlan.of(TrainConfig(out="run", et_ratio=0.6), [row])
    assert asked.cases == (TrainingCase("a", (2, 0, 1), (1, 0, 0)),)
    assert sorted(slices_of(asked.epoch(1))) == [("a", 0), ("a", 0), ("a", 1), ("a", 2)]
    assert (asked.slices_per_epoch, asked.steps_per_epoch) == (4, 1)
    del row["et_per_slice"]  # as in a split of before it was counted
    assert EpochPlan.of(TrainConfig(out="run"), [row]).cases == (TrainingCase("a", (2, 0, 1)),)


# Batches


@pytest.mark.parametrize("n", [1, 2, 9, 16, 17, 40])
@pytest.mark.parametrize("batch_size", [1, 7, 16])
def test_batches_are_full_but_for_one_slice_at_most_and_none_is_too_large(n: int, batch_size: int) -> None:
    batches = plan(realistic(n), batch_size=batch_size)
    sizes = {len(batch.slices) for batch in batches}
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_size
    assert len(batches) == -(-sum(len(batch.slices) for batch in batches) // batch_size)  # no more than needed


def test_batches_carry_their_epoch_and_are_numbered_from_0() -> None:
    batches = plan(realistic(9), epoch=4)
    assert [(batch.epoch, batch.step) for batch in batches] == [(4, step) for step in range(len(batches))]


@pytest.mark.parametrize("n", range(9, 13))
def test_batches_of_few_uneven_cases_mostly_mix_eight_of_them(n: int) -> None:
    # Exactly eight in each is beyond reach: a case of ten slices cannot be in each of thirty batches.
    mixed = [
        len({case_id for case_id, _ in batch.slices})
        for seed in range(5)
        for epoch in range(3)
        for batch in plan(realistic(n, seed), epoch=epoch)
    ]
    assert min(mixed) >= 6
    assert np.mean(np.array(mixed) >= 8) > 0.8


@pytest.mark.parametrize("n", range(13, 41))
def test_every_batch_mixes_eight_cases_where_there_are_enough(n: int) -> None:
    for epoch in range(3):
        assert min(len({case_id for case_id, _ in batch.slices}) for batch in plan(realistic(n), epoch=epoch)) >= 8


def test_neighbouring_batches_draw_on_few_cases_so_that_few_files_are_open() -> None:
    batches = plan(realistic(200))
    for first in range(len(batches) - 8):
        window = {case_id for batch in batches[first : first + 8] for case_id, _ in batch.slices}
        assert len(window) <= 2 * 17  # groups of 16 or 17 here; a window touches two


def test_a_case_is_spread_evenly_over_its_group() -> None:
    batches = plan([case(f"case_{k}", 10, 40, 10) for k in range(8)])  # 50 slices of each in 25 batches
    for batch in batches:
        assert max(Counter(case_id for case_id, _ in batch.slices).values()) <= 3


# Purity


def test_the_same_seed_and_epoch_give_the_same_plan() -> None:
    assert plan(realistic(20), seed=3, epoch=5) == plan(realistic(20), seed=3, epoch=5)


def test_a_plan_is_the_same_in_another_process() -> None:
    code = (
        "from brats.data.epoch import TrainingCase, plan_epoch\n"
        "cases = [TrainingCase(f'c{k}', (0,) * 9 + (5,) * k) for k in range(20)]\n"
        "print(plan_epoch(cases, seed=1, epoch=2, batch_size=8, tumour_free_ratio=0.5))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    cases = [TrainingCase(f"c{k}", (0,) * 9 + (5,) * k) for k in range(20)]
    assert run.stdout.strip() == repr(plan(cases, seed=1, epoch=2, batch_size=8, ratio=0.5))


def test_other_epochs_and_other_seeds_give_other_orders() -> None:
    cases = realistic(20)
    first_batches = {plan(cases, seed=seed, epoch=epoch)[0].slices for seed in range(3) for epoch in range(3)}
    assert len(first_batches) == 9


@pytest.mark.parametrize("ratio", [0.0, 0.25, 2.0])
def test_every_epoch_has_the_same_number_of_steps(ratio: float) -> None:
    cases = realistic(11)
    assert len({len(plan(cases, epoch=epoch, ratio=ratio)) for epoch in range(5)}) == 1


# The plan of a run


def epoch_plan(n: int, **options: int | float) -> EpochPlan:
    defaults = {"seed": 0, "batch_size": 16, "tumour_free_ratio": 0.25}
    return EpochPlan(cases=tuple(realistic(n)), **{**defaults, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize(("n", "batch_size", "ratio"), [(1, 7, 0.25), (9, 16, 0.0), (17, 5, 0.25), (20, 16, 2.0)])
def test_counts_of_a_plan_are_those_of_every_epoch(n: int, batch_size: int, ratio: float, seed: int) -> None:
    of_run = epoch_plan(n, seed=seed, batch_size=batch_size, tumour_free_ratio=ratio)
    for epoch in (1, 2, 5, 30):
        sizes_of_batches = [len(batch.slices) for batch in of_run.epoch(epoch)]
        assert of_run.steps_per_epoch == len(sizes_of_batches)
        assert of_run.slices_per_epoch == sum(sizes_of_batches)
        assert of_run.smallest_batch == min(sizes_of_batches)


def test_plan_of_a_run_is_of_its_training_cases_and_its_configuration() -> None:
    split = [
        {"case_id": "a", "split": "train", "tumour_per_slice": [0, 5, 0]},
        {"case_id": "b", "split": "val", "tumour_per_slice": [9]},
        {"case_id": "c", "split": "test", "tumour_per_slice": [9]},
        {"case_id": "d", "split": "train", "tumour_per_slice": [2]},
    ]
    config = TrainConfig(out="run", seed=3, batch_size=2, tumour_free_ratio=1.0)
    of_run = EpochPlan.of(config, split)
    cases = [TrainingCase("a", (0, 5, 0)), TrainingCase("d", (2,))]
    assert of_run.cases == tuple(cases)
    assert of_run.epoch(4) == plan(cases, seed=3, epoch=4, batch_size=2, ratio=1.0)


def test_copy_of_a_plan_in_another_process_finds_what_is_kept_for_it() -> None:
    of_run = epoch_plan(3)
    assert {of_run: "kept"}[pickle.loads(pickle.dumps(of_run))] == "kept"


# Workers


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("n_slices", [1, 4, 15, 16])
def test_the_workers_share_a_batch_without_gap_or_overlap(n_slices: int, world_size: int) -> None:
    batch = PlannedBatch(1, 0, tuple(("a", row) for row in range(n_slices)))
    parts = [shard(batch, rank, world_size) for rank in range(world_size)]
    assert [position for part in parts for position in part] == list(range(n_slices))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_two_workers_take_the_halves_of_a_batch() -> None:
    batch = PlannedBatch(1, 0, tuple(("a", row) for row in range(7)))
    assert (shard(batch, 0, 2), shard(batch, 1, 2)) == (range(3), range(3, 7))


@pytest.mark.parametrize(
    ("n_slices", "most", "last"), [(8, 8, 8), (9, 8, 4), (5, 2, 1), (7, 3, 1), (6, 4, 3), (3, 1, 1), (1, 8, 1)]
)
def test_last_micro_batch_is_the_smallest_that_torch_cuts(n_slices: int, most: int, last: int) -> None:
    torch = pytest.importorskip("torch")
    assert smallest_chunk(n_slices, most) == last
    chunks = torch.zeros(n_slices).chunk(-(-n_slices // most))
    assert last == len(chunks[-1]) == min(map(len, chunks))
    assert max(map(len, chunks)) <= most


@pytest.mark.parametrize(
    ("n", "workers", "most", "smallest"),
    [(32, 1, 8, 8), (32, 2, 8, 8), (32, 1, 1, 1), (18, 1, 8, 4), (18, 2, 8, 4), (18, 2, 3, 2), (3, 2, 8, 1)],
)
def test_smallest_micro_batch_of_a_plan(n: int, workers: int, most: int, smallest: int) -> None:
    """Batches of 16 at most: 18 slices are two of 9, of which two workers take 4 and 5."""
    of_one = EpochPlan(cases=(TrainingCase("a", (1,) * n),), seed=0, batch_size=16, tumour_free_ratio=0)
    assert of_one.smallest_micro_batch(workers, most) == smallest
