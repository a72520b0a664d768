"""Validation: the Dice is that of the scores, the loss that of all slices; cases are kept where they fit."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from brats.config import Plane
from brats.data.batches import InputSpec
from brats.data.case import Case
from brats.data.slices import SliceFile, open_slices
from brats.errors import StorageError
from brats.labels import ED, ET, NCR, REGIONS
from brats.model import validation
from brats.model.losses import bce_dice_loss, cross_entropy_loss, region_targets
from brats.model.outputs import OutputSpec
from brats.model.validation import VALIDATION_SHARE, ValidationCases, case_figures, validate
from brats.score.metrics import case_metrics, count_overlap
from tests.support.prepared import (
    ALONE,
    CPU,
    INPUTS,
    MODALITIES,
    SHAPE,
    segmenter_of,
    tiny_case,
    undecided_network,
    write_prepared,
)

pytestmark = pytest.mark.usefixtures("one_thread")


class Thresholds(nn.Module):
    """Finds WT where FLAIR is bright, TC and ET where T1ce is: often wrong, and not nested."""

    def forward(self, images: Tensor) -> Tensor:
        flair, t1ce = images.unbind(1)
        return torch.stack([flair - 0.5, t1ce - 0.2, t1ce - 1.5], dim=1)


class Constant(nn.Module):
    def __init__(self, logit: float, n_channels: int = 3) -> None:
        super().__init__()
        self.logit, self.n_channels = logit, n_channels

    def forward(self, images: Tensor) -> Tensor:
        return torch.full((len(images), self.n_channels, *images.shape[-2:]), self.logit)


def validated(network: nn.Module, case: Case, folder: Path) -> tuple[float, list[float]]:
    """Its loss and its Dice."""
    loss, _, _, *dice = figures(network, case, folder)
    return loss, dice


def figures(network: nn.Module, case: Case, folder: Path, batch_size: int = 16) -> list[float]:
    (stored,) = ValidationCases(write_prepared(str(folder), [case]), INPUTS, CPU)
    found: list[float] = case_figures(segmenter_of(network), bce_dice_loss, stored, batch_size).tolist()
    return found


def test_the_dice_is_that_of_the_scores_of_the_predicted_label_map(tmp_path: Path) -> None:
    case = tiny_case()
    assert case.labels is not None
    predicted = segmenter_of(Thresholds()).labels(case, 3)
    scores = case_metrics(count_overlap(case.labels, predicted, case.spacing_zhw_mm, case.n_outside))
    expected = [scores[region]["dice"] for region in REGIONS]
    assert all(0.05 < value < 0.95 for value in expected)
    _, dice = validated(Thresholds(), case, tmp_path)
    assert dice == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
def test_the_figures_are_those_of_the_whole_case_in_every_plane(tmp_path: Path, plane: Plane) -> None:
    """Of a network that looks at single voxels."""
    case = tiny_case()
    inputs = InputSpec(modalities=MODALITIES, plane=plane)
    (stored,) = ValidationCases(write_prepared(str(tmp_path), [case]), inputs, CPU)
    found = case_figures(segmenter_of(Thresholds(), inputs=inputs), bce_dice_loss, stored, 16).tolist()
    assert found == pytest.approx(figures(Thresholds(), case, tmp_path), rel=1e-5)


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
def test_the_loss_takes_all_slices_together_without_the_padding(tmp_path: Path, batch_size: int) -> None:
    case = tiny_case()
    assert case.labels is not None
    targets = region_targets(torch.from_numpy(case.labels))
    expected = bce_dice_loss(torch.full_like(targets, -2.0), targets).item()
    assert figures(Constant(-2), case, tmp_path, batch_size)[0] == pytest.approx(expected, rel=1e-6)


def test_correct_voxels_are_those_whose_predicted_label_is_the_reference(tmp_path: Path) -> None:
    case = tiny_case()
    predicted = segmenter_of(Thresholds()).labels(case, 3)
    _, n_correct, n_voxels, *_ = figures(Thresholds(), case, tmp_path)
    assert n_voxels == predicted.size
    assert n_correct == np.count_nonzero(predicted == case.labels)
    assert 0 < n_correct < n_voxels


def test_figures_are_means_over_the_cases_of_the_loss_given_and_of_the_dice(stored: list[str]) -> None:
    segmenter = segmenter_of(undecided_network().train())
    cases = ValidationCases(stored, INPUTS, CPU)
    validated = validate(segmenter, mean_logit, ALONE, cases)
    assert not segmenter.network.training
    found = np.array([case_figures(segmenter, mean_logit, case, 16).tolist() for case in cases])
    assert validated["val_loss"] == pytest.approx(found[:, 0].mean())
    of_regions = [validated[f"val_dice_{region.lower()}"] for region in REGIONS]
    assert of_regions == pytest.approx(found[:, 3:].mean(axis=0).tolist())
    assert validated["val_dice"] == pytest.approx(np.mean(of_regions))
    assert validated["val_accuracy"] == pytest.approx(found[:, 1].sum() / found[:, 2].sum())


def test_the_accuracy_is_that_of_all_voxels_together_and_not_a_mean_of_cases(tmp_path: Path) -> None:
    """A case of 40 x 36 x 10 voxels without tumour, and one a quarter of its size that is all ET."""
    small = (20, 18, 10)
    cases = [
        tiny_case("healthy", labels=np.zeros(SHAPE, np.uint8)),
        tiny_case("ill", labels=np.full(small, ET, np.uint8), shape=small),
    ]
    paths = write_prepared(str(tmp_path), cases)
    found = validate(segmenter_of(Constant(10)), bce_dice_loss, ALONE, ValidationCases(paths, INPUTS, CPU))
    assert found["val_accuracy"] == 1 / 5


def test_a_network_of_the_whole_tumour_alone_has_the_dice_of_wt_and_none_of_other_regions(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[10:20, 10:20, 3:6], labels[12:14, 12:14, 3:6] = ED, NCR
    cases = ValidationCases(write_prepared(str(tmp_path), [tiny_case(labels=labels)]), INPUTS, CPU)
    outputs = OutputSpec("whole-tumour")
    found = validate(segmenter_of(Constant(10, 1), outputs=outputs), bce_dice_loss, ALONE, cases)
    n_tumour, n_voxels = 300, labels.size  # tumour is found everywhere
    assert found["val_dice"] == found["val_dice_wt"] == pytest.approx(2 * n_tumour / (n_tumour + n_voxels))
    assert (found["val_dice_tc"], found["val_dice_et"]) == (None, None)
    assert found["val_accuracy"] == pytest.approx(n_tumour / n_voxels)
    target = torch.from_numpy(np.ascontiguousarray(labels.T > 0)).float()[:, None]
    assert found["val_loss"] == pytest.approx(bce_dice_loss(torch.full_like(target, 10), target).item(), rel=1e-5)


def test_exclusive_classes_are_validated_by_the_regions_that_they_make_up(stored: list[str]) -> None:
    segmenter = segmenter_of(Classes(), outputs=OutputSpec("classes"))
    (case, *_) = ValidationCases(stored, INPUTS, CPU)
    loss, _, _, *dice = case_figures(segmenter, cross_entropy_loss, case, 16).tolist()
    logits = torch.cat(list(segmenter.logits(case.raw, 16)))
    classes = functional.cross_entropy(logits, case.labels.long())
    assert loss == pytest.approx(classes.item(), rel=1e-5)
    reference, predicted = (region_targets(each) for each in (case.labels, logits.argmax(1)))
    overlap, total = ((pair).sum((0, 2, 3)) for pair in (reference * predicted, reference + predicted))
    assert dice == pytest.approx((2 * overlap / total).tolist(), abs=1e-6)
    assert all(0.05 < value < 0.95 for value in dice)


class Classes(nn.Module):
    """Certain of one class everywhere, rightly or not: no label but the likeliest exceeds one half."""

    def forward(self, images: Tensor) -> Tensor:
        flair, t1ce = images.unbind(1)
        return 5000 * torch.stack([0 * flair, t1ce - 0.2, flair - 0.5, 2 * t1ce - 1.7], dim=1)


def mean_logit(logits: Tensor, _: Tensor) -> Tensor:
    """A loss that is no other's."""
    return logits.mean()


