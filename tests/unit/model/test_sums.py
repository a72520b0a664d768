"""Sums over training steps, against voxels counted by hand."""

import math

import pytest
import torch
from torch import Tensor

from brats.labels import ED, ET, NCR
from brats.model.epoch_figures import to_values
from brats.model.losses import region_targets
from brats.model.sums import StepSums, SumsOnDevice

LABELS = [0, NCR, ED, ET]


def regions(*labels: int) -> Tensor:
    """Targets (B, R, 1, 4) of slices of four voxels."""
    return region_targets(torch.tensor(labels, dtype=torch.uint8).reshape(-1, 1, 4))


def test_a_batch_adds_voxels_slices_and_losses() -> None:
    sums = SumsOnDevice(torch.device("cpu"))
    predicted, reference = [*LABELS, 0, 0, 0, 0], [ET, NCR, ED, ED, 0, 0, 0, 0]
    sums.add_batch(20 * regions(*predicted) - 10, regions(*reference), torch.tensor(0.25))
    sums.add_batch(20 * regions(*LABELS) - 10, regions(*LABELS), torch.tensor(0.5))
    expected = StepSums(
        loss_sum=1.0, n_slices=3, n_voxels=12, n_correct=10, overlap=(6, 3, 1), total=(13, 8, 4), n_bad=0
    )
    assert sums.read() == expected


@pytest.mark.parametrize(("norm", "bad"), [(1e30, 0), (math.nan, 1), (math.inf, 1)])
def test_a_gradient_norm_that_is_not_finite_counts_as_bad(norm: float, bad: int) -> None:
    sums = SumsOnDevice(torch.device("cpu"))
    sums.add_norm(torch.tensor(norm))
    assert sums.read().n_bad == bad


def test_reading_starts_anew() -> None:
    sums = SumsOnDevice(torch.device("cpu"))
    sums.add_batch(regions(*LABELS), regions(*LABELS), torch.tensor(1.0))
    sums.add_norm(torch.tensor(math.nan))
    sums.read()
    assert set(to_values(sums.read())) == {0}
