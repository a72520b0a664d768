"""The classic U-Net: its size, its levels, its skip connections and its drop-out."""

import pytest
import torch

from brats.model.classic_unet import ClassicUnet, initialise

pytestmark = pytest.mark.usefixtures("one_thread")

LEVELS = (32, 16, 8, 4, 2)


def test_with_the_channels_of_the_paper_it_has_31_million_parameters() -> None:
    with torch.device("meta"):
        network = ClassicUnet(1, 2, (1024, 512, 256, 128, 64), 0.0)
    # 18 convolutions of 3 x 3, 4 of 2 x 2 upwards and one of 1 x 1, with their biases: the paper's figure 1
    pairs = [
        (1, 64),
        (64, 128),
        (128, 256),
        (256, 512),
        (512, 1024),
        (1024, 512),
        (512, 256),
        (256, 128),
        (128, 64),
    ]
    n_blocks = sum(9 * n_in * n_out + n_out + 9 * n_out * n_out + n_out for n_in, n_out in pairs)
    n_upwards = sum(4 * 2 * n * n + n for n in (512, 256, 128, 64))
    assert sum(tensor.numel() for tensor in network.parameters()) == n_blocks + n_upwards + 2 * 64 + 2 == 31_030_658


def test_logits_are_on_the_grid_of_the_images() -> None:
    network = ClassicUnet(3, 4, LEVELS, 0.0)
    assert network(torch.zeros(2, 3, 32, 48)).shape == (2, 4, 32, 48)


def test_a_step_reaches_every_weight() -> None:
    network = ClassicUnet(2, 1, LEVELS, 0.0)
    network(torch.randn(2, 2, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_every_level_has_a_skip_connection_that_the_output_depends_on() -> None:
    torch.manual_seed(0)
    network = ClassicUnet(1, 1, LEVELS, 0.0)
    image = torch.randn(1, 1, 32, 32)
    before = network(image)
    for block in network.expanding:
        first = block.get_parameter("0.weight")
        with torch.no_grad():
            kept = first.clone()
            first[:, : first.shape[1] // 2] = 0  # the channels of the skip connection come first
        assert not torch.equal(network(image), before)
        with torch.no_grad():
            first.copy_(kept)


def test_features_are_left_out_at_the_deepest_level_in_training_alone() -> None:
    network = ClassicUnet(1, 1, LEVELS, 0.5)
    image = torch.randn(1, 1, 32, 32)
    left_out: list[torch.Tensor] = []
    network.dropout.register_forward_hook(lambda _module, _inputs, output: left_out.append(output))
    assert not torch.equal(network.train()(image), network(image))
    assert torch.equal(network.eval()(image), network(image))
    assert {tuple(output.shape) for output in left_out} == {(1, LEVELS[0], 2, 2)}


@pytest.mark.parametrize(
    "layer", [torch.nn.Conv2d(128, 128, 3, padding=1), torch.nn.ConvTranspose2d(128, 128, 2, stride=2)]
)
def test_weights_start_so_that_features_keep_their_mean_square(
    layer: torch.nn.Conv2d | torch.nn.ConvTranspose2d,
) -> None:
    torch.manual_seed(0)
    initialise(layer)
    features = layer(torch.randn(1, 128, 64, 64))
    if isinstance(layer, torch.nn.Conv2d):
        features = features[:, :, 1:-1, 1:-1].relu()  # without the edges, which see zeros
    assert features.square().mean().item() == pytest.approx(1, rel=0.03)
    assert layer.bias is not None
    assert not layer.bias.any()
