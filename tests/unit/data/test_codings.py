"""Codings: from the codes of each edition's segmentations to labels and back."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from brats.data.codings import BRATS_2018, BRATS_2023, CODINGS, Coding
from brats.errors import UnknownLabelError
from brats.labels import ED, ET, NCR

LABELS = np.array([[0, NCR], [ED, ET]], np.uint8)


def test_editions_code_the_tissues_differently() -> None:
    assert BRATS_2018.encode(np.array([0, NCR, ED, ET], np.uint8)).tolist() == [0, 1, 2, 4]
    assert BRATS_2023.encode(np.array([0, NCR, ED, ET], np.uint8)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("coding", CODINGS.values(), ids=lambda coding: coding.name)
def test_decoding_undoes_encoding(coding: Coding) -> None:
    decoded = coding.decode(coding.encode(LABELS))
    np.testing.assert_array_equal(decoded, LABELS)
    assert decoded.dtype == np.uint8


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int64, np.float32, np.float64])
def test_codes_of_any_dtype_are_decoded(dtype: Any) -> None:
    codes = np.array([0, 1, 2, 4], dtype)
    assert BRATS_2018.decode(codes).tolist() == [0, NCR, ED, ET]


def test_single_voxels_of_a_large_volume_are_decoded() -> None:
    codes: npt.NDArray[np.int16] = np.zeros((50, 60, 70), np.int16)
    codes[0, 0, 0], codes[24, 30, 35], codes[-1, -1, -1] = 4, 2, 1
    labels = BRATS_2018.decode(codes)
    assert (labels[0, 0, 0], labels[24, 30, 35], labels[-1, -1, -1]) == (ET, ED, NCR)
    assert np.count_nonzero(labels) == 3


def test_codes_in_any_memory_order_are_decoded() -> None:
    codes = np.asfortranarray(np.array([[0, 1, 2], [4, 0, 1]]))[:, ::-1]
    assert BRATS_2018.decode(codes).tolist() == [[ED, NCR, 0], [NCR, 0, ET]]


def test_no_voxels_at_all_decode_to_none() -> None:
    assert BRATS_2018.decode(np.zeros((0, 3), np.int16)).shape == (0, 3)


def test_unknown_code_is_named_with_its_count() -> None:
    codes = np.array([0, 7, 7, 9, 1], np.int16)
    with pytest.raises(UnknownLabelError) as caught:
        BRATS_2018.decode(codes)
    assert str(caught.value) == "unknown label 7 in 2 voxels; brats2018 defines [0, 1, 2, 4]"


@pytest.mark.parametrize(("value", "said"), [(1.5, "1.5"), (-1, "-1"), (np.nan, "nan"), (np.inf, "inf")])
def test_value_between_or_beyond_codes_is_unknown(value: float, said: str) -> None:
    with pytest.raises(UnknownLabelError, match=f"unknown label {said} in 1 voxels"):
        BRATS_2018.decode(np.array([0, value, 4]))


def test_et_of_2020_is_unknown_in_2023_with_an_explanation() -> None:
    with pytest.raises(UnknownLabelError, match=r"unknown label 4 in 1 voxels; .* 2024 post-treatment set"):
        BRATS_2023.decode(np.array([0, 1, 4], np.uint8))


def test_et_of_2023_is_unknown_in_2020() -> None:
    with pytest.raises(UnknownLabelError, match=r"unknown label 3 in 1 voxels; brats2018 defines"):
        BRATS_2018.decode(np.array([0, 1, 3], np.uint8))