# Reading and keeping


class Files:
    """Stands for `open_slices`: counts the readings of each file, and lets some of them fail."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.broken = ""

    def open(self, path: str) -> SliceFile:
        self.read.append(Path(path).stem)
        if self.read[-1] == self.broken:
            raise RuntimeError(f"{self.broken} cannot be opened")
        return open_slices(path)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    files = Files()
    monkeypatch.setattr(validation, "open_slices", files.open)
    return files


@pytest.fixture
def stored(tmp_path: Path) -> list[str]:
    return write_prepared(str(tmp_path), [tiny_case(f"val{seed}", seed=seed) for seed in range(3)])


def with_room_for(n_cases: float, stored: list[str], monkeypatch: pytest.MonkeyPatch) -> ValidationCases:
    """The cases, with so much memory free that its share holds so many of them."""
    needed = next(iter(ValidationCases(stored[:1], INPUTS, CPU))).nbytes
    monkeypatch.setattr(validation, "free_bytes", lambda _: int(n_cases * needed / VALIDATION_SHARE) + 1)
    return ValidationCases(stored, INPUTS, CPU)


def test_a_case_takes_the_bytes_of_its_padded_images_and_of_its_labels(stored: list[str]) -> None:
    case = next(iter(ValidationCases(stored, INPUTS, CPU)))
    assert case.nbytes == 10 * 2 * 64 * 64 * 2 + 4 * 10 * 2 * 4 + 10 * 40 * 36


@pytest.mark.parametrize(
    ("room", "again"),
    [(3, []), (2.5, ["val2"]), (1, ["val1", "val2"]), (0.99, ["val0", "val1", "val2"])],
)
def test_cases_that_fit_are_read_once_and_the_others_each_time(
    stored: list[str], files: Files, monkeypatch: pytest.MonkeyPatch, room: float, again: list[str]
) -> None:
    cases = with_room_for(room, stored, monkeypatch)
    segmenter = segmenter_of(undecided_network())
    files.read.clear()
    first = validate(segmenter, bce_dice_loss, ALONE, cases)
    assert files.read == ["val0", "val1", "val2"]
    files.read.clear()
    assert validate(segmenter, bce_dice_loss, ALONE, cases) == first
    assert files.read == again


@pytest.mark.parametrize("room", [0, 1, 3])
def test_cases_come_in_the_order_of_their_paths_kept_or_not(
    stored: list[str], monkeypatch: pytest.MonkeyPatch, room: float
) -> None:
    cases = with_room_for(room, stored, monkeypatch)
    expected = [open_slices(path).read_case(MODALITIES) for path in stored]
    for _ in range(2):
        for found, case in zip(cases, expected, strict=True):
            assert case.labels is not None
            assert torch.equal(found.labels, torch.from_numpy(case.labels))
            flair = found.raw.images[:, 0, : SHAPE[0], : SHAPE[1]]
            np.testing.assert_array_equal(flair.numpy(), case.images["flair"])


def test_the_next_case_is_read_while_one_is_in_use_and_none_further(
    stored: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    began = [threading.Event() for _ in stored]

    def observed(path: str) -> SliceFile:
        began[stored.index(path)].set()
        return open_slices(path)

    monkeypatch.setattr(validation, "open_slices", observed)
    cases = iter(ValidationCases(stored, INPUTS, CPU))
    next(cases)
    assert began[1].wait(30)
    assert not began[2].is_set()
    next(cases)
    assert began[2].wait(30)


def test_an_error_of_the_reading_thread_comes_where_its_case_would_have(stored: list[str], files: Files) -> None:
    files.broken = "val1"
    cases = iter(ValidationCases(stored, INPUTS, CPU))
    next(cases)
    with pytest.raises(RuntimeError, match="val1 cannot be opened"):
        next(cases)


def test_a_damaged_file_is_named_in_one_line(stored: list[str]) -> None:
    content = Path(stored[1]).read_bytes()
    Path(stored[1]).write_bytes(content[:500] + bytes(100) + content[600:])
    segmenter = segmenter_of(undecided_network())
    with pytest.raises(StorageError, match=f"{stored[1]}: ") as raised:
        validate(segmenter, bce_dice_loss, ALONE, ValidationCases(stored, INPUTS, CPU))
    assert "\n" not in str(raised.value)


class Small(nn.Module):
    """Plays a GPU that holds no more than 3 slices at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def forward(self, slices: Tensor) -> Tensor:
        self.asked.append(len(slices))
        if len(slices) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return slices.new_zeros(len(slices), 3, *slices.shape[-2:])


def test_a_batch_that_does_not_fit_is_halved_for_this_case_and_those_after_it(stored: list[str]) -> None:
    network = Small()
    validate(segmenter_of(network), bce_dice_loss, ALONE, ValidationCases(stored, INPUTS, CPU))
    assert network.asked == [10, 8, 4, *[2] * 15]
