"""The page and the console summary of a comparison: what stands where, and what stands for what is missing."""

import dataclasses

import pytest

from brats.report.comparison import Claim, Facts, console_summary, page
from brats.score.compare import ScoredRun, compare_runs
from tests.support.comparison import COST, FACTS, dice_of, scored_run

OURS = scored_run("brats", dice_of(0.5, 0.01))
BETTER = scored_run("better", dice_of(0.6, 0.02), hd95_mm=3.0, notebook_dice=0.95)
BINARY = scored_run("binary", dice_of(0.4, 0.01), regions=("WT",))


def page_of(*runs: ScoredRun, facts: Facts = FACTS) -> str:
    return page(compare_runs(runs, facts.reference), facts)


def cells(text: str, heading: str, *start: str) -> list[str]:
    """The cells of the row that starts so, in the table below a heading."""
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines()]
    (row,) = (row for row in rows if row[: len(start)] == list(start))
    return row[len(start) :]


def test_the_page_says_what_was_compared() -> None:
    assert (
        "2 presets, each trained for 300 steps on the same cases, with one seed, and scored on the test split of "
        "`/data/prepared`: 8 cases of 7 patients." in page_of(OURS, BETTER)
    )


def test_whole_patients_have_their_mean_and_interval() -> None:
    row = cells(page_of(OURS, BETTER), "Whole patients", "`better`")
    assert row[0].startswith("0.670 [0.6")
    assert row[3:] == ["3.0 [3.0, 3.0]"] * 3


def test_a_region_that_a_preset_cannot_tell_is_a_dash() -> None:
    text = page_of(OURS, BINARY)
    assert [cell == "-" for cell in cells(text, "Whole patients", "`binary`")] == [False, True, True] * 2
    assert cells(text, "Beside `brats`", "`binary`", "ET") == ["-"] * 8


def test_a_test_has_difference_wins_and_corrected_p() -> None:
    text = page_of(OURS, BETTER, BINARY)
    row = cells(text, "Beside `brats`", "`better`", "WT")
    assert row[0].startswith("+0.135 [+0.1")
    assert row[1:4] == ["8 : 0", "0.008", "0.016"]
    assert row[4:] == ["-1.0 [-1.0, -1.0]", "8 : 0", "0.008", "0.008"]  # the HD95 of the binary one never differs


def test_the_reason_stands_where_there_is_no_p() -> None:
    few = scored_run("few", dice_of(0.7, 0.0, n=4))
    row = cells(page_of(OURS, few), "Beside `brats`", "`few`", "WT")
    assert row[1:4] == ["4 : 0", "fewer than 6 differences", "-"]
    assert row[5:] == ["0 : 0", "no difference", "-"]


def test_a_preset_on_its_own_is_compared_with_nothing() -> None:
    assert "## Beside" not in page_of(OURS)


def test_costs_have_their_units() -> None:
    assert cells(page_of(OURS, BETTER), "What they take", "`brats`") == ["5.60", "1.5", "0.250", "2048"]
    assert "in turns on an NVIDIA T4" in page_of(OURS, BETTER)


def test_notebook_figures_stand_beside_those_of_background_alone() -> None:
    text = page_of(OURS, BETTER)
    assert cells(text, "As notebooks report it", "`better`")[:2] == ["0.980", "0.950"]
    assert cells(text, "As notebooks report it", "background alone")[:2] == ["0.986", "0.251"]
    assert "a pooled Dice of 0.986; only averaged over the classes does its Dice fall, to 0.251" in text


def test_a_preset_of_the_whole_tumour_alone_has_a_background_of_two_classes_beside_it() -> None:
    heading = "As notebooks report it"
    assert cells(page_of(OURS, BINARY), heading, "background alone, of two classes")[1] == "0.500"
    assert "NCR, ED and ET, for `binary` as tumour alone." in page_of(OURS, BINARY)
    assert "two classes" not in page_of(OURS, BETTER)


def test_what_was_published_is_quoted_for_the_presets_compared() -> None:
    assert "- `binary`: Dice .98 by Somebody" in page_of(OURS, BINARY)
    assert "Somebody" not in page_of(OURS, BETTER)


def test_a_claim_stands_beside_what_was_found() -> None:
    quick = dataclasses.replace(BETTER, cost=dataclasses.replace(COST, seconds_per_case=0.2))
    claim = Claim(preset="better", baseline="brats", dice_points=10, time_saved=0.3)
    text = page_of(OURS, quick, facts=dataclasses.replace(FACTS, claims=[claim]))
    heading = "`better` beside `brats`"
    assert cells(text, heading, "Dice of whole patients, TC") == ["+10 points", "+13.5 points"]
    assert cells(text, heading, "Dice as notebooks report it") == ["+10 points", "+5.0 points"]
    assert cells(text, heading, "Inference time") == ["-30 %", "-20 %"]


