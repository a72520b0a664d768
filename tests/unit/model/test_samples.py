"""Samples of slices as the network sees them."""

from dataclasses import replace

import numpy as np
import pytest

from brats.data.batches import InputSpec
from brats.errors import CaseError
from brats.model.samples import sample_slices
from tests.support.drawing import make_case

CASE = make_case(modalities=("flair", "t1"))
INPUTS = InputSpec(modalities=("flair", "t1"))


def test_the_slice_with_most_tumour_is_normalised() -> None:
    normalised, augmented = sample_slices(CASE, INPUTS, kind="none", modality_dropout=0, seed=0, n_samples=1)
    intensity = CASE.intensities["flair"]
    raw = CASE.images["flair"][3]
    assert normalised.shape == (2, 50, 42)
    np.testing.assert_allclose(normalised[0], (raw - intensity.mean) / intensity.std, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(augmented[0], normalised)


def test_samples_are_flips_of_the_slice_and_differ() -> None:
    normalised, augmented = sample_slices(CASE, INPUTS, kind="flips", modality_dropout=0, seed=1, n_samples=8)
    padded = np.zeros((2, 64, 64), np.float32)
    padded[:, :50, :42] = normalised
    flips = [padded, padded[:, ::-1], padded[:, :, ::-1], padded[:, ::-1, ::-1]]
    cut = [flip[:, :50, :42] for flip in flips]
    which = [next(n for n, flip in enumerate(cut) if np.array_equal(sample, flip)) for sample in augmented]
    assert len(set(which)) > 1


def test_full_augmentation_changes_intensities_and_is_the_same_each_time() -> None:
    drawn = [sample_slices(CASE, INPUTS, kind="full", modality_dropout=0, seed=0, n_samples=2)[1] for _ in range(2)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0][0], drawn[0][1])


def test_dropped_modalities_are_zero() -> None:
    _, augmented = sample_slices(CASE, INPUTS, kind="none", modality_dropout=1, seed=0, n_samples=4)
    assert [int(np.any(sample, axis=(1, 2)).sum()) for sample in augmented] == [1] * 4


def test_neighbours_and_computed_channels_are_left_out() -> None:
    inputs = replace(INPUTS, context=1, extra=("foreground",))
    normalised, _ = sample_slices(CASE, inputs, kind="none", modality_dropout=0, seed=0, n_samples=1)
    assert len(normalised) == 2


def test_a_missing_modality_is_named() -> None:
    with pytest.raises(CaseError, match="no t2"):
        sample_slices(CASE, InputSpec(modalities=("t2",)), kind="none", modality_dropout=0, seed=0, n_samples=1)
