"""From a case to its label map: thresholds, padding, batches, number types, and nothing left behind."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from brats.data.case import Case
from brats.errors import CaseError
from brats.labels import ED, ET, NCR, Labels
from brats.model.inference import label_map, predict_labels, predict_logits, threshold_logits
from tests.support.prepared import MODALITIES, tiny_case, undecided_network

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


class Recorder(nn.Module):
    """Keeps what it is given; its logits are the first channel."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return images[:, :1].expand(-1, 3, -1, -1)


def network() -> nn.Module:
    return undecided_network().eval()


def logits_of(
    model: nn.Module, case: Case, *, modalities: Sequence[str] = MODALITIES, batch_size: int = 4
) -> list[Tensor]:
    batches = predict_logits(
        model, case, modalities=modalities, divisor=32, batch_size=batch_size, device=CPU, precision="fp32"
    )
    return list(batches)


def labels_of(model: nn.Module, case: Case, *, batch_size: int = 4, divisor: int = 32) -> Labels:
    return predict_labels(
        model,
        case,
        modalities=MODALITIES,
        thresholds=(0.5, 0.5, 0.5),
        divisor=divisor,
        batch_size=batch_size,
        device=CPU,
        precision="fp32",
    )


def normalised(case: Case, name: str) -> npt.NDArray[Any]:
    """An image of the case as plain numpy normalises it."""
    image = case.images[name].astype(np.float64)
    brain = image != case.intensities[name].background
    return np.where(brain, (image - image[brain].mean()) / image[brain].std(), 0)


def test_a_later_region_wins_in_every_combination_of_regions() -> None:
    combinations = np.array(list(itertools.product((False, True), repeat=3))).T  # (R, 8)
    found = label_map(torch.from_numpy(combinations)[None, :, :, None])
    assert found.dtype == torch.uint8
    assert found[0, :, 0].tolist() == [0, ET, NCR, ET, ED, ET, NCR, ET]


def test_a_region_is_where_its_probability_exceeds_its_threshold() -> None:
    probabilities = torch.tensor([0.19, 0.21, 0.49, 0.51, 0.79, 0.81])
    logits = torch.logit(probabilities).reshape(1, 1, 1, 6)
    never = torch.full_like(logits, -100)
    for threshold, n_above in ((0.2, 5), (0.5, 3), (0.8, 1)):
        labels = threshold_logits(torch.cat([logits, never, never], dim=1), (threshold, 0.5, 0.5))
        assert labels[0, 0].tolist() == [0] * (6 - n_above) + [ED] * n_above


def test_exactly_the_threshold_is_not_above_it() -> None:
    assert threshold_logits(torch.zeros(1, 3, 1, 1), (0.5, 0.5, 0.5)).item() == 0


def test_the_network_sees_each_slice_normalised_in_the_order_asked_for_and_zero_in_the_padding() -> None:
    case, recorder = tiny_case(), Recorder()
    order = tuple(reversed(MODALITIES))
    logits_of(recorder, case, modalities=order)
    seen = torch.cat(recorder.seen).numpy()
    n_slices, height, width = case.images["flair"].shape
    assert (height, width) == (40, 36)
    assert seen.shape == (n_slices, 2, 64, 64)
    for channel, name in enumerate(order):
        np.testing.assert_allclose(seen[:, channel, :height, :width], normalised(case, name), atol=1e-4)
    assert not seen[:, :, height:].any()
    assert not seen[:, :, :, width:].any()


def test_an_image_whose_background_is_not_zero_is_padded_with_its_background() -> None:
    case = tiny_case(dtypes={"flair": np.float32})
    flair = case.intensities["flair"]
    shifted = {**case.images, "flair": case.images["flair"] - 7}
    moved = type(flair)(**{**flair.__dict__, "background": -7.0, "mean": flair.mean - 7})
    intensities = {**case.intensities, "flair": moved}
    case = type(case)(**{**case.__dict__, "images": shifted, "intensities": intensities})
    recorder = Recorder()
    logits_of(recorder, case)
    seen = torch.cat(recorder.seen).numpy()
    np.testing.assert_allclose(seen[:, 0, :40, :36], normalised(case, "flair"), atol=1e-4)
    assert not seen[:, :, 40:].any()


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
        logits_of(network(), tiny_case(), modalities=("flair", "t1", "t2"))


def test_an_unwanted_modality_is_not_shown_to_the_network() -> None:
    recorder = Recorder()
    logits_of(recorder, tiny_case(), modalities=("t1ce",))
    assert recorder.seen[0].shape[1] == 1


def test_bf16_stays_close_to_fp32() -> None:
    model, case = network(), tiny_case()
    batches = predict_logits(
        model, case, modalities=MODALITIES, divisor=32, batch_size=10, device=CPU, precision="bf16"
    )
    (rounded,), (exact,) = list(batches), logits_of(model, case, batch_size=10)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.05 * float(exact.abs().max()))


def test_between_two_batches_the_caller_is_not_in_inference_mode() -> None:
    batches = predict_logits(
        network(), tiny_case(), modalities=MODALITIES, divisor=32, batch_size=4, device=CPU, precision="fp32"
    )
    logits = next(batches)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert not logits.requires_grad


def test_a_network_that_has_predicted_trains_on() -> None:
    model = network()
    logits_of(model, tiny_case())
    model.train()(torch.rand(2, len(MODALITIES), 64, 64)).sum().backward()
    assert not any(tensor.is_inference() for tensor in model.state_dict().values())
    assert all(parameter.grad is not None for parameter in model.parameters())
