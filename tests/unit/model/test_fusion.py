"""Networks made ready for inference: the same logits with fewer layers."""

import pytest
import torch
from torch import Tensor, nn

from brats.config import CLASSIC_UNET
from brats.model.fusion import for_inference, fuse_batchnorm
from brats.model.precision import autocast
from brats.model.unet import build_unet

CPU = torch.device("cpu")


def trained_unet(encoder: str) -> nn.Module:
    """A network whose BatchNorms have statistics and weights of their own."""
    torch.manual_seed(0)
    network = build_unet(encoder=encoder, n_channels=3, decoder_channels=(8,) * 5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, std=0.5)
            nn.init.normal_(module.running_mean, std=0.5)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return network.eval()


def n_batchnorms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.fixture
def slices() -> Tensor:
    return torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "encoder",
    [
        "resnet18",
        "tu-test_resnet",
        "tu-tf_efficientnet_lite0",
        CLASSIC_UNET,
        *(
            pytest.param(name, marks=pytest.mark.medium)
            for name in ("efficientnet-b0", "mobilenet_v2", "densenet121")
        ),
    ],
)
def test_logits_stay_the_same(encoder: str, slices: Tensor) -> None:
    network = trained_unet(encoder)
    with torch.inference_mode():
        expected = network(slices)
        torch.testing.assert_close(for_inference(network, 3, "fp32")(slices), expected, rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(network(slices), expected)  # which is left as it was


@pytest.mark.parametrize("encoder", ["resnet18", "tu-tf_efficientnet_lite0"])
def test_every_batchnorm_is_folded(encoder: str) -> None:
    network = trained_unet(encoder)
    assert n_batchnorms(network) > 20
    assert n_batchnorms(fuse_batchnorm(network, 3)) == 0


@pytest.mark.parametrize("encoder", ["resnet18", CLASSIC_UNET])
def test_weights_are_in_the_type_that_is_computed_in_and_give_what_autocast_gives(
    encoder: str, slices: Tensor
) -> None:
    network = trained_unet(encoder)
    ready = for_inference(network, 3, "bf16")
    assert {module.weight.dtype for module in ready.modules() if isinstance(module, nn.Conv2d)} == {torch.bfloat16}
    with torch.inference_mode(), autocast("bf16", CPU):
        difference = (ready(slices).float() - network(slices).float()).abs()
    assert difference.mean() < 0.02 * network(slices).abs().mean()


class TwoUses(nn.Module):
    """The output of the convolution is used before and after the BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, slices: Tensor) -> Tensor:
        found = self.convolution(slices)
        result: Tensor = found + self.norm(found)
        return result


def test_network_that_uses_a_convolution_twice_is_left_as_it_is(slices: Tensor) -> None:
    network = TwoUses().eval()
    nn.init.uniform_(network.norm.running_mean, 1, 2)  # type: ignore[arg-type]
    folded = fuse_batchnorm(network, 3)
    assert n_batchnorms(folded) == 1
    torch.testing.assert_close(folded(slices), network(slices))
