"""The network: its shape, its memory format, and what it says about encoders it cannot have."""

from typing import get_args

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from brats.config import CLASSIC_UNET, LITE0_ENCODER, OutputKind
from brats.data.batches import DIVISOR
from brats.errors import ConfigError
from brats.model.outputs import REGION_OUTPUTS, OutputSpec
from brats.model.unet import build_unet, freeze_unused, training_problem

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = "tu-test_resnet"
DECODER = (8, 8, 8, 8, 8)


def build(
    encoder: str = SMALL,
    *,
    n_channels: int = 4,
    weights: str | None = None,
    outputs: OutputSpec = REGION_OUTPUTS,
    dropout: float = 0.0,
) -> nn.Module:
    return build_unet(
        encoder=encoder,
        n_channels=n_channels,
        decoder_channels=DECODER,
        encoder_weights=weights,
        outputs=outputs,
        dropout=dropout,
    )


@pytest.mark.parametrize("n_channels", [1, 3, 4])
def test_any_number_of_channels_gives_three_regions_on_the_same_grid(n_channels: int) -> None:
    logits = build(n_channels=n_channels).eval()(torch.zeros(2, n_channels, DIVISOR, 3 * DIVISOR))
    assert logits.shape == (2, 3, DIVISOR, 3 * DIVISOR)


def test_a_new_network_takes_nearly_every_pixel_for_healthy() -> None:
    logits = build().eval()(torch.randn(2, 4, 64, 64))
    assert (logits < 0).float().mean() > 0.95


@pytest.mark.parametrize("encoder", [SMALL, CLASSIC_UNET])
@pytest.mark.parametrize("kind", get_args(OutputKind))
def test_every_network_has_the_channels_of_its_outputs_and_begins_with_hardly_any_tumour(
    encoder: str, kind: OutputKind
) -> None:
    torch.manual_seed(0)
    outputs = OutputSpec(kind)
    logits = build(encoder, outputs=outputs).eval()(torch.randn(1, 4, 64, 64))
    assert logits.shape[1] == outputs.n_channels
    assert outputs.masks(logits).float().mean() < 0.1


@pytest.mark.parametrize("encoder", [SMALL, CLASSIC_UNET])
def test_dropout_changes_the_output_in_training_alone_and_no_name_of_a_weight(encoder: str) -> None:
    network = build(encoder, dropout=0.5)
    image = torch.randn(1, 4, 64, 64)
    for module in network.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert not torch.equal(network(image), network(image))
    assert torch.equal(network.eval()(image), network(image))
    assert list(network.state_dict()) == list(build(encoder).state_dict())


def test_dropout_leaves_out_features_between_encoder_and_decoder() -> None:
    network = build(dropout=0.25)
    (layer,) = (module for module in network.modules() if isinstance(module, nn.Dropout))
    seen: list[torch.Size] = []
    layer.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].shape[2:]))
    network.eval()(torch.zeros(1, 4, 64, 96))
    assert (layer.p, seen) == (0.25, [(2, 3)])  # a thirty-second


def test_pretrained_weights_of_the_classic_network_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--encoder-weights: .* classic-unet, so not 'imagenet'; give none$"):
        build(CLASSIC_UNET, weights="imagenet")


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


def test_unknown_weights_of_an_encoder_of_timm_are_not_taken_for_those_it_would_download() -> None:
    with pytest.raises(ConfigError, match=r"'imagenette' is not known for .*; give efficientnet-lite0, imagenet"):
        build(LITE0_ENCODER, weights="imagenette")


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
    network = build("efficientnet-b0", n_channels=1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    freeze_unused(network, 1)
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {"encoder._conv_head.weight", "encoder._bn1.weight", "encoder._bn1.bias"}
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_all_of_a_resnet_is_trained() -> None:
    network = build("resnet18", n_channels=1)
    freeze_unused(network, 1)
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("encoder", [SMALL, "resnet18"])
def test_one_slice_of_32_x_32_is_too_little_to_train_on_and_two_are_enough(encoder: str) -> None:
    network = build(encoder)
    assert "Expected more than 1 value per channel" in training_problem(network, 4, 1, (32, 32))
    assert training_problem(network, 4, 2, (32, 32)) == ""
    assert training_problem(network, 4, 1, (64, 32)) == ""
