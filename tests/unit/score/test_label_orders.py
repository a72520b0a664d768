"""Dice of masks in every known order of codes, from one count, and when an order is worth a warning."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from brats.data.codings import BRATS_2018, BRATS_2023, CODINGS
from brats.data.prediction_coding import NNUNET, pairs_coding
from brats.labels import ED, ET, NCR, TISSUES, Labels
from brats.score.label_orders import CodeCounts, best_order, count_codes, defines, order_dice, order_warnings
from brats.score.metrics import case_metrics, count_overlap
from tests.support import ROOT

# A row of 10 voxels: 1 background, 1 NCR, 5 ED, 3 ET.
REFERENCE = np.array([0, NCR, ED, ED, ED, ED, ED, ET, ET, ET], np.uint8).reshape(1, 2, 5)
RIGHT = BRATS_2023.encode(REFERENCE)
SWAPPED = np.array([0, 2, 1, 1, 1, 1, 1, 3, 3, 3], np.uint8).reshape(1, 2, 5)  # the right mask as nnU-Net writes it


def counts_of(codes: Labels, reference: Labels = REFERENCE) -> CodeCounts:
    return count_codes(reference, codes)


def warnings_of(counts: dict[str, CodeCounts]) -> list[str]:
    codings = dict.fromkeys(counts, BRATS_2023)
    return order_warnings(counts, codings, codings)


def test_counts_are_by_code_then_by_label_of_the_reference() -> None:
    assert counts_of(SWAPPED) == [[0, 1, 0, 0, 0], [1, 0, 0, 5, 0], [2, 0, 1, 0, 0], [3, 0, 0, 0, 3]]


def test_every_voxel_of_the_volume_is_counted() -> None:
    reference, codes = np.zeros((2, 6, 7, 8), np.uint8)
    reference[1, 2, 3], codes[4, 5, 6], codes[1, 1, 1] = ET, 254, 7
    assert count_codes(reference, codes) == [[0, 333, 0, 0, 1], [7, 1, 0, 0, 0], [254, 1, 0, 0, 0]]


def test_two_empty_masks_have_one_row() -> None:
    empty = np.zeros((2, 3, 4), np.uint8)
    assert count_codes(empty, empty) == [[0, 24, 0, 0, 0]]


def test_dice_in_each_order_is_the_one_computed_by_hand() -> None:
    counts = counts_of(SWAPPED)
    # Read as BRATS_2023: TC of the reference are 1 NCR + 3 ET, of the mask 5 + 3, of which 3 ET in both: 6 / 12.
    assert order_dice(counts, BRATS_2023) == {"WT": 1, "TC": 0.5, "ET": 1}
    assert order_dice(counts, NNUNET) == {"WT": 1, "TC": 1, "ET": 1}
    # TC: codes 2 and 1, 6 voxels of which 1 NCR in 4 of the reference: 2 / 10. ET: code 1, none.
    assert order_dice(counts, pairs_coding("1=ET,2=NCR,3=ED")) == {"WT": 1, "TC": 0.2, "ET": 0}


def test_dice_in_every_order_is_that_of_the_metrics() -> None:
    random = np.random.default_rng(0)
    reference, codes = random.integers(0, 4, (2, 5, 6, 7), np.uint8)
    for order in itertools.permutations(TISSUES):
        coding = pairs_coding(",".join(f"{code}={name}" for code, name in enumerate(order, start=1)))
        scored = case_metrics(count_overlap(reference, coding.decode(codes), (1, 1, 1)))
        assert order_dice(count_codes(reference, codes), coding) == {
            name: row["dice"] for name, row in scored.items()
        }


def test_region_empty_in_both_scores_one() -> None:
    empty = np.zeros((1, 2, 5), np.uint8)
    assert order_dice(counts_of(empty, empty), BRATS_2018) == {"WT": 1, "TC": 1, "ET": 1}
    assert order_dice(counts_of(empty), BRATS_2018) == {"WT": 0, "TC": 0, "ET": 0}


def test_coding_without_a_code_that_is_found_does_not_define_it() -> None:
    assert not defines(BRATS_2018, counts_of(SWAPPED))
    assert defines(NNUNET, counts_of(SWAPPED))


def test_masks_in_another_order_get_a_warning_with_both_figures_and_the_option() -> None:
    assert warnings_of({"a": counts_of(SWAPPED), "b": counts_of(SWAPPED)}) == [
        "read as nnunet (1 ED, 2 NCR, 3 ET) these masks would score a mean Dice of 1.00, not 0.83; if that is "
        "their order, add --prediction-coding nnunet, with another --out"
    ]


def test_masks_in_the_order_of_their_cases_but_another_stated_get_a_warning() -> None:
    counts = {"a": counts_of(RIGHT)}
    (warning,) = order_warnings(counts, {"a": NNUNET}, {"a": BRATS_2023})
    assert warning.startswith(
        "read as case (1 NCR, 2 ED, 3 ET) these masks would score a mean Dice of 1.00, not 0.83"
    )
    assert "add --prediction-coding case," in warning


def test_masks_of_two_codes_that_mean_each_other_get_a_warning() -> None:
    reference = np.where(REFERENCE == ET, NCR, REFERENCE).astype(np.uint8)
    counts = {"a": counts_of(NNUNET.encode(reference), reference)}
    (warning,) = order_warnings(counts, {"a": BRATS_2018}, {"a": BRATS_2018})
    assert "add --prediction-coding nnunet," in warning


def test_order_without_a_name_is_given_as_pairs() -> None:
    codes = np.array([0, 3, 1, 2], np.uint8)[REFERENCE]  # 3 NCR, 1 ED, 2 ET
    (warning,) = warnings_of({"a": counts_of(codes)})
    assert "add --prediction-coding 1=ED,2=ET,3=NCR," in warning


@pytest.mark.parametrize("codes", [RIGHT, np.zeros_like(RIGHT), np.roll(RIGHT, 1), RIGHT * (RIGHT == 2)])
def test_right_empty_displaced_and_partial_masks_get_none(codes: Labels) -> None:
    assert warnings_of({"a": counts_of(codes)}) == []


def test_whole_tumour_in_one_code_gets_a_warning_only_where_it_is_good_in_another_order() -> None:
    assert warnings_of({"a": counts_of(np.where(REFERENCE > 0, ED, 0).astype(np.uint8))}) == []
    core = np.where(REFERENCE > 0, NCR, 0).astype(np.uint8)
    (warning,) = warnings_of({"a": counts_of(NNUNET.encode(core), core)})
    assert "add --prediction-coding nnunet," in warning


def test_no_case_gets_no_warning() -> None:
    assert warnings_of({}) == []


def test_codes_that_no_other_coding_defines_get_no_warning() -> None:
    coding = pairs_coding("5=NCR,6=ED")
    counts = {"a": counts_of(np.array([0, 5, 6, 6], np.uint8)[REFERENCE])}
    assert order_warnings(counts, {"a": coding}, {"a": BRATS_2023}) == []


def test_some_masks_in_another_order_are_named_where_the_mean_hides_them() -> None:
    counts = {name: counts_of(SWAPPED if name in "ab" else RIGHT) for name in "abcdef"}
    assert warnings_of(counts) == [
        "read as nnunet (1 ED, 2 NCR, 3 ET) 2 of 6 masks would score a mean Dice of 1.00, not 0.83: a, b; if that "
        "is their order, score them apart with --prediction-coding nnunet"
    ]


def test_cases_of_two_editions_are_each_read_in_their_own_coding() -> None:
    counts = {"old": counts_of(BRATS_2018.encode(REFERENCE)), "new": counts_of(RIGHT)}
    codings = {"old": BRATS_2018, "new": BRATS_2023}
    assert order_warnings(counts, codings, codings) == []


@pytest.mark.parametrize(
    ("order", "option"),
    [
        ([0, 0, 1, 2], "1=ED,2=ET"),  # without NCR
        ([0, 1, 0, 2], "1=NCR,2=ET"),
        ([0, 3, 1, 2], "1=ED,2=ET,3=NCR"),
    ],
)
def test_order_of_two_and_three_codes_is_the_one_they_were_written_in(order: list[int], option: str) -> None:
    tissues = [label for label, code in enumerate(order) if code or not label]
    reference = np.where(np.isin(REFERENCE, tissues), REFERENCE, 0).astype(np.uint8)
    (warning,) = warnings_of({"a": counts_of(np.array(order, np.uint8)[reference], reference)})
    assert "would score a mean Dice of 1.00" in warning
    assert f"add --prediction-coding {option}," in warning


def test_missing_core_does_not_hide_the_order_of_the_rest() -> None:
    counts = {"a": counts_of(np.array([0, 0, 1, 2], np.uint8)[REFERENCE])}  # of 9 tumour voxels, 1 is NCR
    (warning,) = warnings_of(counts)
    # 1=ED,2=ET: WT 2 x 8 / 17, TC 2 x 3 / 7, ET 1. BRATS_2023: WT 2 x 8 / 17, TC 0 / 9, ET 0.
    assert warning.startswith(
        "read as 1=ED,2=ET (1 ED, 2 ET) these masks would score a mean Dice of 0.93, not 0.31;"
    )


def test_one_of_four_codes_may_be_the_background() -> None:
    reference = np.concatenate([REFERENCE, np.zeros_like(REFERENCE)])
    codes = np.array([0, 3, 1, 2], np.uint8)[reference]
    codes[1] = 4
    counts = {"a": counts_of(codes, reference)}
    (warning,) = order_warnings(counts, {"a": CODINGS["brats2024-gli"]}, {"a": CODINGS["brats2024-gli"]})
    assert warning.startswith("read as 1=ED,2=ET,3=NCR,4=BG (1 ED, 2 ET, 3 NCR, 4 BG) these masks would score")
    assert "a mean Dice of 1.00" in warning


FOUR_TISSUES = """
from brats.labels import REGIONS, TISSUES, Region

