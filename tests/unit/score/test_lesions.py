"""Counts of lesions by their status."""

import pytest

from brats.score.lesions import Lesion, count, count_metrics, mean

LESIONS = [Lesion(status, 1.0, (0, 0, 0)) for status in ("found", "found", "missed", "false", "false", "false")]
LESIONS.append(Lesion("ignored", 1.0, (0, 0, 0)))


def test_lesions_are_counted_by_status() -> None:
    assert (count(LESIONS, "found"), count(LESIONS, "missed", "false"), count([], "found")) == (2, 4, 0)


def test_columns_of_counts_carry_the_year_and_leave_ignored_lesions_out() -> None:
    values = {metric.name: metric.value(LESIONS) for metric in count_metrics(2031)}
    assert values == {"n_lesions_2031": 3, "n_found_2031": 2, "n_missed_2031": 1, "n_false_2031": 3}
    assert all(metric.is_count for metric in count_metrics(2031))


def test_a_mean_is_of_the_values_that_there_are() -> None:
    assert mean([0.5, None, 1.0]) == pytest.approx(0.75)
