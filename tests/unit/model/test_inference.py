"""From a case to probabilities and a label map: thresholds, batches, number types, and nothing left behind."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from brats.config import OutputKind, Plane
from brats.data.batches import InputSpec
from brats.data.case import Case
from brats.errors import CaseError
from brats.labels import Labels
from brats.model.bundle import ModelCard, save_bundle
from brats.model.decoding import Decoding, label_map
from brats.model.inference import FLIPS, Segmenter
from brats.model.outputs import OutputSpec
from tests.support.prepared import CONFIG, CPU, MODALITIES, segmenter_of, tiny_case, undecided_network

pytestmark = pytest.mark.usefixtures("one_thread")


def network() -> nn.Module:
    return undecided_network().eval()


def logits_of(model: nn.Module, case: Case, *, batch_size: int = 4) -> list[Tensor]:
    segmenter = segmenter_of(model)
    return list(segmenter.logits(segmenter.place(case), batch_size))


def labels_of(model: nn.Module, case: Case, *, batch_size: int = 4) -> Labels:
    return segmenter_of(model).labels(case, batch_size)


def test_logits_come_for_every_slice_of_the_crop_and_nothing_beside() -> None:
    shapes = [tuple(logits.shape) for logits in logits_of(network(), tiny_case())]
    assert shapes == [(4, 3, 40, 36), (4, 3, 40, 36), (2, 3, 40, 36)]


def test_the_prediction_does_not_depend_on_the_batch_size() -> None:
    model, case = network(), tiny_case()
    one_by_one = torch.cat(logits_of(model, case, batch_size=1))
    together = torch.cat(logits_of(model, case, batch_size=64))
    torch.testing.assert_close(one_by_one, together, rtol=1e-4, atol=1e-5)
    sure = (together.abs() > 1e-4).all(dim=1).numpy()
    assert sure.mean() > 0.99
    different = labels_of(model, case, batch_size=3) != labels_of(model, case, batch_size=64)
    assert not different[sure].any()


def test_the_label_map_has_the_shape_of_the_crop_and_is_not_trivial() -> None:
    labels = labels_of(network(), tiny_case())
    assert labels.shape == (10, 40, 36)
    assert labels.dtype == np.uint8
    assert len(np.unique(labels)) > 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16])
def test_mixed_number_types_predict_as_one(dtype: npt.DTypeLike) -> None:
    whole, mixed = tiny_case(), tiny_case()
    images = {**mixed.images, "flair": mixed.images["flair"].astype(dtype)}
    mixed = type(mixed)(**{**mixed.__dict__, "images": images})
    np.testing.assert_array_equal(labels_of(network(), mixed), labels_of(network(), whole))


def test_a_missing_modality_is_named() -> None:
    with pytest.raises(CaseError, match="no t1 and no t2; the case has flair, t1ce"):
        segmenter_of(network(), inputs=InputSpec(modalities=("flair", "t1", "t2"))).labels(tiny_case(), 4)


@pytest.mark.parametrize("below", [0.2, 0.5, 0.8])
def test_labels_are_where_the_probabilities_exceed_the_thresholds(below: float) -> None:
    case, model = tiny_case(), network()
    probabilities = segmenter_of(model).probabilities(case, 4)
    assert probabilities.shape == (10, 3, 40, 36)
    assert probabilities.dtype == torch.float32
    limits = probabilities.transpose(0, 1).flatten(1).quantile(below, dim=1)  # of each region
    above = probabilities > limits.reshape(1, 3, 1, 1)
    assert above.float().mean((0, 2, 3)).tolist() == pytest.approx([1 - below] * 3, abs=0.01)
    distance = (probabilities - limits.reshape(1, 3, 1, 1)).abs()
    decided = (distance > 1e-6).all(dim=1).numpy()  # the others may be rounded either way
    assert decided.mean() > 0.99
    labels = segmenter_of(model, decoding=Decoding(thresholds=tuple(limits.tolist()))).labels(case, 4)
    np.testing.assert_array_equal(labels[decided], label_map(above).numpy()[decided])


@pytest.mark.parametrize("kind", ["classes", "whole-tumour"])
def test_other_outputs_give_region_probabilities_and_labels_by_their_thresholds(kind: OutputKind) -> None:
    outputs, case = OutputSpec(kind), tiny_case()
    model = undecided_network(outputs=outputs).eval()
    probabilities = segmenter_of(model, outputs=outputs).probabilities(case, 4)
    assert probabilities.shape == (10, len(outputs.regions), 40, 36)
    limits = probabilities.transpose(0, 1).flatten(1).quantile(0.5, dim=1)
    thresholds = (*limits.tolist(), 0.5, 0.5)[:3]
    labels = segmenter_of(model, outputs=outputs, decoding=Decoding(thresholds=thresholds)).labels(case, 4)
    distance = (probabilities - limits.reshape(1, -1, 1, 1)).abs()
    decided = (distance > 1e-6).all(dim=1).numpy()  # the others may be rounded either way
    assert decided.mean() > 0.99
    expected = label_map(probabilities > limits.reshape(1, -1, 1, 1)).numpy()
    np.testing.assert_array_equal(labels[decided], expected[decided])


# Planes


class Rising(nn.Module):
    """Finds WT where FLAIR is brighter in the next slice than in the one before, TC and ET where T1ce is bright."""

    def forward(self, images: Tensor) -> Tensor:
        before, _, after, _, t1ce, _ = images.unbind(1)
        return torch.stack([after - before, t1ce - 0.2, t1ce - 1.5], dim=1)


def seen_by_rising(case: Case, plane: Plane) -> npt.NDArray[np.float64]:
    """The logits of `Rising` (R, Z, H, W) in the axes of the crop, as plain numpy has them."""
    flair, t1ce = (
        np.where(image == intensity.background, 0, (image - intensity.mean) / intensity.std)
        for image, intensity in ((case.images[name], case.intensities[name]) for name in ("flair", "t1ce"))
    )
    along = {"axial": 0, "sagittal": 1, "coronal": 2}[plane]
    padded = np.pad(flair, [(int(axis == along), int(axis == along)) for axis in range(3)])
    n_slices = flair.shape[along]
    after, before = (padded.take(range(first, first + n_slices), axis=along) for first in (2, 0))
    return np.stack([after - before, t1ce - 0.2, t1ce - 1.5])


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_what_is_seen_in_a_plane_comes_back_in_the_axes_of_the_case(plane: Plane) -> None:
    case = tiny_case()
    inputs = InputSpec(modalities=("flair", "t1ce"), plane=plane, context=1)
    segmenter = segmenter_of(Rising(), inputs=inputs)
    logits = seen_by_rising(case, plane)
    probabilities = segmenter.probabilities(case, 4)
    assert probabilities.shape == (10, 3, 40, 36)
    expected = 1 / (1 + np.exp(-logits.swapaxes(0, 1)))
    np.testing.assert_allclose(probabilities.numpy(), expected, atol=1e-4)
    labels = segmenter.labels(case, 7)
    sure = (np.abs(logits) > 1e-3).all(axis=0)
    assert sure.mean() > 0.9
    above = label_map(torch.from_numpy(logits.swapaxes(0, 1) > 0)).numpy()
    np.testing.assert_array_equal(labels[sure], above[sure])
    assert labels.flags.c_contiguous


def test_segmenter_of_a_bundle_has_its_inputs_and_decoding_and_the_logits_of_its_network(tmp_path: Path) -> None:
    inputs, decoding = InputSpec(modalities=tuple(reversed(MODALITIES))), Decoding(thresholds=(0.3, 0.4, 0.6))
    card = ModelCard(
        encoder=CONFIG.encoder,
        decoder_channels=CONFIG.decoder_channels,
        inputs=inputs,
        decoding=decoding,
        epoch=1,
        val_dice=0.5,
        trained_on={},
    )
    save_bundle(str(tmp_path), network().state_dict(), card)
    loaded = Segmenter.load(str(tmp_path), CPU, "fp32")
    assert (loaded.inputs, loaded.decoding, loaded.precision, loaded.flips) == (inputs, decoding, "fp32", False)
    expected = segmenter_of(network(), inputs=inputs).probabilities(tiny_case(), 4)
    torch.testing.assert_close(loaded.probabilities(tiny_case(), 4), expected, rtol=0, atol=1e-3)


def test_bf16_stays_close_to_fp32() -> None:
    model, case = network(), tiny_case()
    segmenter = segmenter_of(model, precision="bf16")
    (rounded,) = segmenter.logits(segmenter.place(case), 10)
    (exact,) = logits_of(model, case, batch_size=10)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.05 * float(exact.abs().max()))


def test_between_two_batches_the_caller_is_not_in_inference_mode() -> None:
    segmenter = segmenter_of(network())
    logits = next(segmenter.logits(segmenter.place(tiny_case()), 4))
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert not logits.requires_grad


def test_a_network_that_has_predicted_trains_on() -> None:
    model = network()
    logits_of(model, tiny_case())
    model.train()(torch.rand(2, len(MODALITIES), 64, 64)).sum().backward()
    assert not any(tensor.is_inference() for tensor in model.state_dict().values())
    assert all(parameter.grad is not None for parameter in model.parameters())


class Ramp(nn.Module):
    """Is surer of a region the brighter a voxel is, and the farther right and down it lies in the padded slice."""

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        place = torch.arange(height)[:, None] / height + 2 * torch.arange(width) / width
        return torch.stack([images[:, 0] + place, images[:, 1] - place, images[:, 0] * place], dim=1)


def test_flips_average_the_probabilities_of_the_four_ways_to_flip_a_slice() -> None:
    case, plain = tiny_case(), segmenter_of(Ramp())
    raw = plain.place(case)
    images = torch.cat(list(raw.batches(4)))
    each = []
    for axes in FLIPS:
        logits = Ramp()(images.flip(axes)).flip(axes)[:, :, : raw.size[0], : raw.size[1]]
        each.append(torch.sigmoid(logits))
    found = segmenter_of(Ramp(), flips=True).probabilities(case, 4)
    torch.testing.assert_close(found, torch.stack(each).mean(0), rtol=0, atol=1e-6)
    assert torch.equal(plain.probabilities(case, 4), each[0])
    assert (found - each[0]).abs().max() > 0.1


def test_flips_change_nothing_for_a_network_that_looks_at_one_voxel_at_a_time() -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(2, 3, 1)
    plain, flipped = (segmenter_of(model, flips=flips).probabilities(tiny_case(), 4) for flips in (False, True))
    torch.testing.assert_close(flipped, plain, rtol=0, atol=1e-6)
