"""The tables of uncertainty: rows, ranks, and how well an order finds the cases that went wrong."""

import json

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from brats.score.tables import CASE_METRICS
from brats.score.uncertainty_tables import (
    CURVES,
    FEWEST_RANKED,
    UNCERTAINTY,
    look_first,
    rank_quality,
    ranking,
    uncertainty_rows,
    with_ranks,
)
from tests.support.uncertainty import constant_uncertainty


def table_of(**per_voxel: float | None) -> pa.Table:
    """Rows of WT with this entropy per voxel, by case."""
    return UNCERTAINTY.table(
        {"case_id": case_id, "region": "WT", "entropy_per_voxel": value} for case_id, value in per_voxel.items()
    )


def scores_of(**dice: float) -> pa.Table:
    return CASE_METRICS.table(
        {"case_id": case_id, "region": "WT", "dice": value} for case_id, value in dice.items()
    )


def test_rows_of_a_case_have_the_columns_of_their_tables_and_survive_json() -> None:
    rows = uncertainty_rows("a", "p", {"WT": constant_uncertainty(), "TC": constant_uncertainty()})
    assert json.loads(json.dumps(rows)) == rows
    assert all({*row, "rank"} == {*UNCERTAINTY.schema.names} for row in rows["uncertainty"])
    assert all([*row] == CURVES.schema.names for row in rows["uncertainty_curves"])
    assert [row["region"] for row in rows["uncertainty"]] == ["WT", "TC"]
    assert len(rows["uncertainty_curves"]) == 2 * 41


def test_the_most_uncertain_case_ranks_first_after_those_without_tumour() -> None:
    ranked = with_ranks(table_of(sure=0.1, unsure=0.9, empty=None, medium=0.3)).to_pylist()
    assert {row["case_id"]: row["rank"] for row in ranked} == {"empty": 1, "unsure": 2, "medium": 3, "sure": 4}
    assert list(with_ranks(table_of(a=0.2)).column_names) == UNCERTAINTY.schema.names


def test_all_regions_of_a_case_have_its_rank() -> None:
    rows = [{"case_id": case_id, "region": region} for case_id in "ab" for region in ("WT", "ET")]
    table = UNCERTAINTY.table({**row, "entropy_per_voxel": ord(row["case_id"])} for row in rows)
    assert with_ranks(table)["rank"].to_pylist() == [2, 2, 1, 1]


@pytest.mark.parametrize("seed", range(3))
def test_quality_of_a_ranking_is_what_scipy_finds(seed: int) -> None:
    random = np.random.default_rng(seed)
    uncertainty = random.integers(0, 8, 12) / 8  # with ties
    dice = random.random(12)
    found = rank_quality(uncertainty, dice)
    assert found["spearman"] == pytest.approx(stats.spearmanr(uncertainty, dice).statistic)
    bad = dice < 0.7
    u = stats.mannwhitneyu(uncertainty[bad], uncertainty[~bad]).statistic
    assert (found["n"], found["n_bad"]) == (12, bad.sum())
    assert found["auroc"] == pytest.approx(u / (bad.sum() * (~bad).sum()))


def test_too_few_cases_or_cases_all_alike_have_no_quality() -> None:
    few = np.linspace(0, 1, FEWEST_RANKED - 1)
    assert rank_quality(few, 1 - few) == {"n": FEWEST_RANKED - 1, "spearman": None, "n_bad": 3, "auroc": None}
    some = np.linspace(0, 1, FEWEST_RANKED)
    assert rank_quality(np.ones(FEWEST_RANKED), some)["spearman"] is None
    assert rank_quality(some, np.full(FEWEST_RANKED, 0.9))["auroc"] is None


def test_a_ranking_takes_cases_that_are_scored_and_have_the_region() -> None:
    uncertainty = table_of(a=0.9, b=0.5, c=0.4, d=0.3, e=0.2, empty=None, unlabelled=0.7)
    scores = scores_of(a=0.1, b=0.8, c=0.85, d=0.9, e=0.95, empty=0.0)
    row = ranking(uncertainty, scores).to_pylist()[0]
    assert (row["region"], row["n"], row["n_bad"], row["auroc"]) == ("WT", 5, 1, 1)
    assert row["spearman"] == pytest.approx(-1)


def test_the_summary_names_the_cases_to_look_at_first() -> None:
    uncertainty = with_ranks(table_of(a=0.9, b=0.5, c=0.4, d=0.3, e=0.2, f=0.1))
    quality = ranking(uncertainty, scores_of(a=0.1, b=0.8, c=0.85, d=0.9, e=0.95))
    assert look_first(uncertainty, quality, 6) == (
        "look at these first: a, b, c, d, e (most uncertain; rank correlation with the Dice of WT -1.00, "
        "1.00 of 1 for finding a Dice below 0.7)"
    )
    unscored = ranking(uncertainty, scores_of())
    assert look_first(uncertainty, unscored, 6) == "look at these first: a, b, c, d, e (most uncertain)"
    assert look_first(with_ranks(table_of(a=0.9)), unscored, 1) == ""


def test_the_summary_says_of_how_many_cases_the_uncertainty_is_known() -> None:
    uncertainty, unscored = with_ranks(table_of(a=0.9, b=0.5)), ranking(table_of(a=0.9, b=0.5), scores_of())
    others = "as an earlier version predicted the others"
    assert look_first(uncertainty, unscored, 20) == (
        f"look at these first: a, b (most uncertain of 2 of 20 cases, {others})"
    )
    one = with_ranks(table_of(a=0.9))
    assert look_first(one, unscored, 20) == f"the uncertainty is known of 1 of 20 cases, {others}"
