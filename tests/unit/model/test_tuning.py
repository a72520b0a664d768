"""Tuning: exact for every candidate, and careful where the cases are few or the gain may be noise."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from brats.data.case import Case
from brats.labels import ED, ET, NCR, REGIONS, Labels
from brats.model import tuning
from brats.model.decoding import FEWEST_CASES, Decoding, decode
from brats.model.tuning import (
    THRESHOLDS,
    UNTUNED,
    TuningCase,
    choose_decoding,
    dice,
    tuning_case,
    tuning_labels,
)
from brats.score.metrics import count_overlap, region_dice
from tests.support.prepared import segmenter_of, tiny_case

pytestmark = pytest.mark.usefixtures("one_thread")


class Painted(nn.Module):
    """Gives the slices of a case these logits (Z, R, H, W), in order, whatever it sees."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        n_rows, n_columns = self.logits.shape[-2:]
        return nn.functional.pad(self.logits, (0, width - n_columns, 0, height - n_rows), value=-100.0)


def tuned_on(probabilities: Tensor, case: Case) -> TuningCase:
    segmenter = segmenter_of(Painted(torch.logit(probabilities)))
    return tuning_case(segmenter, case, len(probabilities))


def random_case(seed: int) -> tuple[Tensor, Case]:
    """A case and probabilities in smooth patches, with nothing in the outer rows."""
    torch.manual_seed(seed)
    patches = torch.rand(1, 3, 5, 4, 4).repeat_interleave(2, 2).repeat_interleave(9, 3).repeat_interleave(8, 4)
    probabilities = torch.full((10, 3, 40, 36), 0.1)
    probabilities[:, :, 2:38, 2:34] = patches[0].movedim(0, 1)
    return probabilities.clamp(0.02, 0.98), tiny_case(seed=seed)


CANDIDATES = [
    Decoding(),
    UNTUNED,
    Decoding(thresholds=(0.3, 0.7, 0.6), smallest_et_mm3=500.0),
    Decoding(thresholds=(0.7, 0.45, 0.4), smallest_et_mm3=1e5, doubtful_wt_mm3=500.0),
    Decoding(thresholds=(0.65, 0.3, 0.55), doubtful_wt_mm3=200.0),
]


@pytest.mark.parametrize("decoding", CANDIDATES, ids=str)
def test_dice_of_a_candidate_is_exactly_that_of_the_label_map_it_would_write(decoding: Decoding) -> None:
    for seed in range(3):
        probabilities, case = random_case(seed)
        stored = tuned_on(probabilities, case)
        segmenter = segmenter_of(Painted(torch.logit(probabilities)), decoding=decoding)
        written = segmenter.labels(case, 10)
        assert np.count_nonzero(tuning_labels(stored, decoding)) == np.count_nonzero(written) > 0
        assert case.labels is not None
        expected = region_dice(count_overlap(case.labels, written, case.spacing_zhw_mm).counts)
        assert dice([stored], decoding)[0].tolist() == pytest.approx(list(expected.values()), abs=1e-12)


def test_candidates_include_what_is_done_without_tuning() -> None:
    assert {*Decoding().thresholds, *UNTUNED.thresholds} <= set(THRESHOLDS)


def test_a_case_in_which_nothing_is_likely_misses_all_of_the_reference() -> None:
    stored = tuned_on(torch.full((10, 3, 40, 36), 0.1), tiny_case())
    assert stored.bins.size == 0
    assert dice([stored], UNTUNED).tolist() == [[0, 0, 0]]


def ball(labels_of: Sequence[tuple[int, int]] = ((9, ED), (5, NCR), (3, ET))) -> Labels:
    """Cubes inside cubes, by edge and label."""
    labels = np.zeros((10, 40, 36), np.uint8)
    for edge, label in labels_of:
        labels[:edge, 10 : 10 + edge, 10 : 10 + edge] = label
    return labels


def case_with(reference: Labels) -> Case:
    return tiny_case(labels=np.moveaxis(reference, 0, 2))


def predicted_as(labels: Labels, high: float = 0.97, low: float = 0.03) -> Tensor:
    """Probabilities of these regions, sure of each voxel."""
    masks = np.stack([np.isin(labels, REGIONS[name].labels) for name in REGIONS], axis=1)
    return torch.where(torch.from_numpy(masks), high, low)


