"""Validation of one case: its Dice is that of the scores, its loss that of all its slices together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from brats.data.case import Case
from brats.labels import ED, ET, NCR, REGIONS
from brats.model.losses import bce_dice_loss, region_targets
from brats.model.validation import validate, validate_case
from brats.score.metrics import case_metrics, count_overlap
from tests.support.prepared import ALONE, SHAPE, segmenter_of, tiny_case, undecided_network, write_prepared

pytestmark = pytest.mark.usefixtures("one_thread")


class Thresholds(nn.Module):
    """Finds WT where FLAIR is bright, TC and ET where T1ce is: often wrong, and not nested."""

    def forward(self, images: Tensor) -> Tensor:
        flair, t1ce = images.unbind(1)
        return torch.stack([flair - 0.5, t1ce - 0.2, t1ce - 1.5], dim=1)


class Constant(nn.Module):
    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = logit

    def forward(self, images: Tensor) -> Tensor:
        return torch.full((len(images), 3, *images.shape[-2:]), self.logit)


def validated(network: nn.Module, case: Case, folder: Path) -> tuple[float, list[float]]:
    """Loss and Dice."""
    (path,) = write_prepared(str(folder), [case])
    return validate_case(segmenter_of(network), bce_dice_loss, path)[:2]


def test_voxels_of_the_crop_are_correct_where_the_label_is_that_of_the_reference(tmp_path: Path) -> None:
    case = tiny_case()
    assert case.labels is not None
    predicted = segmenter_of(Thresholds()).labels(case, 3)
    (path,) = write_prepared(str(tmp_path), [case])
    *_, n_correct, n_voxels = validate_case(segmenter_of(Thresholds()), bce_dice_loss, path)
    assert n_correct == (predicted == case.labels).sum()
    assert n_correct < n_voxels == predicted.size


def test_the_dice_is_that_of_the_scores_of_the_predicted_label_map(tmp_path: Path) -> None:
    case = tiny_case()
    assert case.labels is not None
    predicted = segmenter_of(Thresholds()).labels(case, 3)
    scores = case_metrics(count_overlap(case.labels, predicted, case.spacing_zhw_mm, case.n_outside))
    expected = [scores[region]["dice"] for region in REGIONS]
    assert all(0.05 < value < 0.95 for value in expected)
    _, dice = validated(Thresholds(), case, tmp_path)
    assert dice == pytest.approx(expected, abs=1e-12)


def test_a_region_empty_in_both_masks_has_dice_one(tmp_path: Path) -> None:
    case = tiny_case(labels=np.zeros(SHAPE, np.uint8))
    assert validated(Constant(-10), case, tmp_path)[1] == [1, 1, 1]


def test_a_region_empty_in_one_mask_has_dice_zero(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[10:20, 10:20, 3:6] = NCR
    assert validated(Constant(-10), tiny_case(labels=labels), tmp_path)[1] == [0, 0, 1]


def test_a_prediction_of_everything_is_et_everywhere(tmp_path: Path) -> None:
    labels = np.full(SHAPE, ED, np.uint8)
    labels[:20] = ET
    # every voxel is predicted ET: WT is right, half of TC and ET is
    assert validated(Constant(10), tiny_case(labels=labels), tmp_path)[1] == pytest.approx([1, 2 / 3, 2 / 3])


@pytest.mark.parametrize("batch_size", [3, 10, 64])
def test_the_loss_takes_all_slices_together_without_the_padding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    monkeypatch.setattr("brats.model.validation.BATCH_SIZE", batch_size)
    case = tiny_case()
    assert case.labels is not None
    targets = region_targets(torch.from_numpy(case.labels))
    expected = bce_dice_loss(torch.full_like(targets, -2.0), targets).item()
    assert validated(Constant(-2), case, tmp_path)[0] == pytest.approx(expected, rel=1e-6)


def test_figures_are_means_over_the_cases_of_the_loss_given_and_of_the_dice(tmp_path: Path) -> None:
    paths = write_prepared(str(tmp_path), [tiny_case(f"val{seed}", seed=seed) for seed in range(2)])
    segmenter = segmenter_of(undecided_network().train())
    validated = validate(segmenter, mean_logit, ALONE, paths)
    assert not segmenter.network.training
    cases = [validate_case(segmenter, mean_logit, path) for path in paths]
    losses, dice, n_correct, n_voxels = zip(*cases, strict=True)
    assert validated["val_loss"] == pytest.approx(np.mean(losses))
    of_regions = [validated[f"val_dice_{region.lower()}"] for region in REGIONS]
    assert of_regions == pytest.approx(np.mean(dice, axis=0).tolist())
    assert validated["val_dice"] == pytest.approx(np.mean(of_regions))
    assert validated["val_accuracy"] == sum(n_correct) / sum(n_voxels)


def mean_logit(logits: Tensor, _: Tensor) -> Tensor:
    """A loss that is no other's."""
    return logits.mean()
