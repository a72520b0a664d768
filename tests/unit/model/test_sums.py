"""Sums over steps: counted by hand."""

import torch

from brats.model.outputs import REGION_OUTPUTS, OutputSpec
from brats.model.sums import DeviceSums, outputs_of
from tests.support.prepared import CPU

PRESENT, ABSENT = 2.0, -2.0  # logits


def logits(*labels: int) -> torch.Tensor:
    """Of one row of voxels whose predicted labels are these: (1, R, 1, n)."""
    regions = {0: (0, 0, 0), 1: (1, 1, 0), 2: (1, 0, 0), 3: (1, 1, 1)}
    masks = torch.tensor([regions[label] for label in labels]).T
    return torch.where(masks > 0, PRESENT, ABSENT)[None, :, None]


def reference(*labels: int) -> torch.Tensor:
    return torch.tensor(labels, dtype=torch.uint8)[None, None]


def test_sums_count_voxels_regions_losses_and_bad_gradients_until_they_are_read() -> None:
    sums = DeviceSums(CPU)
    sums.add(outputs_of(torch.tensor(0.5), logits(0, 1, 3, 2), reference(0, 1, 2, 2), REGION_OUTPUTS))
    sums.add(outputs_of(torch.tensor(1.5), logits(0, 0, 0, 3), reference(0, 0, 3, 3), REGION_OUTPUTS))
    sums.count(2, 4)
    sums.add_norm(torch.tensor(1.0))
    sums.add_norm(torch.tensor(float("inf")))
    sums.add_norm(torch.tensor(float("nan")))
    found = sums.read()
    assert found.loss_sum == 2.0
    assert (found.n_slices, found.n_voxels, found.n_correct, found.n_bad) == (2, 8, 6, 2)
    assert found.overlap == (3 + 1, 1 + 1, 0 + 1)
    assert found.total == (6 + 3, 3 + 3, 1 + 3)
    assert sums.read().total == (0, 0, 0)
    assert sums.read().n_slices == 0


def test_the_loss_of_a_micro_batch_weighs_its_slices() -> None:
    sums = DeviceSums(CPU)
    some_logits, some_labels = logits(0).expand(3, -1, -1, -1), reference(0).expand(3, -1, -1)
    sums.add(outputs_of(torch.tensor(0.5), some_logits, some_labels, REGION_OUTPUTS))
    assert sums.read().loss_sum == 1.5


def test_voxels_beyond_the_integers_of_float32_are_counted() -> None:
    n = 2**24 + 1
    some_logits, some_labels = logits(0).expand(1, -1, -1, n), reference(0).expand(1, -1, n)
    assert outputs_of(torch.tensor(0.5), some_logits, some_labels, REGION_OUTPUTS)[2] == n


def test_of_the_whole_tumour_alone_a_voxel_is_correct_where_it_is_tumour_or_not() -> None:
    sums = DeviceSums(CPU)
    whole = torch.tensor([PRESENT, PRESENT, PRESENT, ABSENT, ABSENT])[None, None, None]
    sums.add(outputs_of(torch.tensor(0.5), whole, reference(1, 2, 0, 3, 0), OutputSpec("whole-tumour")))
    found = sums.read()
    assert (found.n_correct, found.overlap[0], found.total[0]) == (3, 2, 3 + 3)


def test_the_sums_of_exclusive_classes_are_those_of_the_regions_that_they_make_up() -> None:
    of_class = torch.where(torch.eye(4, dtype=torch.bool), 5.0, -5.0)[:, [0, 1, 3, 2]][
        None, :, None
    ]  # (1, 4, 1, n)
    labels = reference(0, 1, 2, 2)
    found = outputs_of(torch.tensor(0.5), of_class, labels, OutputSpec("classes"))
    assert torch.equal(found, outputs_of(torch.tensor(0.5), logits(0, 1, 3, 2), labels, REGION_OUTPUTS))
