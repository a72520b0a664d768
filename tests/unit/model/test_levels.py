"""Probabilities in levels: rounded, and counted by slice and by labels as a plain loop counts them."""

import dataclasses

import numpy as np
import pytest
import torch

from brats.data.segmented_case import N_LEVELS
from brats.labels import ED, ET
from brats.model.decoding import Decoding
from brats.model.levels import backwards, brain_mask, count_levels, quantise, segment
from tests.support.prepared import MODALITIES, segmenter_of, tiny_case, undecided_network

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_probability_has_the_nearest_of_256_levels() -> None:
    probabilities = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 0.5, 254.4 / 255, 1.0])
    assert quantise(probabilities).tolist() == [0, 0, 1, 128, 254, 255]


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_voxels_are_counted_by_level_slice_and_labels(slice_axis: int) -> None:
    random = np.random.default_rng(0)
    shape = (3, 4, 5)
    levels = random.integers(0, N_LEVELS, (3, 2, 4, 5)).astype(np.uint8)
    predicted, reference = random.integers(0, 4, (2, *shape)).astype(np.uint8)
    brain = random.random(shape) < 0.5
    counts = count_levels(
        torch.from_numpy(levels),
        predicted=torch.from_numpy(predicted),
        reference=torch.from_numpy(reference),
        brain=torch.from_numpy(brain),
        slice_axis=slice_axis,
    )
    by_labels, by_slice = np.zeros((2, 2, 4, 4, N_LEVELS)), np.zeros((2, shape[slice_axis], N_LEVELS))
    for voxel in np.ndindex(*shape):
        z, h, w = voxel
        for region in range(2):
            level = levels[z, region, h, w]
            by_labels[region, int(brain[voxel]), reference[voxel], predicted[voxel], level] += 1
            by_slice[region, voxel[slice_axis], level] += 1
    np.testing.assert_array_equal(counts.by_labels, by_labels)
    np.testing.assert_array_equal(counts.by_slice, by_slice)
    np.testing.assert_array_equal(backwards(counts).by_slice, by_slice[:, ::-1])


def test_brain_is_where_any_modality_is_not_background() -> None:
    case = tiny_case()
    flair, t1ce = (case.images[name].copy() for name in MODALITIES)
    flair[0, 0], t1ce[0, :2] = 0, 0
    case = dataclasses.replace(case, images={"flair": flair, "t1ce": t1ce})
    np.testing.assert_array_equal(brain_mask(case, MODALITIES), (flair != 0) | (t1ce != 0))
    np.testing.assert_array_equal(brain_mask(case, ("t1ce",)), t1ce != 0)


def test_a_segmentation_is_of_the_written_label_map_and_counts_every_voxel_of_the_crop() -> None:
    segmenter, case = segmenter_of(undecided_network().eval(), decoding=Decoding(smallest_et_mm3=1e6)), tiny_case()
    found = segment(segmenter, case, 4, keep_levels=True)
    np.testing.assert_array_equal(found.labels, segmenter.labels(case, 4))
    assert (found.labels == ED).any()
    assert not (found.labels == ET).any()
    assert found.levels is not None
    np.testing.assert_array_equal(found.levels, quantise(segmenter.probabilities(case, 4)).numpy())
    assert found.counts.by_labels.sum(axis=(1, 2, 3, 4)).tolist() == [found.labels.size] * 3
    assert case.labels is not None
    ed_in_both = int(((found.labels == ED) & (case.labels == ED)).sum())
    assert found.counts.by_labels[:, :, ED, ED].sum(axis=(1, 2)).tolist() == [ed_in_both] * 3
    n_per_slice = found.labels[0].size
    assert (found.counts.by_slice.sum(axis=2) == n_per_slice).all()


def test_levels_are_left_out_and_a_case_without_reference_counts_as_background() -> None:
    case = dataclasses.replace(tiny_case(), labels=None)
    found = segment(segmenter_of(undecided_network().eval()), case, 4)
    assert found.levels is None
    assert found.counts.by_labels[:, :, 1:].sum() == 0
