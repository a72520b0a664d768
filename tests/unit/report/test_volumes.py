"""Cases of the viewer: grey levels, the packed file, and where the largest error is."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brats.data.case import Intensity
from brats.data.masks import write_masks, write_probabilities
from brats.errors import CaseError
from brats.labels import ED, ET, NCR
from brats.report.volumes import (
    ALL_TISSUES,
    WINDOW_PERCENTILES,
    Layers,
    grey_bytes,
    pack,
    peaks,
    percentiles,
    read_layers,
    read_prediction,
)
from tests.support.drawing import make_case, reference_of
from tests.support.reports import layers_of

PLAIN = Intensity(dtype="int16", slope=1, inter=0, background=0, mean=0, std=1)


def unpack(content: bytes) -> tuple[dict[str, Any], np.ndarray[Any, np.dtype[np.uint8]]]:
    """The header of a packed case, and its volumes (N, Z, H, W), as the module's docstring describes them."""
    raw = gzip.decompress(content)
    length = int.from_bytes(raw[:4], "little")
    header = json.loads(raw[4 : 4 + length])
    return header, np.frombuffer(raw[4 + length :], np.uint8).reshape(-1, *header["shape"])


def test_grey_levels_run_from_1_to_255_between_the_percentiles_of_the_brain_and_background_is_0() -> None:
    image = np.arange(1001, dtype=np.int16).reshape(1, 1, -1)
    levels, low, high = grey_bytes(image, PLAIN)
    assert (low, high) == pytest.approx((5.995, 995.005))  # 0.5 and 99.5 % of 1 to 1000
    assert levels.dtype == np.uint8
    assert levels[0, 0, [0, 1, 5, 996, 1000]].tolist() == [0, 1, 1, 255, 255]
    assert levels[0, 0, 500] == 128 == round(1 + 254 * (500 - low) / (high - low))


def test_grey_levels_are_of_scaled_values() -> None:
    image = np.arange(1001, dtype=np.int16).reshape(1, 1, -1)
    levels, low, _ = grey_bytes(image, replace(PLAIN, slope=2, inter=10))
    assert low == pytest.approx(2 * 5.995 + 10)
    np.testing.assert_array_equal(levels, grey_bytes(image, PLAIN)[0])


def test_a_brain_of_one_value_is_not_divided_by_zero() -> None:
    levels, low, high = grey_bytes(np.full((1, 2, 2), 7, np.int16), PLAIN)
    assert (low, high) == (7, 7)
    assert levels.tolist() == [[[1, 1], [1, 1]]]


@pytest.mark.parametrize("n", [1, 2, 3, 200, 1001])
def test_percentiles_are_those_of_numpy(n: int) -> None:
    values = np.random.default_rng(n).normal(100, 30, n).astype(np.float32)
    expected = np.percentile(values.astype(np.float64), WINDOW_PERCENTILES)
    assert percentiles(values, WINDOW_PERCENTILES) == pytest.approx(expected.tolist(), rel=1e-6)


def test_percentiles_between_two_values_are_interpolated_and_whole_places_are_values() -> None:
    values = np.array([30, 10, 20], np.float32)
    assert percentiles(values, (0, 25, 50, 75, 100)) == [10, 15, 20, 25, 30]


def test_a_packed_case_has_images_both_label_maps_and_probabilities() -> None:
    layers = layers_of(make_case(modalities=("flair", "t1")), probabilities=True)
    header, volumes = unpack(pack(layers))
    assert header["case_id"] == "a"
    assert header["start"] == [1, 5, 4]  # of Z H W
    assert [image["name"] for image in header["images"]] == ["flair", "t1"]
    assert header["reference"] is True
    assert header["probabilities"] == ["WT", "TC", "ET"]
    flair = layers.case.images["flair"]
    np.testing.assert_array_equal(volumes[0], grey_bytes(flair, layers.case.intensities["flair"])[0])
    np.testing.assert_array_equal(volumes[2] % 16, reference_of(layers.case))
    np.testing.assert_array_equal(volumes[2] // 16, layers.prediction)
    np.testing.assert_array_equal(volumes[3], layers.probabilities["WT"])
    assert len(volumes) == 6


def test_a_case_without_reference_says_so() -> None:
    case = make_case(modalities=("t1",))
    layers = Layers(case=replace(case, labels=None), prediction=reference_of(case), probabilities={})
    header, volumes = unpack(pack(layers))
    assert header["reference"] is False
    np.testing.assert_array_equal(volumes[1], 16 * reference_of(case))


def test_equal_cases_give_equal_files() -> None:
    assert pack(layers_of(make_case())) == pack(layers_of(make_case()))


def test_the_peak_is_in_the_slice_with_most_wrong_voxels_at_the_one_nearest_to_their_centre() -> None:
    case = make_case(modalities=("t1",))
    prediction = reference_of(case).copy()
    prediction[1, 2, 3] = ED
    prediction[4, 10, [20, 21, 22]] = ED
    prediction[5, 7, 7] = ET
    found = peaks(Layers(case=case, prediction=prediction, probabilities={}))
    assert found["WT"] == found[ALL_TISSUES] == (4, 10, 21)
    assert found["TC"] == found["ET"] == (5, 7, 7)


def test_confused_tissues_are_an_error_of_all_tissues_alone() -> None:
    case = make_case(modalities=("t1",))
    prediction = np.where(reference_of(case) == NCR, ET, reference_of(case)).astype(np.uint8)
    found = peaks(Layers(case=case, prediction=prediction, probabilities={}))
    assert prediction[found[ALL_TISSUES]] != reference_of(case)[found[ALL_TISSUES]]
    assert found["WT"][0] == 3  # without an error, where most of it is


def test_without_reference_and_tumour_the_peak_is_the_middle() -> None:
    case = make_case(modalities=("t1",))
    empty = Layers(case=replace(case, labels=None), prediction=0 * reference_of(case), probabilities={})
    assert set(peaks(empty).values()) == {(3, 25, 21)}


def test_layers_are_read_from_the_source_axes_into_the_crop(tmp_path: Path) -> None:
    layers = layers_of(make_case(), probabilities=True)
    case = layers.case
    write_masks(str(tmp_path), "a", case.on_source_grid(layers.prediction))
    volumes = {name: case.on_source_grid(levels) for name, levels in layers.probabilities.items()}
    write_probabilities(str(tmp_path), "a", volumes)
    found = read_layers(case, str(tmp_path))
    np.testing.assert_array_equal(found.prediction, layers.prediction)
    np.testing.assert_array_equal(found.probabilities["ET"], layers.probabilities["ET"])


def test_a_prediction_comes_back_from_the_source_axes_as_the_crop(tmp_path: Path) -> None:
    case = make_case()
    write_masks(str(tmp_path), case.case_id, case.on_source_grid(reference_of(case)))
    np.testing.assert_array_equal(read_prediction(str(tmp_path), case), reference_of(case))


def test_a_mask_of_another_grid_is_refused(tmp_path: Path) -> None:
    write_masks(str(tmp_path), "a", np.zeros((4, 5, 6), np.uint8))
    with pytest.raises(CaseError, match=r"masks/a.parquet: shape \(4, 5, 6\), but the case has \(60, 50, 8\)"):
        read_layers(make_case(), str(tmp_path))
