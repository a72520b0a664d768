"""Values of `--prediction-coding`: names, pairs, and what is wrong with one."""

import numpy as np
import pytest

from brats.data.codings import CODINGS
from brats.data.prediction_coding import NNUNET, RAW, parse_prediction_coding
from brats.errors import ConfigError, UnknownLabelError
from brats.labels import ED, ET, NCR


def test_case_is_the_coding_of_each_case() -> None:
    assert parse_prediction_coding("case") is None


@pytest.mark.parametrize("name", CODINGS)
def test_every_coding_of_the_challenges_has_its_name(name: str) -> None:
    assert parse_prediction_coding(name) is CODINGS[name]


@pytest.mark.parametrize("name", ["nnunet", "nnUNet", "nnU-Net", "decathlon", " Decathlon "])
def test_nnunet_and_the_decathlon_code_oedema_core_and_enhancing_tumour_in_this_order(name: str) -> None:
    coding = parse_prediction_coding(name)
    assert coding is NNUNET
    assert coding.codes == {0: 0, 1: ED, 2: NCR, 3: ET}


@pytest.mark.parametrize(
    "text",
    ["1=ED,2=NCR,3=ET", "3=et, 2 = ncr ,1=Ed", "1=ED 2=NCR 3=ET", "1=ED;2=NCR;3=ET;", "0=BG,1=ED,2=NCR,3=ET"],
)
def test_pairs_are_one_coding_however_they_are_spelled(text: str) -> None:
    coding = parse_prediction_coding(text)
    assert coding is not None
    assert (coding.name, coding.meaning) == ("1=ED,2=NCR,3=ET", "1 ED, 2 NCR, 3 ET")
    assert coding.codes == NNUNET.codes


def test_several_codes_may_be_one_tissue_or_background() -> None:
    coding = parse_prediction_coding("1=NCR,2=ED,3=NCR,4=ET,9=BG")
    assert coding is not None
    assert coding.decode(np.array([0, 1, 2, 3, 4, 9])).tolist() == [0, NCR, ED, NCR, ET, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nnnet", "must be one of case, nnunet, decathlon, brats2018, .*or pairs such as 1=ED.*; not 'nnnet'"),
        ("", "must be one of case, .*; not ''"),
        ("1=ED,2=TC", "unknown tissue in '2=TC'; NCR, ED and ET are tissues"),
        ("1=", "unknown tissue in '1='"),
        ("1=ED,1=NCR", "names code 1 twice, in '1=ED,1=NCR'"),
        ("0=ED", "code 0 is the background, not ED"),
        ("256=ED", "the code in '256=ED' must be a whole number from 0 to 255"),
        ("-1=ED", "the code in '-1=ED' must be a whole number from 0 to 255"),
        ("1.5=ED", "the code in '1.5=ED' must be a whole number"),
        ("=ED", "the code in '=ED' must be a whole number"),
        ("1=ED,2", "'2' is no pair of a code and a tissue, such as 1=ED"),
        ("=", "the code in '=' must be a whole number"),
        ("0=BG", "no code for a tissue in '0=BG'; an example is 1=ED,2=NCR,3=ET"),
    ],
)
def test_wrong_value_is_one_line_that_names_the_option(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_prediction_coding(text)
    assert str(caught.value).startswith("--prediction-coding")
    assert "\n" not in str(caught.value)


def test_raw_codes_are_left_as_they_are() -> None:
    assert RAW.decode(np.array([0, 7, 255], np.int16)).tolist() == [0, 7, 255]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_greys_of_an_image_can_be_named_as_codes(dtype: type) -> None:
    coding = parse_prediction_coding("85=NCR,170=ED,255=ET")
    assert coding is not None
    assert coding.decode(np.array([0, 85, 170, 255], dtype)).tolist() == [0, NCR, ED, ET]
    with pytest.raises(UnknownLabelError, match="unknown label 300 in 2 voxels"):
        coding.decode(np.array([0, 300, 300, 85], np.int16))
