"""Scoring one pair, without Ray: the coding of the prediction, and what is wrong with it."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from brats.data.codings import BRATS_2018, BRATS_2023, Coding
from brats.data.pairs import Pair, find_pairs
from brats.data.prediction_coding import NNUNET, pairs_coding
from brats.errors import CaseError
from brats.labels import ED, ET, NCR
from brats.pipeline.scoring.evaluate import describe_codings, score
from tests.support.synthetic import save

LABELS = np.zeros((6, 5, 4), np.uint8)
LABELS[1:4, 1:4, 1:3], LABELS[2, 2, 1:3], LABELS[3, 2:4, 1] = ED, NCR, ET


def pair_of(root: Path, codes: npt.NDArray[Any], reference: Coding = BRATS_2018) -> Pair:
    """A case with LABELS as its reference, and a prediction of these codes."""
    for folder in ("cases", "masks"):
        (root / folder).mkdir()
    name = "case_seg.nii.gz" if reference is BRATS_2018 else "case-seg.nii.gz"
    save(reference.encode(LABELS), str(root / "cases" / name))
    save(codes, str(root / "masks" / "case.nii.gz"))
    (pair,) = find_pairs(str(root / "masks"), str(root / "cases")).pairs
    return pair


@pytest.mark.parametrize("reference", [BRATS_2018, BRATS_2023])
def test_prediction_in_a_stated_coding_scores_as_the_same_mask_in_that_of_its_case(
    tmp_path: Path, reference: Coding
) -> None:
    for name, coding in (("own", reference), ("nnunet", NNUNET), ("pairs", pairs_coding("7=ED,5=NCR,6=ET"))):
        (tmp_path / name).mkdir()
        part = score(pair_of(tmp_path / name, coding.encode(LABELS), reference), coding)
        assert [row["dice"] for row in part.cases] == [1, 1, 1]


def test_lesions_are_scored_by_the_rules_that_are_asked_for_where_the_id_names_no_challenge(tmp_path: Path) -> None:
    part = score(pair_of(tmp_path, BRATS_2018.encode(LABELS)), challenge_rules="met")
    assert [row["challenge_rules"] for row in part.cases] == ["met"] * 3
    assert [row["n_found_2023"] for row in part.cases] == [1, 1, 0]  # ET are 2 mm3, too small to count


def test_counts_of_the_codes_are_those_of_the_file(tmp_path: Path) -> None:
    part = score(pair_of(tmp_path, NNUNET.encode(LABELS)), NNUNET)
    assert part.code_counts == [[0, 102, 0, 0, 0], [1, 0, 0, 14, 0], [2, 0, 2, 0, 0], [3, 0, 0, 0, 2]]


def test_codes_of_another_order_are_refused_with_the_option_that_reads_them(tmp_path: Path) -> None:
    with pytest.raises(CaseError) as caught:
        score(pair_of(tmp_path, NNUNET.encode(LABELS)))
    assert caught.value.path == f"{tmp_path}/masks/case.nii.gz"
    assert caught.value.reason == (
        "unknown label 3 in 2 voxels; brats2018 defines [0, 1, 2, 4]; read as nnunet (1 ED, 2 NCR, 3 ET) it would "
        "score a mean Dice of 1.00; if that is its order, add --prediction-coding nnunet, with another --out"
    )


def test_codes_of_an_earlier_edition_are_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(CaseError) as caught:
        score(pair_of(tmp_path, BRATS_2018.encode(LABELS), BRATS_2023))
    assert caught.value.reason == (
        "unknown label 4 in 2 voxels; brats2023 defines [0, 1, 2, 3]; read as brats2018 (1 NCR, 2 ED, 4 ET) it "
        "would score a mean Dice of 1.00; if that is its order, add --prediction-coding brats2018, with another "
        "--out"
    )


def test_code_that_no_coding_has_is_refused_with_the_option(tmp_path: Path) -> None:
    codes = BRATS_2018.encode(LABELS)
    codes[0, 0, 0], codes[0, 0, 1] = 77, 78
    with pytest.raises(CaseError, match=r"unknown label 77 in 1 voxels; .*--prediction-coding states how"):
        score(pair_of(tmp_path, codes))


def test_value_that_is_no_code_at_all_is_refused_in_the_words_of_the_coding(tmp_path: Path) -> None:
    codes = LABELS.astype(np.float32)
    codes[0, 0, 0] = 1.5
    with pytest.raises(CaseError, match=r"unknown label 1\.5 in 1 voxels; brats2023 defines \[0, 1, 2, 3\]"):
        score(pair_of(tmp_path, codes, BRATS_2023))


def test_labels_that_were_rounded_are_a_warning_of_either_file(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, BRATS_2018.encode(LABELS) * np.float32(0.9999))
    assert score(pair).warnings == ["case.nii.gz: 18 voxels were not exactly at a code, and were rounded to it"]


def test_damaged_prediction_is_refused_as_such(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, BRATS_2018.encode(LABELS))
    Path(pair.prediction.path).write_bytes(b"damaged" * 200)
    with pytest.raises(CaseError, match="not a NIfTI file"):
        score(pair)


def test_codes_of_an_image_are_refused_with_the_pairs_that_read_them(tmp_path: Path) -> None:
    codes = (85 * BRATS_2023.encode(LABELS)).astype(np.uint8)
    pair = pair_of(tmp_path, codes)
    with pytest.raises(CaseError, match=r"greys of an image: .*; read as 85=NCR,170=ED,255=ET .* Dice of 1\.00;"):
        score(pair)
    assert [row["dice"] for row in score(pair, pairs_coding("85=NCR,170=ED,255=ET")).cases] == [1, 1, 1]


def test_order_that_does_not_fit_is_not_advised(tmp_path: Path) -> None:
    codes = np.zeros_like(LABELS)
    codes[5, 4, 3] = 3
    with pytest.raises(CaseError, match=r"unknown label 3 in 1 voxels; .*; --prediction-coding states how"):
        score(pair_of(tmp_path, codes))


def test_codings_of_references_and_predictions_are_one_line(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, BRATS_2018.encode(LABELS))
    assert describe_codings([pair, pair], None) == (
        "references in coding brats2018 of 2 cases; predictions as the reference of each"
    )
    assert describe_codings([pair], NNUNET) == (
        "references in coding brats2018 of 1 case; predictions in --prediction-coding nnunet (1 ED, 2 NCR, 3 ET)"
    )