def test_a_claim_needs_both_presets() -> None:
    claim = Claim(preset="better", baseline="not trained", dice_points=10, time_saved=0.3)
    assert "not trained" not in page_of(OURS, BETTER, facts=dataclasses.replace(FACTS, claims=[claim]))


def test_failed_trainings_are_named() -> None:
    facts = dataclasses.replace(FACTS, failures={"classic-unet, seed 0": "the loss is not finite"})
    assert page_of(OURS, facts=facts).endswith(
        "## Not compared\n\n- `classic-unet, seed 0`: the loss is not finite\n"
    )
    said = console_summary(compare_runs([OURS], "brats"), facts)
    assert said.splitlines()[-1] == "NOT COMPARED: classic-unet, seed 0: the loss is not finite"
    assert "Not compared" not in page_of(OURS)


def test_seeds_are_pooled() -> None:
    second = scored_run("better", dice_of(0.4, 0.02), seed=1)
    text = page_of(OURS, dataclasses.replace(OURS, seed=1), BETTER, second)
    assert cells(text, "Whole patients", "`better`")[0].startswith("0.570 [")
    assert "2 presets, each trained for 300 steps on the same cases, with each of 2 seeds, and" in text


def test_seeds_are_counted_by_preset_where_one_of_them_failed() -> None:
    text = page_of(OURS, dataclasses.replace(OURS, seed=1), BETTER)
    assert "on the same cases, with unequal numbers of seeds (`brats` 2, `better` 1), and scored" in text


def test_cases_that_a_training_has_not_scored_are_named() -> None:
    cases = [*"abcd"]
    facts = dataclasses.replace(FACTS, left_out={"better, seed 0": cases})
    text = page_of(OURS, BETTER, facts=facts)
    assert text.endswith("## Cases left out\n\n- `better, seed 0`: a, b, c, d\n")
    assert "left out of every figure; the last section names them." in text
    said = console_summary(compare_runs([OURS, BETTER], "brats"), facts)
    assert said.splitlines()[-1] == "LEFT OUT, no scores by better, seed 0: a, b, c and 1 more"
    assert "left out" not in page_of(OURS, BETTER)


def test_nothing_is_tested_without_the_reference() -> None:
    text = page_of(BETTER, BINARY)
    section = text.partition("## Beside `brats`\n\n")[2].partition("\n\n##")[0]
    assert section == "No tests: `brats`, which the others are tested against, was not trained."
    said = console_summary(compare_runs([BETTER, BINARY], "brats"), FACTS)
    assert said.splitlines()[-1] == "means over 8 cases, HD95 in mm; no tests: brats was not trained"
    assert "*" not in said


def test_a_preset_that_is_trained_as_another_is_referred_to_it() -> None:
    facts = dataclasses.replace(FACTS, twins={"twin": "brats"}, published={"twin": "Dice .97 by Another"})
    text = page_of(OURS, BETTER, facts=facts)
    assert "`twin` is trained as `brats` is, and not a second time: see `brats`." in text
    assert "- `twin`: Dice .97 by Another" in text
    said = console_summary(compare_runs([OURS, BETTER], "brats"), facts)
    assert said.splitlines()[-1] == "twin is trained as brats is: see brats"


def test_console_has_columns_for_the_three_regions() -> None:
    header = console_summary(compare_runs([OURS], "brats"), FACTS).splitlines()[0]
    assert header == "preset   Dice WT     TC     ET   HD95 WT     TC     ET      min   s/case"


def test_console_has_a_line_for_each_preset_of_at_most_100_columns() -> None:
    long_name = dataclasses.replace(BETTER, preset="augmented-dropout-baseline")
    lines = console_summary(compare_runs([OURS, BINARY, long_name], "brats"), FACTS).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[1].split() == ["brats", *["0.535"] * 3, *["4.0"] * 3, "1.5", "0.25"]
    assert lines[2].split() == ["binary", "0.435*", "-", "-", "4.0", "-", "-", "1.5", "0.25"]
    assert lines[3].split()[:2] == ["augmented-dropout-baseline", "0.670*"]


@pytest.mark.parametrize(("n", "star"), [(8, "*"), (5, "")])
def test_a_star_marks_a_difference_that_is_significant(n: int, star: str) -> None:
    other = scored_run("other", dice_of(0.7, 0.0, n=n))
    (line,) = (
        line
        for line in console_summary(compare_runs([OURS, other], "brats"), FACTS).splitlines()
        if line.startswith("other")
    )
    assert line.split()[1] == f"0.700{star}"
