"""How long a run trains, its learning rates, and which epochs are validated and saved."""

import dataclasses
import itertools
import math
from typing import Any

import pytest

from brats.config import TrainConfig
from brats.model.history import HistoryRow
from brats.model.schedule import (
    CHECK_STEPS,
    Moment,
    Schedule,
    bounded,
    cadence_on,
    check_steps,
    closing_s,
    every_epoch,
    finished,
    moment_of,
    overhead,
    since_closed,
    spaced_by_time,
    step_rate,
    trained_s,
    waited,
)

START = Moment(step=0, elapsed_s=0, step_s=None)


def config(**values: Any) -> TrainConfig:
    return TrainConfig(out="run", learning_rate=2.0, warmup_steps=2, patience=2, **values)


def row(
    epoch: int = 1,
    *,
    dice: float | None = 0.5,
    steps: int = 10,
    train: float = 20,
    closing: float = 4,
    rate: float = 0,
) -> Any:
    """A row of a history: of so many steps and seconds, and if it was validated, of the seconds that took."""
    elapsed = train if dice is None else train + closing
    seconds = {"train_s": train, "elapsed_s": elapsed}
    return {"epoch": epoch, "val_dice": dice, "n_steps": steps, "learning_rate": rate, **seconds}


def rows(*dice: float | None) -> list[HistoryRow]:
    return [row(epoch, dice=value) for epoch, value in enumerate(dice, start=1)]


def in_minutes(seconds: float) -> Schedule:
    return Schedule.of(config(minutes=seconds / 60), 10, [])


# The learning rate, by steps


def test_the_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    schedule = Schedule.of(config(epochs=2), 3, [])
    half_of_45_degrees = 1 + math.sqrt(0.5)
    rates = [schedule.learning_rate(step, START) for step in range(6)]
    assert rates == pytest.approx([1, 2, 2, half_of_45_degrees, 1, 2 - half_of_45_degrees])


def test_without_warm_up_the_first_step_has_the_full_learning_rate() -> None:
    assert step_rate(0, 100, 0) == 1


def test_the_last_step_has_next_to_no_learning_rate_but_some() -> None:
    assert 0 < step_rate(999, 1000, 50) < 1e-5


def test_the_warm_up_takes_at_most_half_of_a_short_run() -> None:
    assert [step_rate(step, 4, 50) for step in range(4)] == pytest.approx([0.5, 1, 1, 0.5])


def test_a_run_of_steps_learns_as_one_of_as_many_in_epochs_whatever_the_time() -> None:
    epochs, steps = Schedule.of(config(epochs=2), 3, []), Schedule.of(config(steps=6), 3, [])
    late = Moment(step=3, elapsed_s=1e6, step_s=99)
    for step in range(6):
        assert steps.learning_rate(step, late) == epochs.learning_rate(step, START)


def test_a_resumed_run_has_the_schedule_of_an_uninterrupted_one() -> None:
    for bound in ({"epochs": 3}, {"steps": 30}, {"minutes": 1}):
        assert Schedule.of(config(**bound), 10, rows(0.5, 0.6)) == Schedule.of(config(**bound), 10, [])


def test_an_epoch_that_a_shorter_run_cut_short_counts_as_the_steps_that_it_had() -> None:
    assert Schedule.of(config(epochs=3), 10, [row(1), row(2, steps=4)]).n_steps == 24


# The learning rate, by the clock


def test_in_minutes_the_learning_rate_falls_along_a_cosine_of_the_time_passed() -> None:
    rates = [in_minutes(60).learning_rate(99, Moment(step=99, elapsed_s=s, step_s=1)) for s in (0, 20, 30, 45, 60)]
    assert rates == pytest.approx([2, 1.5, 1, 1 - math.sqrt(0.5), 0])


def test_between_looks_at_the_clock_time_goes_on_by_as_much_per_step_as_before() -> None:
    moment = Moment(step=100, elapsed_s=20, step_s=0.5)
    ahead = in_minutes(60).learning_rate(120, moment)
    assert ahead == in_minutes(60).learning_rate(120, Moment(step=120, elapsed_s=30, step_s=0.5))
    assert in_minutes(60).learning_rate(1000, moment) == 0  # past the end, where a step took longer


def test_in_minutes_the_warm_up_counts_steps_and_ends_at_half_of_the_time_at_the_latest() -> None:
    schedule = dataclasses.replace(in_minutes(100), warmup_steps=50)
    at = {s: schedule.learning_rate(4, Moment(step=4, elapsed_s=s, step_s=None)) for s in (0.0, 1.0, 25.0, 50.0)}
    cosine = {s: 1 + math.cos(math.pi * s / 100) for s in at}
    assert at == pytest.approx({s: share * cosine[s] for s, share in zip(at, (0.1, 0.1, 0.5, 1), strict=True)})


