"""Paired comparison of two models: hand-computed differences, p values and corrections, and parity with SciPy."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from brats.score.paired import compare_paired, holm, signed_rank_p


def scores(*values: float, first: str = "a") -> pd.Series:
    return pd.Series(values, index=[chr(ord(first) + place) for place in range(len(values))], dtype=float)


def test_differences_wins_and_losses_are_those_counted_by_hand() -> None:
    found = compare_paired(scores(0.9, 0.5, 0.7, 0.6), scores(0.8, 0.7, 0.7, 0.2))
    assert (found.n_pairs, found.wins, found.losses) == (4, 2, 1)
    assert found.difference == pytest.approx((0.1 - 0.2 + 0 + 0.4) / 4)


def test_lower_is_better_swaps_wins_and_losses_but_not_the_difference() -> None:
    found = compare_paired(scores(5.0, 9.0, 3.0), scores(6.0, 4.0, 4.0), lower_is_better=True)
    assert (found.wins, found.losses, found.difference) == (2, 1, 1.0)


def test_only_patients_that_both_have_are_paired() -> None:
    ours, theirs = scores(0.5, 0.6, 0.7), scores(0.4, 0.6, 0.1, first="b")
    found = compare_paired(ours, theirs)  # b: .6 and .4, c: .7 and .6
    assert found.n_pairs == 2
    assert found.difference == pytest.approx(0.15)


def test_patients_without_a_value_are_left_out() -> None:
    found = compare_paired(scores(0.5, np.nan, 0.7), scores(0.4, 0.5, np.nan))
    assert (found.n_pairs, found.wins) == (1, 1)
    assert (found.ci95_low, found.ci95_high) == (None, None)


def test_a_model_that_cannot_tell_a_region_has_no_pairs() -> None:
    found = compare_paired(scores(np.nan, np.nan), scores(0.4, 0.5))
    assert (found.n_pairs, found.difference, found.p, found.why_no_p) == (0, None, None, "no patient has both")


def test_the_interval_of_equal_differences_is_that_difference() -> None:
    found = compare_paired(scores(*np.full(8, 0.75)), scores(*np.full(8, 0.5)))
    assert (found.difference, found.ci95_low, found.ci95_high) == (0.25, 0.25, 0.25)


def test_p_of_six_gains_is_two_of_64_sign_patterns() -> None:
    assert signed_rank_p(np.array([1.0, 2, 3, 4, 5, 6])) == (2 / 64, "")


def test_p_counts_the_sign_patterns_at_least_as_extreme() -> None:
    # Ranks 1 to 7, of which only the 2 is negative: rank sums of 0, 1 and 2 make 3 patterns of 128 in each tail.
    p, _ = signed_rank_p(np.array([1.0, -2, 3, 4, 5, 6, 7]))
    assert p == pytest.approx(2 * 3 / 128)


def test_equal_differences_share_their_rank() -> None:
    # All of one size: the sign test. One loss or none of 7: 1 + 7 patterns of 128 in each tail.
    p, _ = signed_rank_p(np.array([1.0, 1, 1, 1, 1, 1, -1]))
    assert p == pytest.approx(2 * 8 / 128)


def test_differences_of_zero_change_no_p() -> None:
    differences = np.array([0.5, -0.1, 0.2, 0.3, 0.4, 0.6, 0.7])
    assert signed_rank_p(np.append(differences, [0.0, 0.0])) == signed_rank_p(differences)


@pytest.mark.parametrize("n", [6, 20, 80])
def test_p_is_that_of_scipy(n: int) -> None:
    ours, theirs = np.random.default_rng(n).random((2, n))
    names = [f"{number:02}" for number in range(n)]
    found = compare_paired(pd.Series(ours, names), pd.Series(theirs, names))
    assert found.p == pytest.approx(scipy.stats.wilcoxon(ours, theirs).pvalue)


@pytest.mark.parametrize(
    ("differences", "why"),
    [
        ([], "no patient has both"),
        ([0.0] * 9, "no difference"),
        ([0.1, 0.2, 0.3, 0.4, 0.5], "fewer than 6 differences"),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.0, 0.0], "fewer than 6 differences"),
    ],
)
def test_too_few_differences_have_no_p_and_say_why(differences: list[float], why: str) -> None:
    assert signed_rank_p(np.array(differences)) == (None, why)


def test_holm_multiplies_by_the_number_of_tests_left() -> None:
    # The example of Holm's method with four hypotheses: .005 x 4, .01 x 3, .03 x 2, and .04 raised to .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_is_capped_at_one() -> None:
    assert holm([0.6, 0.4, 0.9]) == [1.0, 1.0, 1.0]


def test_holm_leaves_out_tests_without_a_p() -> None:
    assert holm([None, 0.02, None, 0.03]) == [None, 0.04, None, 0.04]


def test_one_test_needs_no_correction() -> None:
    assert holm([0.04]) == [0.04]
    assert holm([]) == []
