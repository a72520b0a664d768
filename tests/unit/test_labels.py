"""Labels: codes of each edition, regions, and counts."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from brats.errors import UnknownLabelError
from brats.labels import (
    ED,
    ET,
    LAYOUT_CODES,
    NCR,
    REGIONS,
    TISSUES,
    count_regions,
    count_tissues,
    decode_labels,
    encode_labels,
    region_mask,
)

LABELS = np.array([[0, NCR], [ED, ET]], np.uint8)


def test_the_editions_code_the_tissues_differently() -> None:
    assert encode_labels(np.array([0, NCR, ED, ET], np.uint8), "brats2018").tolist() == [0, 1, 2, 4]
    assert encode_labels(np.array([0, NCR, ED, ET], np.uint8), "brats2023").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("layout", LAYOUT_CODES)
def test_decoding_undoes_encoding(layout: str) -> None:
    decoded = decode_labels(encode_labels(LABELS, layout), layout)
    np.testing.assert_array_equal(decoded, LABELS)
    assert decoded.dtype == np.uint8


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int64, np.float32, np.float64])
def test_codes_of_any_dtype_are_decoded(dtype: Any) -> None:
    codes = np.array([0, 1, 2, 4], dtype)
    assert decode_labels(codes, "brats2018").tolist() == [0, NCR, ED, ET]


def test_single_voxels_of_a_large_volume_are_decoded() -> None:
    codes: npt.NDArray[np.int16] = np.zeros((50, 60, 70), np.int16)
    codes[0, 0, 0], codes[24, 30, 35], codes[-1, -1, -1] = 4, 2, 1
    labels = decode_labels(codes, "brats2018")
    assert (labels[0, 0, 0], labels[24, 30, 35], labels[-1, -1, -1]) == (ET, ED, NCR)
    assert np.count_nonzero(labels) == 3


def test_codes_in_any_memory_order_are_decoded() -> None:
    codes = np.asfortranarray(np.array([[0, 1, 2], [4, 0, 1]]))[:, ::-1]
    assert decode_labels(codes, "brats2018").tolist() == [[ED, NCR, 0], [NCR, 0, ET]]


def test_no_voxels_at_all_decode_to_none() -> None:
    assert decode_labels(np.zeros((0, 3), np.int16), "brats2018").shape == (0, 3)


def test_an_unknown_code_is_named_with_its_count() -> None:
    codes = np.array([0, 7, 7, 9, 1], np.int16)
    with pytest.raises(UnknownLabelError) as caught:
        decode_labels(codes, "brats2018")
    assert str(caught.value) == "unknown label 7 in 2 voxels; brats2018 defines [0, 1, 2, 4]"


@pytest.mark.parametrize(("value", "said"), [(1.5, "1.5"), (-1, "-1"), (np.nan, "nan"), (np.inf, "inf")])
def test_a_value_between_or_beyond_codes_is_unknown(value: float, said: str) -> None:
    with pytest.raises(UnknownLabelError, match=f"unknown label {said} in 1 voxels"):
        decode_labels(np.array([0, value, 4]), "brats2018")


def test_et_of_2020_is_unknown_in_2023_with_an_explanation() -> None:
    with pytest.raises(UnknownLabelError, match=r"unknown label 4 in 1 voxels; .* 2024 post-treatment set"):
        decode_labels(np.array([0, 1, 4], np.uint8), "brats2023")


def test_et_of_2023_is_unknown_in_2020() -> None:
    with pytest.raises(UnknownLabelError, match=r"unknown label 3 in 1 voxels; brats2018 defines"):
        decode_labels(np.array([0, 1, 3], np.uint8), "brats2018")


@pytest.mark.parametrize(
    ("region", "expected"),
    [("WT", [[False, True], [True, True]]), ("TC", [[False, True], [False, True]]), ("ET", [[0, 0], [0, 1]])],
)
def test_a_region_is_the_union_of_its_tissues(region: str, expected: list[list[bool]]) -> None:
    np.testing.assert_array_equal(region_mask(LABELS, region), expected)


def test_every_label_belongs_to_a_region_and_no_two_regions_look_alike() -> None:
    assert {label for region in REGIONS.values() for label in region.labels} == set(TISSUES.values())
    for looks in ("full_name", "colour", "marker"):
        assert len({getattr(region, looks) for region in REGIONS.values()}) == len(REGIONS)


def test_tissues_and_regions_are_counted() -> None:
    labels = np.array([[0, 0, NCR, NCR, NCR], [ED, ED, ED, ED, ET]], np.uint8)
    tissues = count_tissues(labels)
    assert tissues == {"ncr": 3, "ed": 4, "et": 1}
    assert count_regions(tissues) == {"WT": 8, "TC": 4, "ET": 1}


def test_counts_without_tumour_are_zero() -> None:
    tissues = count_tissues(np.zeros((2, 2), np.uint8))
    assert count_regions(tissues) == {"WT": 0, "TC": 0, "ET": 0}