# Looks at the clock


@pytest.mark.parametrize(
    ("step_s", "steps"), [(None, 1), (0.0, CHECK_STEPS), (0.001, CHECK_STEPS), (0.1, 20), (1.5, 1), (3, 1)]
)
def test_ranks_share_their_clock_every_two_seconds_or_fifty_steps(step_s: float | None, steps: int) -> None:
    assert check_steps(step_s) == steps


@pytest.mark.parametrize(
    ("elapsed_s", "step_s", "steps"),
    [
        (0, 0.1, 20),
        (58.8, 0.1, 2),
        (58.97, 0.1, 0),
        (55, 3, 1),
        (57, 3, 1),
        (58, 3, 0),
        (61, 0.1, 0),
        (61, None, 0),
    ],
)
def test_the_last_look_is_at_the_step_whose_end_is_nearest_to_that_of_the_run(
    elapsed_s: float, step_s: float | None, steps: int
) -> None:
    """A second of the 60 is left for validation."""
    assert in_minutes(60).steps_to_check(Moment(step=9, elapsed_s=elapsed_s, step_s=step_s), 1.0) == steps


def test_a_run_of_steps_ends_with_its_last_whatever_the_time() -> None:
    schedule = Schedule.of(config(steps=25), 10, [])
    left = [schedule.steps_to_check(Moment(step=s, elapsed_s=1e9, step_s=0.01), 1e9) for s in (0, 20, 25, 30)]
    assert left == [25, 5, 0, 0]


@pytest.mark.parametrize("step_s", [0.002, 0.11, 0.7, 3.0, 7.0])
def test_a_run_in_minutes_is_over_within_half_a_step_of_its_time(step_s: float) -> None:
    moment, schedule = Moment(step=0, elapsed_s=0, step_s=None), in_minutes(60)
    while n_steps := schedule.steps_to_check(moment, 2.0):
        moment = moment.then(n_steps, moment.elapsed_s + n_steps * step_s)
    assert abs(moment.elapsed_s - 58) <= step_s / 2 + 1e-6


# The end


@pytest.mark.parametrize(
    ("dice", "done"),
    [
        ([], False),
        ([0.5], False),
        ([0.5, 0.4], False),
        ([0.5, 0.4, 0.5], True),  # two epochs without a better one
        ([0.5, 0.4, 0.6], False),
        ([0.5, 0.6, 0.7, 0.8], False),
        ([0.1, 0.2, 0.3, 0.4, 0.5], True),  # all epochs
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], True),  # fewer epochs than there are asked for
        ([0.5, None, None], False),  # nobody knows whether these are better
        ([0.5, None, None, 0.4], False),  # one validation in four epochs, and it takes as many as `patience`
        ([0.5, 0.4, None, 0.4], True),
        ([0.5, None, None, 0.6], False),
    ],
)
def test_training_ends_after_its_epochs_or_when_patience_does(dice: list[float | None], done: bool) -> None:
    assert finished(rows(*dice), config(epochs=5)) == done


@pytest.mark.parametrize(
    ("rates", "epochs"),
    [
        ([0.1, 0.5, 1, 1, 1], 0),  # high
        ([0.2, 0.4, 0.6, 0.8, 1], 0),  # still on its way up
        ([1, 1, 1, 0.26, 0.25], 1),
        ([1, 0.9, 0.25, 0.2, 0.1], 3),
        ([1, 0.1, 0.1, 0.1, 0.1], 4),  # since the best
        ([1, 0.1, 0.0, 0.8, 0.2], 1),  # went on after its end
    ],
)
def test_patience_counts_epochs_since_the_best_at_a_quarter_of_the_learning_rate_or_less(
    rates: list[float], epochs: int
) -> None:
    best_first = (0.9, 0.5, 0.5, 0.5, 0.5)
    history = [
        row(number, dice=dice, rate=rate)
        for number, (dice, rate) in enumerate(zip(best_first, rates, strict=True), 1)
    ]
    assert waited(history) == epochs
    assert finished(history, config(epochs=99)) == (epochs >= 2)


def test_the_last_third_of_a_run_is_at_a_quarter_of_the_learning_rate() -> None:
    assert step_rate(66, 100, 0) > 0.25 > step_rate(67, 100, 0)


def test_without_patience_training_goes_on_to_its_end() -> None:
    patient = dataclasses.replace(config(epochs=30), patience=None)
    assert [finished(rows(0.9, *[0.1] * n), patient) for n in (28, 29)] == [False, True]


@pytest.mark.parametrize(
    ("steps_per_epoch", "epochs"), [(31, 146), (150, 30), (149, 31), (812, 30), (5000, 30), (1, 4500)]
)
def test_a_run_that_nothing_bounds_takes_30_epochs_or_4500_steps(steps_per_epoch: int, epochs: int) -> None:
    given = config()
    assert bounded(given, steps_per_epoch) == dataclasses.replace(given, epochs=epochs)


