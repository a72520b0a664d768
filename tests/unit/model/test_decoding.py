"""From probabilities to label maps: thresholds, the rules for small regions, and their form in JSON."""

import itertools
import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from brats.labels import ED, ET, NCR, Labels
from brats.model.decoding import (
    FEWEST_CASES,
    SMALL_ET_MM3,
    Decoding,
    decode,
    label_map,
    mean_decoding,
    without_doubtful_components,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_later_region_wins_in_every_combination_of_regions() -> None:
    combinations = np.array(list(itertools.product((False, True), repeat=3))).T  # (R, 8)
    found = label_map(torch.from_numpy(combinations)[None, :, :, None])
    assert found.dtype == torch.uint8
    assert found[0, :, 0].tolist() == [0, ET, NCR, ET, ED, ET, NCR, ET]


def test_masks_of_the_whole_tumour_alone_are_ed() -> None:
    assert label_map(torch.tensor([True, False])[None, None, None]).tolist() == [[[ED, 0]]]


@pytest.mark.parametrize(("threshold", "n_above"), [(0.2, 5), (0.5, 3), (0.8, 1)])
def test_a_region_is_where_its_probability_exceeds_its_threshold(threshold: float, n_above: int) -> None:
    probabilities = torch.zeros(1, 3, 1, 6)
    probabilities[0, 0, 0] = torch.tensor([0.19, 0.21, 0.49, 0.51, 0.79, 0.81])
    labels = decode(probabilities, Decoding(thresholds=(threshold, 0.5, 0.5)), 1.0)
    assert labels[0, 0].tolist() == [0] * (6 - n_above) + [ED] * n_above


def test_exactly_the_threshold_is_not_above_it() -> None:
    assert not decode(torch.full((1, 3, 1, 1), 0.5), Decoding(), 1.0).any()


def probabilities_of(n_et: int, et: float) -> Tensor:
    """Of a case of 4 x 10 x 10 voxels: all WT and TC, and so many voxels of ET, of this probability."""
    probabilities = torch.full((4, 3, 10, 10), 0.8)
    probabilities[:, 2] = 0.1
    probabilities[0, 2].flatten()[:n_et] = et
    return probabilities


RULE = Decoding(smallest_et_mm3=SMALL_ET_MM3)


@pytest.mark.parametrize(
    ("n_et", "et", "voxel_mm3", "stays"),
    [
        (1, 0.6, 1.0, False),
        (72, 0.89, 1.0, False),
        (73, 0.6, 1.0, True),
        (1, 0.95, 1.0, True),
        (1, 0.6, 80.0, True),
    ],
    ids=["stray voxel", "small", "large enough", "sure", "large voxel"],
)
def test_an_et_that_is_small_and_not_sure_becomes_ncr(n_et: int, et: float, voxel_mm3: float, stays: bool) -> None:
    labels = decode(probabilities_of(n_et, et), RULE, voxel_mm3)
    assert int((labels == ET).sum()) == (n_et if stays else 0)
    assert int((labels == NCR).sum()) == 400 - (n_et if stays else 0)


@pytest.mark.parametrize(("et", "rc"), [(0.95, 0.1), (0.6, 0.45)], ids=["sure", "not sure"])
def test_the_rule_for_a_small_et_goes_by_the_probability_of_et_whatever_region_follows(
    et: float, rc: float, resection_cavity: int
) -> None:
    probabilities = torch.cat([probabilities_of(4, et), torch.full((4, 1, 10, 10), rc)], dim=1)
    probabilities[3, 3] = 0.95  # a cavity in a slice without ET
    labels = decode(probabilities, replace(RULE, thresholds=(0.5,) * 4), 1.0)
    assert int((labels == ET).sum()) == (4 if et > 0.9 else 0)
    assert (labels[3] == resection_cavity).all()
    assert int((labels == resection_cavity).sum()) == 100


def test_a_region_beside_the_tumour_is_no_part_of_its_components(resection_cavity: int) -> None:
    labels = np.zeros((3, 6, 6), np.uint8)
    labels[0, 0, :4] = [ED, ED, resection_cavity, resection_cavity]
    kept = labels.copy()
    kept[0, 0, :2] = 0
    doubtful = np.full(labels.shape, 0.6, np.float32)
    np.testing.assert_array_equal(without_doubtful_components(labels, doubtful, 3), kept)
    np.testing.assert_array_equal(without_doubtful_components(labels, doubtful, 2), labels)


def test_without_the_rule_a_stray_voxel_of_et_stays() -> None:
    assert int((decode(probabilities_of(1, 0.6), Decoding(), 1.0) == ET).sum()) == 1


def test_a_case_without_et_is_left_as_it_is() -> None:
    assert torch.equal(decode(probabilities_of(0, 0.6), RULE, 1.0), torch.full((4, 10, 10), NCR, dtype=torch.uint8))


def test_a_model_of_wt_alone_has_ed_where_its_probability_exceeds_the_first_threshold() -> None:
    probabilities = torch.tensor([0.2, 0.4, 0.6]).reshape(1, 1, 1, 3)
    rules = Decoding(thresholds=(0.3, 0.9, 0.9), smallest_et_mm3=500.0)
    assert decode(probabilities, rules, 1.0).flatten().tolist() == [0, ED, ED]


def test_doubtful_components_smaller_than_the_limit_are_removed_whatever_their_tissue() -> None:
    labels = np.zeros((3, 6, 6), np.uint8)
    labels[0, 0, :2] = [ED, ET]
    labels[1, 1, 2] = NCR  # touches the one before at a corner: three voxels
    labels[2, 5, 4:] = ED
    kept = labels.copy()
    kept[2] = 0
    doubtful = np.full(labels.shape, 0.6, np.float32)
    np.testing.assert_array_equal(without_doubtful_components(labels, doubtful, 3), kept)
    np.testing.assert_array_equal(without_doubtful_components(labels, doubtful, 2), labels)
    assert not without_doubtful_components(labels, doubtful, 4).any()


def test_a_small_component_is_doubtful_by_the_mean_of_its_probability() -> None:
    labels = np.zeros((3, 6, 6), np.uint8)
    labels[0, 0, :2] = ED
    labels[2, 5, 4:] = ED
    probability = np.zeros(labels.shape, np.float32)
    probability[0, 0, :2] = [1.0, 0.75]  # 0.875
    probability[2, 5, 4:] = [1.0, 0.875]  # 0.9375
    kept = labels.copy()
    kept[0] = 0
    np.testing.assert_array_equal(without_doubtful_components(labels, probability, 3), kept)


def test_components_are_found_in_the_box_of_the_tumour_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    def seen(mask: Labels, **options: Any) -> Any:
        shapes.append(mask.shape)
        return label(mask, **options)

    label = ndimage.label
    monkeypatch.setattr(ndimage, "label", seen)
    labels = np.zeros((9, 20, 20), np.uint8)
    labels[2:5, 7:9, 11] = ED
    probabilities = torch.from_numpy(labels == ED)[:, None].float().repeat(1, 3, 1, 1) * 0.6
    kept = decode(probabilities[:, :1], Decoding(doubtful_wt_mm3=6.0), 1.0)
    assert np.array_equal(kept.numpy(), labels)
    assert shapes == [(3, 2, 1)]


def test_components_at_the_border_are_measured_as_any_other() -> None:
    labels = np.zeros((3, 6, 6), np.uint8)
    labels[0, 0, 0] = ED  # a corner of the crop, and the opposite one
    labels[1:, 5, 4:] = NCR
    given, kept = labels.copy(), labels.copy()
    kept[0] = 0
    doubtful = np.full(labels.shape, 0.6, np.float32)
    np.testing.assert_array_equal(without_doubtful_components(labels, doubtful, 2), kept)
    np.testing.assert_array_equal(without_doubtful_components(labels, doubtful, 1), labels)
    np.testing.assert_array_equal(labels, given)


def test_a_case_without_tumour_has_no_components() -> None:
    nothing = np.zeros((3, 6, 6), np.uint8)
    assert not without_doubtful_components(nothing, nothing.astype(np.float32), 2).any()
    assert not decode(torch.zeros(3, 3, 6, 6), Decoding(doubtful_wt_mm3=5.0), 1.0).any()


def test_small_components_are_measured_in_mm3() -> None:
    probabilities = torch.zeros(1, 3, 4, 4)
    probabilities[0, 0, 0, 0] = 0.8
    rule = Decoding(doubtful_wt_mm3=5.0)
    assert not decode(probabilities, rule, 4.0).any()
    assert decode(probabilities, rule, 5.0).sum() == ED


def test_a_decoding_survives_json_and_states_its_rules() -> None:
    rules = Decoding(thresholds=(0.45, 0.4, 0.4), smallest_et_mm3=73.0, doubtful_wt_mm3=50.0, n_tuned_on=12)
    assert Decoding.from_json(json.loads(json.dumps(asdict(rules)))) == rules
    assert str(rules) == (
        "thresholds WT 0.45, TC 0.4, ET 0.4; ET below 73 mm3 and a mean probability of 0.9 is NCR; "
        "components of WT below 50 mm3 and a mean probability of 0.9 are removed (chosen on 12 validation cases)"
    )
    assert str(Decoding()) == "thresholds WT 0.5, TC 0.5, ET 0.5 (defaults)"


def test_a_rule_of_an_earlier_version_is_refused_where_it_was_in_use() -> None:
    former = {"thresholds": [0.5, 0.5, 0.5], "smallest_et_mm3": 73.0, "smallest_wt_mm3": 0.0, "n_tuned_on": 4}
    assert Decoding.from_json(former) == Decoding(smallest_et_mm3=73.0, n_tuned_on=4)
    with pytest.raises(ValueError, match=r"smallest_wt_mm3 50\.0: a rule of an earlier version"):
        Decoding.from_json({**former, "smallest_wt_mm3": 50.0})


@pytest.mark.parametrize(
    ("decoding", "origin"),
    [
        (Decoding(), "defaults"),
        (replace(RULE, n_tuned_on=2), "defaults, without rules that cost Dice on 2 validation cases"),
        (Decoding(n_tuned_on=1), "defaults, without rules that cost Dice on 1 validation case"),
        (
            Decoding(doubtful_wt_mm3=50.0, n_tuned_on=9),
            "of several models, chosen or checked on 9 validation cases or more",
        ),
        (
            Decoding(thresholds=(0.45, 0.5, 0.5), n_tuned_on=9),
            "of several models, chosen or checked on 9 validation cases or more",
        ),
        (Decoding(thresholds=(0.45, 0.5, 0.5)), "of several models, one or more of them not tuned"),
        (Decoding(n_tuned_on=FEWEST_CASES), "chosen on 10 validation cases"),
    ],
)
def test_a_decoding_says_chosen_only_where_there_were_cases_enough_to_choose(
    decoding: Decoding, origin: str
) -> None:
    assert str(decoding) == f"{decoding.rules} ({origin})"


def test_an_ensemble_has_the_mean_thresholds_and_the_smallest_volumes_of_its_members() -> None:
    one = Decoding(thresholds=(0.4, 0.5, 0.6), smallest_et_mm3=73.0, doubtful_wt_mm3=50.0, n_tuned_on=12)
    other = Decoding(thresholds=(0.5, 0.5, 0.5), smallest_et_mm3=200.0, n_tuned_on=10)
    found = mean_decoding([one, other])
    assert found.thresholds == pytest.approx((0.45, 0.5, 0.55))
    assert (found.smallest_et_mm3, found.doubtful_wt_mm3, found.n_tuned_on) == (73.0, 0.0, 10)
    assert mean_decoding([one]) == one