TISSUES["rc"] = 4  # before the modules that look at the tissues when they are imported
REGIONS["RC"] = Region(labels=(4,), label=4, full_name="resection cavity", colour="#009E73", marker="D")
from brats.score.label_orders import best_order

labelled = [[9, 0, 0, 0, 0], [0, 0, 5, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 3, 0], [0, 0, 0, 0, 2]]
print(best_order([[code, *counts] for code, counts in enumerate(labelled)]))
"""


def test_four_codes_may_be_four_tissues_where_there_are_as_many() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FOUR_TISSUES], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "option='1=ED,2=NCR,3=ET,4=RC'" in done.stdout
    assert done.stdout.endswith(", 1.0)\n")


def test_best_of_readings_that_all_fit_poorly_is_not_advised() -> None:
    codes = np.array([1, 0, 1, 1, 2, 2, 2, 0, 0, 2], np.uint8).reshape(1, 2, 5)
    counts = counts_of(codes)
    # nnunet: WT 2 x 7 / 16, TC 2 x 1 / 8, ET 0, and 1=ED,2=ET at most TC 2 / 8: below GOOD_DICE.
    assert warnings_of({"a": counts}) == []
    assert best_order(counts) is None


def test_best_order_of_a_case_is_the_one_that_fits_its_reference() -> None:
    best = best_order(counts_of(SWAPPED))
    assert best is not None
    assert (str(best[0]), best[1]) == ("nnunet (1 ED, 2 NCR, 3 ET)", 1)
    assert best_order([[0, 5, 0, 0, 0], [9, 0, 1, 0, 0]]) is None