@pytest.mark.parametrize("bound", [{"epochs": 3}, {"steps": 3}, {"minutes": 3.0}])
def test_a_bound_that_is_given_is_left_as_it_is(bound: dict[str, Any]) -> None:
    assert bounded(config(**bound), 31) == config(**bound)


def test_training_ends_after_its_steps() -> None:
    history = [row(1, steps=10), row(2, dice=0.6, steps=4)]
    assert [finished(history, config(steps=steps)) for steps in (15, 14, 3)] == [False, True, True]


def test_training_ends_when_what_is_left_is_too_short_for_a_step_and_validation() -> None:
    history = [row(1), row(2, dice=None)]  # 44 seconds, 2 a step, 4 for validation
    assert [finished(history, config(minutes=s / 60)) for s in (50.1, 49.9, 30)] == [False, True, True]


def test_a_longer_bound_of_any_kind_goes_on_after_the_end() -> None:
    history = rows(0.5, 0.6)
    for longer in ({"epochs": 3}, {"steps": 21}, {"minutes": 1}):
        assert not finished(history, config(**longer))


# What is left


def test_the_epochs_of_a_start_are_those_that_are_left() -> None:
    history = [row(1), row(2, dice=0.6, steps=4)]
    for bound, epochs in (({"epochs": 5}, range(3, 6)), ({"steps": 15}, range(3, 4)), ({"steps": 25}, range(3, 5))):
        assert Schedule.of(config(**bound), 10, history).epochs(history, 10) == epochs


def test_a_run_in_minutes_plans_more_epochs_than_it_can_train_but_not_without_end() -> None:
    history = rows(0.5)
    epochs = Schedule.of(config(minutes=1), 10, history).epochs(history, 10)
    assert epochs == range(2, 2 + 180)  # 36 seconds of 50 steps
    assert len(Schedule.of(config(minutes=600), 10, history).epochs(history, 10)) == 5000


def test_time_left_is_that_of_the_steps_and_what_comes_with_them() -> None:
    moment = Moment(step=10, elapsed_s=24, step_s=2.0)
    assert Schedule.of(config(steps=15), 10, []).left_s(moment, 1.2) == 12
    assert in_minutes(60).left_s(moment, 1.2) == 36


def test_the_overhead_is_that_of_the_epochs_since_the_validation_before() -> None:
    assert overhead([]) == 1
    assert overhead(rows(0.5)) == 24 / 20
    assert overhead([row(1, closing=99), *rows(None, None, 0.5)]) == 64 / 60
    assert overhead([row(1, closing=99), *rows(None, None, 0.5, None)]) == 64 / 60


def test_a_moment_adds_up_all_epochs() -> None:
    assert moment_of([]) == START
    assert moment_of(rows(0.5, None)) == Moment(step=20, elapsed_s=44, step_s=2)


# Which epochs are validated and saved


def test_on_cpus_every_epoch_is_validated_and_on_a_gpu_they_are_spaced_by_time() -> None:
    assert cadence_on("cpu") is every_epoch
    assert cadence_on("cuda") is spaced_by_time
    assert every_epoch(0, 1e9)


@pytest.mark.parametrize(
    ("trained", "cost", "due"),
    [(0, 0, True), (24, 1, False), (25, 1, True), (249, 10, False), (250, 10, True), (600, 1000, True)],
)
def test_on_a_gpu_validation_is_due_after_25_times_its_cost_or_ten_minutes(
    trained: float, cost: float, due: bool
) -> None:
    assert spaced_by_time(trained, cost) == due


@pytest.mark.parametrize(("epoch_s", "cost_s"), list(itertools.product([0.5, 1, 7, 83], [0.05, 0.5, 2, 19])))
def test_on_a_gpu_validation_takes_at_most_five_percent(epoch_s: float, cost_s: float) -> None:
    """But in epochs shorter than that, of the first."""
    history: list[HistoryRow] = []
    for epoch in range(1, 1001):
        history.append(row(epoch, dice=None, train=epoch_s))
        if spaced_by_time(trained_s(history), closing_s(history)):
            history[-1] = row(epoch, train=epoch_s, closing=cost_s)
    later = history[1:]
    closing = sum(each["elapsed_s"] - each["train_s"] for each in later)
    assert 0 < closing <= 0.05 * sum(each["elapsed_s"] for each in later)


def test_what_was_trained_and_what_it_cost_count_from_the_last_validation() -> None:
    history = [row(1, closing=9), row(2, closing=3), *rows(None, None)]
    assert (trained_s(history), closing_s(history)) == (40, 3)
    assert since_closed(history) == history[2:]
    assert (trained_s([]), closing_s([])) == (0, 0)