def stray_et(probability: float, *, et_in_reference: bool) -> TuningCase:
    """A case whose tumour is found as it is, but for one voxel of ET where there is none."""
    reference = ball() if et_in_reference else ball(((9, ED), (5, NCR)))
    probabilities = predicted_as(reference)
    probabilities[9, 2, 39, 35] = probabilities[9, 1, 39, 35] = probabilities[9, 0, 39, 35] = probability
    return tuned_on(probabilities, case_with(reference))


def test_the_rule_that_needs_no_tuning_mends_a_stray_voxel_in_a_case_without_et() -> None:
    stray = stray_et(0.6, et_in_reference=False)
    assert dice([stray], Decoding())[0, 2] == 0
    assert dice([stray], UNTUNED)[0, 2] == 1


def test_the_rule_for_a_small_et_stays_where_it_makes_no_difference() -> None:
    found = choose_decoding([stray_et(0.6, et_in_reference=True)] * 2, list(REGIONS))
    assert found == replace(UNTUNED, n_tuned_on=2)


def test_the_rule_for_a_small_et_goes_where_it_costs_dice() -> None:
    reference = ball(((9, ED), (5, NCR), (2, ET)))
    probabilities = predicted_as(reference, high=0.8)  # right, but not sure
    small = tuned_on(probabilities, case_with(reference))
    assert choose_decoding([small], list(REGIONS)) == replace(UNTUNED, smallest_et_mm3=0.0, n_tuned_on=1)


def with_cavity(probabilities: Tensor, label: int, reference: Labels) -> TuningCase:
    """A case with a cavity in two slices of a corner, of which the network is not sure."""
    probabilities = probabilities.clone()
    probabilities[:2, 3, 30:, 30:] = 0.57
    labels = reference.copy()
    labels[:2, 30:, 30:] = label
    return tuned_on(probabilities, replace(case_with(reference), labels=labels))


FOUR = replace(UNTUNED, thresholds=(0.5, 0.5, 0.5, 0.3))


@pytest.mark.parametrize(("high", "stays"), [(0.97, True), (0.6, False)])
def test_a_small_et_is_as_sure_as_its_own_probabilities_say_whatever_region_follows(
    high: float, stays: bool, resection_cavity: int
) -> None:
    reference = ball(((9, ED), (5, NCR), (2, ET)))
    probabilities = predicted_as(reference, high=high)
    probabilities[3, 2, 10:14, 10:12] = 0.42  # above the threshold of the cavity alone
    found = with_cavity(probabilities, resection_cavity, reference)
    bins = [sum(threshold < probability for threshold in THRESHOLDS) for probability in (0.42, high)]
    assert found.et_sums[bins].tolist() == pytest.approx([8 * 0.42, 8 * high], rel=1e-5)
    labels = tuning_labels(found, FOUR)
    assert int((labels == ET).sum()) == (8 if stays else 0)
    assert int((labels == resection_cavity).sum()) == 120


def test_the_volume_of_a_small_et_is_chosen_by_the_dice_of_et_whatever_region_follows(
    resection_cavity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "UNTUNED", FOUR)
    reference = ball(((9, ED), (5, NCR)))
    probabilities = predicted_as(reference)
    probabilities[:4, 2, 10:15, 10:15] = 0.8  # 100 voxels of 1 mm3, wrong
    case = with_cavity(probabilities, resection_cavity, reference)
    found = choose_decoding([case] * FEWEST_CASES, list(REGIONS))
    assert found == replace(FOUR, smallest_et_mm3=200.0, n_tuned_on=FEWEST_CASES)


def unsure_rim(seed: int, n_inside: int) -> TuningCase:
    """A case whose WT has a probability of .42 in its rim, which is WT in this many of its 8 slices."""
    reference = ball()
    probabilities = predicted_as(reference)
    rim = np.zeros_like(reference, bool)
    rim[:8, 10:19, 19:25] = True
    probabilities[:, 0][torch.from_numpy(rim)] = 0.42 + 0.001 * seed
    reference[:n_inside, 10:19, 19:25] = ED
    return tuned_on(probabilities, case_with(reference))


def test_a_threshold_changes_where_enough_cases_gain() -> None:
    cases = [unsure_rim(seed, 8) for seed in range(FEWEST_CASES)]
    expected = replace(UNTUNED, thresholds=(0.4, 0.5, 0.5), n_tuned_on=FEWEST_CASES)
    assert choose_decoding(cases, list(REGIONS)) == expected  # .3 and .35 are as good, and farther from .5


