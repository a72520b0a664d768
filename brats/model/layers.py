"""The layers of a network with the shapes that they give: what a drawing of it shows.

Axes: `C` channel, `H W` slice axes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from brats.model.bundle import ModelCard
from brats.model.classic_unet import ClassicUnet
from brats.model.unet import build_unet


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A stage of a U-Net: which part it belongs to, and the shape (C, H, W) of what it gives.

    part: input, encoder, decoder or output
    """

    part: str
    name: str
    shape: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The stages of a network in the order of the computation, and how many weights it has."""

    layers: tuple[Layer, ...]
    n_parameters: int


def architecture(card: ModelCard, size: tuple[int, int]) -> Architecture:
    """The stages of the network of a card for a slice (H, W), from a forward pass on zeros.

    size: multiples of the divisor of the card
    """
    network = build_unet(
        encoder=card.encoder,
        n_channels=card.inputs.n_channels,
        decoder_channels=card.decoder_channels,
        outputs=card.output_spec,
    ).eval()
    found: list[Layer] = []
    for part, name, module in stages(network):
        _record(module, part, name, found)
    with torch.no_grad():
        network(torch.zeros(1, card.inputs.n_channels, *size))
    first = Layer(part="input", name="slice", shape=(card.inputs.n_channels, *size))
    return Architecture(layers=(first, *found), n_parameters=sum(p.numel() for p in network.parameters()))


def stages(network: nn.Module) -> list[tuple[str, str, nn.Module]]:
    """The part, name and module of each stage of a network of `build_unet`."""
    if isinstance(network, ClassicUnet):
        down, up = network.contracting, network.expanding
        found = [("encoder", f"level {number}", block) for number, block in enumerate(down, 1)]
        found += [("decoder", f"level {len(up) - number}", block) for number, block in enumerate(up)]
    else:
        found = [("encoder", "encoder", network.get_submodule("encoder"))]
        blocks = network.get_submodule("decoder.blocks").children()
        found += [("decoder", f"stage {number}", block) for number, block in enumerate(blocks, 1)]
    return [*found, ("output", "logits", network.get_submodule("segmentation_head"))]


def _record(module: nn.Module, part: str, name: str, found: list[Layer]) -> None:
    """Have a module write the shape of what it gives; an encoder gives the features of each of its levels."""

    def write(_: nn.Module, __: object, given: Tensor | list[Tensor]) -> None:
        several = isinstance(given, list | tuple)
        for number, tensor in enumerate(given if several else [given]):
            if several and not number:
                continue  # the input itself
            channels, height, width = tensor.shape[1:]
            full = f"{name} {number}" if several else name
            found.append(Layer(part=part, name=full, shape=(channels, height, width)))

    module.register_forward_hook(write)
