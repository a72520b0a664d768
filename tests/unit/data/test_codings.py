"""Codings: from the codes of each edition's segmentations to labels and back."""

from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest

from brats.config import CodingName
from brats.data.challenges import AUTO
from brats.data.codings import BRATS_2018, BRATS_2023, BRATS_2023_PED, CODINGS, Coding
from brats.errors import UnknownLabelError
from brats.labels import ED, ET, NCR, REGIONS, region_mask

LABELS = np.array([[0, NCR], [ED, ET]], np.uint8)


def test_editions_code_the_tissues_differently() -> None:
    assert BRATS_2018.encode(np.array([0, NCR, ED, ET], np.uint8)).tolist() == [0, 1, 2, 4]
    assert BRATS_2023.encode(np.array([0, NCR, ED, ET], np.uint8)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "coding", [coding for coding in CODINGS.values() if not coding.written], ids=lambda coding: coding.name
)
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


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("n_voxels", [1, 7, 8, 9, 63, 64, 65])
def test_every_voxel_is_decoded_wherever_eight_bytes_end(n_voxels: int, dtype: str) -> None:
    expected = np.array([0, NCR, ED, 0, ET])
    for place in range(n_voxels):
        codes = np.zeros(n_voxels, dtype)
        codes[place] = 4
        assert np.flatnonzero(BRATS_2018.decode(codes) == ET).tolist() == [place]
        codes[place] = 5
        with pytest.raises(UnknownLabelError, match="unknown label 5 in 1 voxels"):
            BRATS_2018.decode(codes)
    codes = np.resize(np.array([0, 1, 2, 0, 4], dtype), n_voxels)
    np.testing.assert_array_equal(BRATS_2018.decode(codes), np.resize(expected, n_voxels))


def test_a_negative_zero_is_background() -> None:
    assert BRATS_2018.decode(np.array([-0.0, 1, -0.0, -0.0], np.float32)).tolist() == [0, NCR, 0, 0]


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


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0, 1, 1.5, 4], "1 of its values lies between whole numbers, so it looks interpolated: resample"),
        ([0, 1.2, 1.5, 4], "2 of its values lie between whole numbers, so it looks interpolated: resample"),
        ([0, 0.2, 0.31, 0.999], "all of its values lie between 0 and 1, so it looks like probabilities: write the"),
        ([0, 0.93, 0.93, 1], "all of its values lie between 0 and 1, so it looks like probabilities: write the"),
        ([0, 85, 170, 255], "0, 85, 170 and 255 look like 0 to 3 scaled to the greys of an image: write the codes"),
        ([0, 85, 255, 85], "0, 85, 170 and 255 look like 0 to 3 scaled to the greys of an image: write the codes"),
        ([0, 255, 255, 0], "0 and 255 alone look like one region saved as an image: write the codes of tissues"),
    ],
)
def test_values_that_tell_what_a_file_is_are_called_so(values: list[float], said: str) -> None:
    with pytest.raises(UnknownLabelError) as caught:
        BRATS_2018.decode(np.array(values))
    assert f"defines [0, 1, 2, 4]; {said}" in str(caught.value)


def test_white_beside_codes_of_tissues_is_only_unknown() -> None:
    with pytest.raises(UnknownLabelError, match=r"unknown label 255 in 1 voxels; .* defines \[0, 1, 2, 4\]$"):
        BRATS_2018.decode(np.array([0, 1, 2, 255], np.uint8))


def test_et_of_2020_is_unknown_in_2023_with_an_explanation() -> None:
    with pytest.raises(UnknownLabelError, match=r"4 is ET in the editions up to 2021, and the resection cavity"):
        BRATS_2023.decode(np.array([0, 1, 4], np.uint8))


def test_paediatric_code_of_2024_is_unknown_in_2023_with_the_option_that_reads_it() -> None:
    with pytest.raises(UnknownLabelError, match=r"4 is ED in BraTS-PED from 2024 on: --coding brats2024-ped$"):
        BRATS_2023_PED.decode(np.array([0, 4], np.uint8))


def test_et_of_2023_is_unknown_in_2020() -> None:
    with pytest.raises(
        UnknownLabelError, match=r"unknown label 3 in 1 voxels; .* 3 is ET in the editions from 2023"
    ):
        BRATS_2018.decode(np.array([0, 1, 3], np.uint8))


# Codes 0 to 4, as each challenge defines them.
REGIONS_OF_CODES = {
    "brats2018": {"WT": {1, 2, 4}, "TC": {1, 4}, "ET": {4}},
    "brats2023": {"WT": {1, 2, 3}, "TC": {1, 3}, "ET": {3}},
    "brats2023-ped": {"WT": {1, 2, 3}, "TC": {1, 3}, "ET": {3}},
    "brats2024-ped": {"WT": {1, 2, 3, 4}, "TC": {1, 2, 3}, "ET": {1}},
    "brats2024-gli": {"WT": {1, 2, 3}, "TC": {1, 3}, "ET": {3}},
    "brats2025-met": {"WT": {1, 2, 3}, "TC": {1, 3}, "ET": {3}},
    "brats2012": {"WT": {1, 2}, "TC": {2}, "ET": set()},
    "brats2013": {"WT": {1, 2, 3, 4}, "TC": {1, 3, 4}, "ET": {4}},
    "msd-task01": {"WT": {1, 2, 3}, "TC": {2, 3}, "ET": {3}},
}


@pytest.mark.parametrize("name", CODINGS)
def test_codes_are_in_the_regions_of_their_challenge(name: str) -> None:
    codes = np.array(sorted(CODINGS[name].codes), np.uint8)
    labels = CODINGS[name].decode(codes)
    found = {region: {int(code) for code in codes[region_mask(labels, region)]} for region in REGIONS}
    assert found == REGIONS_OF_CODES[name]


@pytest.mark.parametrize("name", CODINGS)
def test_codes_written_back_are_in_the_same_regions(name: str) -> None:
    coding = CODINGS[name]
    labels = coding.decode(np.array(sorted(coding.codes), np.uint8))
    np.testing.assert_array_equal(coding.decode(coding.encode(labels)), labels)


def test_core_of_a_paediatric_case_is_written_as_non_enhancing_tumour() -> None:
    coding = CODINGS["brats2024-ped"]
    assert coding.encode(np.array([0, NCR, ED, ET], np.uint8)).tolist() == [0, 2, 4, 1]


def test_enhancing_tumour_is_written_as_core_where_no_code_stands_for_it() -> None:
    coding = CODINGS["brats2012"]
    assert coding.encode(np.array([0, NCR, ED, ET], np.uint8)).tolist() == [0, 2, 1, 2]


def test_resection_cavity_is_written_back_as_background() -> None:
    coding = CODINGS["brats2024-gli"]
    assert coding.encode(coding.decode(np.array([4, 3, 2, 1, 0], np.uint8))).tolist() == [0, 3, 2, 1, 0]


def test_option_takes_every_coding() -> None:
    assert get_args(CodingName) == (AUTO, *CODINGS)