def test_fewer_cases_change_no_threshold() -> None:
    cases = [unsure_rim(seed, 8) for seed in range(FEWEST_CASES - 1)]
    assert choose_decoding(cases, list(REGIONS)) == replace(UNTUNED, n_tuned_on=FEWEST_CASES - 1)


def test_a_gain_of_some_cases_that_others_lose_changes_nothing() -> None:
    cases = [unsure_rim(seed, 8 if seed % 2 else 1) for seed in range(FEWEST_CASES)]
    assert choose_decoding(cases, list(REGIONS)) == replace(UNTUNED, n_tuned_on=FEWEST_CASES)


def test_a_doubtful_component_is_removed_with_few_cases_and_a_sure_one_stays() -> None:
    reference = ball()
    probabilities = predicted_as(reference)
    probabilities[8:, 0, 36:, 30:] = 0.8  # 48 voxels of 1 mm3, wrong
    probabilities[:2, 0, 36:, 30:] = 0.97
    wrong = tuned_on(probabilities, case_with(reference))
    found = choose_decoding([wrong], list(REGIONS))
    assert found == replace(UNTUNED, n_tuned_on=1)
    assert np.count_nonzero(tuning_labels(wrong, Decoding())) == 9**3 + 48 + 48
    assert np.count_nonzero(tuning_labels(wrong, found)) == 9**3 + 48


def small_satellite(size: int) -> TuningCase:
    """A case with a second lesion of 10 rows of so many voxels, found as it is but not sure."""
    reference = ball()
    reference[0, 29:39, 36 - size :] = ED
    probabilities = predicted_as(reference)
    probabilities[0, 0, 29:39, 36 - size :] = 0.8
    return tuned_on(probabilities, case_with(reference))


def test_the_rule_for_doubtful_components_goes_where_it_costs_dice() -> None:
    found = choose_decoding([small_satellite(5)], list(REGIONS))
    assert found == replace(UNTUNED, doubtful_wt_mm3=0.0, n_tuned_on=1)


def test_enough_cases_choose_the_volume_of_a_doubtful_component() -> None:
    reference = ball()
    probabilities = predicted_as(reference)
    probabilities[:, 0, 30:, 30:] = 0.8  # 600 voxels, wrong: in candidates the largest volume is 500 mm3
    probabilities[:3, 0, 30:, 30:] = 0.0  # 420
    wrong = tuned_on(probabilities, case_with(reference))
    assert choose_decoding([wrong] * FEWEST_CASES, list(REGIONS)).doubtful_wt_mm3 == 500.0


def test_without_cases_the_rules_are_as_without_tuning() -> None:
    assert choose_decoding([], list(REGIONS)) == UNTUNED
    assert choose_decoding([], ["WT"]) == replace(UNTUNED, smallest_et_mm3=0.0)


def test_a_model_of_wt_alone_has_the_rule_for_doubtful_components_alone() -> None:
    few = [replace(case, bins=case.bins[:1], n_missed=case.n_missed[:1]) for case in [unsure_rim(0, 8)]]
    assert choose_decoding(few, ["WT"]) == replace(UNTUNED, smallest_et_mm3=0.0, n_tuned_on=1)


def test_a_model_of_wt_alone_is_tuned_by_its_one_region() -> None:
    case = unsure_rim(0, 8)
    alone = replace(case, bins=case.bins[:1], n_missed=case.n_missed[:1])
    found = choose_decoding([alone] * FEWEST_CASES, ["WT"])
    expected = replace(UNTUNED, smallest_et_mm3=0.0, thresholds=(0.4, 0.5, 0.5), n_tuned_on=FEWEST_CASES)
    assert found == expected


def test_decode_is_what_tuning_takes_it_for_at_the_thresholds_themselves() -> None:
    at_threshold = torch.full((1, 3, 1, len(THRESHOLDS)), 0.0)
    at_threshold[0, :, 0] = torch.tensor(THRESHOLDS)
    bins = torch.bucketize(at_threshold, torch.tensor(THRESHOLDS))
    for step, threshold in enumerate(THRESHOLDS):
        above = decode(at_threshold, Decoding(thresholds=(threshold,) * 3), 1.0)[0, 0] == ET
        assert torch.equal(above, bins[0, 2, 0] > step)
