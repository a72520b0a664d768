"""Kinds of outputs: targets, probabilities and masks of regions, by hand and in parity with torch."""

import itertools
from typing import get_args

import pytest
import torch
from torch import Tensor

from brats.config import OutputKind
from brats.labels import ED, ET, NCR, REGIONS
from brats.model.decoding import label_map
from brats.model.losses import region_targets
from brats.model.outputs import REGION_OUTPUTS, OutputSpec

CLASSES, WHOLE = OutputSpec("classes"), OutputSpec("whole-tumour")
KINDS = [OutputSpec(kind) for kind in get_args(OutputKind)]
LABELS = torch.tensor([0, NCR, ED, ET], dtype=torch.uint8).reshape(1, 1, 4)


def logits_of(outputs: OutputSpec) -> Tensor:
    """Logits (2, K, 8, 8) of any size."""
    return 5 * torch.randn(2, outputs.n_channels, 8, 8, generator=torch.Generator().manual_seed(0))


def test_channels_and_regions_of_each_kind() -> None:
    assert (REGION_OUTPUTS.channels, REGION_OUTPUTS.regions) == (("WT", "TC", "ET"), ("WT", "TC", "ET"))
    assert (CLASSES.channels, CLASSES.regions) == (("background", "NCR", "ED", "ET"), ("WT", "TC", "ET"))
    assert (WHOLE.channels, WHOLE.regions) == (("WT",), ("WT",))
    assert [outputs.n_channels for outputs in (REGION_OUTPUTS, CLASSES, WHOLE)] == [3, 4, 1]


def test_targets_are_a_mask_for_each_channel() -> None:
    assert torch.equal(REGION_OUTPUTS.targets(LABELS), region_targets(LABELS))
    assert torch.equal(CLASSES.targets(LABELS), torch.eye(4).reshape(1, 4, 1, 4))
    assert WHOLE.targets(LABELS).tolist() == [[[[0, 1, 1, 1]]]]


def test_the_probability_of_a_region_is_the_sum_over_its_classes() -> None:
    of_class = torch.tensor([0.1, 0.2, 0.3, 0.4])
    found = CLASSES.probabilities(torch.log(of_class).reshape(1, 4, 1, 1)).flatten()
    torch.testing.assert_close(found, torch.tensor([0.9, 0.6, 0.4]))


@pytest.mark.parametrize("outputs", [REGION_OUTPUTS, WHOLE])
def test_the_probability_of_a_region_with_a_channel_of_its_own_is_a_sigmoid(outputs: OutputSpec) -> None:
    logits = logits_of(outputs)
    assert torch.equal(outputs.probabilities(logits), torch.sigmoid(logits))


@pytest.mark.parametrize("outputs", KINDS)
@pytest.mark.parametrize("size", [1, 1e4])
def test_probabilities_are_float32_between_0_and_1_one_channel_per_region(outputs: OutputSpec, size: float) -> None:
    found = outputs.probabilities((size * logits_of(outputs)).bfloat16())
    assert (found.dtype, found.shape) == (torch.float32, (2, len(outputs.regions), 8, 8))
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("outputs", KINDS)
def test_masks_are_where_the_probability_exceeds_a_half(outputs: OutputSpec) -> None:
    logits = logits_of(outputs)
    assert torch.equal(outputs.masks(logits), outputs.probabilities(logits) > 0.5)


@pytest.mark.parametrize("outputs", KINDS)
def test_certain_and_right_logits_give_the_labels_that_a_perfect_network_would_predict(outputs: OutputSpec) -> None:
    logits = 40 * (2 * outputs.targets(LABELS) - 1)
    assert torch.equal(label_map(outputs.masks(logits)), outputs.predictable(LABELS))


def test_a_perfect_network_predicts_every_label_but_of_the_whole_tumour_alone_ed() -> None:
    assert torch.equal(REGION_OUTPUTS.predictable(LABELS), LABELS)
    assert torch.equal(CLASSES.predictable(LABELS), LABELS)
    assert WHOLE.predictable(LABELS).tolist() == [[[0, ED, ED, ED]]]
    assert WHOLE.predictable(LABELS).dtype == torch.uint8


def test_regions_of_exclusive_classes_are_nested() -> None:
    found = dict(zip(REGIONS, CLASSES.probabilities(logits_of(CLASSES)).unbind(1), strict=True))
    for larger, smaller in itertools.pairwise(REGIONS):
        assert (found[larger] >= found[smaller]).all()


def test_what_is_no_part_of_the_tumour_is_background_to_a_network_of_wt_alone(resection_cavity: int) -> None:
    labels = torch.tensor([0, NCR, ED, ET, resection_cavity], dtype=torch.uint8).reshape(1, 1, 5)
    assert WHOLE.predictable(labels).flatten().tolist() == [0, ED, ED, ED, 0]
    assert WHOLE.predictable(labels).dtype == torch.uint8
