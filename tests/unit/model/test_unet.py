"""The network: its shape, its input, its memory format, and what it says about encoders it cannot have."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from brats.data.batches import DIVISOR
from brats.errors import ConfigError
from brats.model.inputs import normalise
from brats.model.unet import build_unet, freeze_unused

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = "tu-test_resnet"
DECODER = (8, 8, 8, 8, 8)


def build(encoder: str = SMALL, *, n_modalities: int = 4, weights: str | None = None) -> nn.Module:
    return build_unet(encoder=encoder, n_modalities=n_modalities, decoder_channels=DECODER, encoder_weights=weights)


@pytest.mark.parametrize("n_modalities", [1, 3, 4])
def test_any_number_of_modalities_gives_three_regions_on_the_same_grid(n_modalities: int) -> None:
    logits = build(n_modalities=n_modalities).eval()(torch.zeros(2, n_modalities, DIVISOR, 3 * DIVISOR))
    assert logits.shape == (2, 3, DIVISOR, 3 * DIVISOR)


def test_a_new_network_takes_nearly_every_pixel_for_healthy() -> None:
    logits = build().eval()(torch.randn(2, 4, 64, 64))
    assert (logits < 0).float().mean() > 0.95


def test_the_output_is_a_logit_not_a_probability() -> None:
    network = build()
    torch.nn.init.constant_(list(network.parameters())[-1], -3.0)  # the bias of the last layer
    assert network.eval()(torch.zeros(1, 4, 64, 64)).min() < -1


def test_the_weights_are_kept_channels_last() -> None:
    kernels = [parameter for parameter in build().parameters() if parameter.ndim == 4]
    assert kernels
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


@pytest.mark.parametrize("encoder", ["resnet19", "tu-no_such_network"])
def test_an_unknown_encoder_is_a_configuration_error_that_names_it(encoder: str) -> None:
    with pytest.raises(ConfigError, match="^--encoder: .*" + encoder.removeprefix("tu-")):
        build(encoder)


def test_unknown_pretrained_weights_are_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"^--encoder-weights: .*`nowhere`.*imagenet"):
        build("resnet18", weights="nowhere")


def test_pretrained_weights_without_network_say_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise ConnectionError("Max retries exceeded\nwith a long story")

    monkeypatch.setattr(smp, "Unet", no_network)
    with pytest.raises(ConfigError, match=r"^--encoder-weights: 'imagenet' .* need the network; .*$") as caught:
        build("resnet18", weights="imagenet")
    assert "\n" not in str(caught.value)


def test_building_without_pretrained_weights_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr("socket.socket.connect", refuse)
    build("resnet18")


def test_parameters_without_gradient_leave_training_and_change_nothing_else() -> None:
    network = build("efficientnet-b0", n_modalities=1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    freeze_unused(network, 1)
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {"encoder._conv_head.weight", "encoder._bn1.weight", "encoder._bn1.bias"}
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_all_of_a_resnet_is_trained() -> None:
    network = build("resnet18", n_modalities=1)
    freeze_unused(network, 1)
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_normalise_equals_plain_numpy_and_the_background_is_zero(dtype: type) -> None:
    random = np.random.default_rng(0)
    stored: npt.NDArray[Any] = random.integers(-50, 50, (2, 3, 8, 6)).astype(dtype)
    offset, scale = random.normal(size=(2, 2, 3)).astype(np.float32) + 5
    background = np.array([[0, 0, -7], [0, 3, 0]], np.float32)
    expected = np.zeros(stored.shape, np.float32)
    for b, c, h, w in np.ndindex(stored.shape):
        if stored[b, c, h, w] != background[b, c]:
            expected[b, c, h, w] = (stored[b, c, h, w] - offset[b, c]) / scale[b, c]
    assert 0 < (expected == 0).sum() < expected.size / 10
    columns = (torch.from_numpy(column) for column in (offset, scale, background))
    values = normalise(torch.from_numpy(stored), *columns)
    assert values.dtype == torch.float32
    assert values.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_normalise_leaves_the_stored_numbers_alone() -> None:
    stored = torch.ones(1, 1, 2, 2)
    column = torch.full((1, 1), 1.0)
    normalise(stored, column, column, column)
    assert torch.equal(stored, torch.ones(1, 1, 2, 2))


def test_lowest_number_of_float32_as_background_becomes_0() -> None:
    lowest = torch.finfo(torch.float32).min
    column = torch.tensor([[5.0]]), torch.tensor([[0.5]]), torch.tensor([[lowest]])
    values = normalise(torch.tensor([[[[lowest, 6.0, lowest, 5.0]]]]), *column)
    assert values.flatten().tolist() == [0, 2, 0, 0]
