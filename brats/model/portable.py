"""A trained network as a graph that other programs run: raw slices in, region probabilities out.

The graph contains the normalisation and the channels that are computed from others, so that a program that runs it
needs no code of this project. What it leaves to that program is to make slices of volumes, to pad them to the
divisor, and to make label maps of probabilities.

Axes: `B` slices of a batch, `M` modality, `D` slices of a modality that are seen at once, `R` region, `H W` slice
axes.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from brats.data.batches import InputSpec
from brats.data.layouts import BRATS_SHAPE
from brats.data.planes import shape_in_plane
from brats.errors import BundleError
from brats.model.bundle import ModelCard, load_bundle
from brats.model.inputs import extra_channel
from brats.model.outputs import OutputSpec

INPUT_NAMES = ("images", "mean", "std")
OUTPUT_NAME = "probabilities"
TOLERANCE = 1e-4  # of a probability, between the network and its graph in another program; sums in another order
CROP_SHAPE = (BRATS_SHAPE[2], *BRATS_SHAPE[:2])  # Z H W, of the slices that a graph of one size takes
MOST_SLICES, MOST_DIVISORS = 1024, 64  # of a batch, and in the height or width of a slice


class PortableNetwork(nn.Module):
    """A network with the arithmetic of `brats.model.inputs` before it and of its `OutputSpec` behind it."""

    def __init__(self, network: nn.Module, inputs: InputSpec, outputs: OutputSpec) -> None:
        super().__init__()
        self.network = with_fixed_padding(network)
        self._inputs = inputs
        self._outputs = outputs

    def forward(self, images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """The probabilities (B, R, H, W) float32 of slices.

        images:    (B, M D, H, W) float32, raw values, 0 in the background; H and W multiples of the divisor
        mean, std: (B, M) float32, of the voxels of the whole case that are not 0
        """
        depth = len(self._inputs.steps)
        offset, scale = (each.repeat_interleave(depth, 1)[:, :, None, None] for each in (mean, std))
        inside = (images != 0).to(torch.float32)
        normalised = (images - offset) * inside / scale
        extra = [extra_channel(name, normalised, self._inputs) for name in self._inputs.extra]
        return self._outputs.probabilities(self.network(torch.cat([normalised, *extra], 1)))


def with_fixed_padding(network: nn.Module) -> nn.Module:
    """A copy whose convolutions with the padding of TensorFlow pad by numbers, and no longer by the size they see.

    Of sizes that the stride divides, as all are in slices padded to the divisor, it is the same padding. Encoders
    of timm that come from TensorFlow have such convolutions, and a graph with sizes left open could not hold them.
    """
    fixed = copy.deepcopy(network)
    for name, module in list(fixed.named_modules()):
        if isinstance(module, Conv2dSame):
            parent, _, leaf = name.rpartition(".")
            setattr(fixed.get_submodule(parent), leaf, _padded(module))
    return fixed


def _padded(convolution: Any) -> nn.Module:
    sizes = zip(convolution.kernel_size, convolution.stride, convolution.dilation, strict=True)
    height, width = (max((size - 1) * dilation + 1 - stride, 0) for size, stride, dilation in sizes)
    plain = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,
        convolution.stride,
        dilation=convolution.dilation,
        groups=convolution.groups,
        bias=convolution.bias is not None,
    )
    plain.load_state_dict(convolution.state_dict())
    return nn.Sequential(nn.ZeroPad2d((width // 2, width - width // 2, height // 2, height - height // 2)), plain)


@dataclass(frozen=True, kw_only=True)
class Captured:
    """The graph of a model.

    network: the model itself, in PyTorch, to check the graph against
    size:    (H, W) of the slices that the graph takes; None where any multiple of the divisor will do
    """

    card: ModelCard
    network: nn.Module
    program: ExportedProgram
    size: tuple[int, int] | None

    @property
    def takes(self) -> str:
        """The slices that it takes, in words."""
        if self.size:
            return f"slices of {self.size[0]} x {self.size[1]} alone, since the encoder fixes the size"
        return f"slices of any height and width that {self.card.inputs.divisor} divides"

    def random_inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Slices to compare by: three, of another size than the graph was made with where it may be any."""
        divisor = self.card.inputs.divisor
        return random_inputs(self.card.inputs, 3, self.size or (3 * divisor, 2 * divisor))


def random_inputs(inputs: InputSpec, n_slices: int, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Images, means and deviations of slices of this size, as `PortableNetwork` takes them; the same each time."""
    random = torch.Generator().manual_seed(0)
    shape = (n_slices, len(inputs.modalities) * len(inputs.steps), *size)
    images = torch.rand(shape, generator=random).mul(1000).sub(300).clamp_(min=0)  # about a third is background
    mean, std = (torch.rand(shape[0], len(inputs.modalities), generator=random).add(1) * n for n in (300, 100))
    return images, mean, std


def capture(bundle: str) -> Captured:
    """The graph of the model in a bundle of one network, in float32.

    Slices of any size where the encoder allows it, else of BraTS's size in the plane of the network.

    Raises BundleError for a bundle that cannot be used, and for a network of which no graph can be made.
    """
    network, card = load_bundle(bundle)
    portable = PortableNetwork(network, card.inputs, card.output_spec).eval()
    divisor = card.inputs.divisor
    batch = Dim("batch", min=1, max=MOST_SLICES)
    height, width = (divisor * Dim(name, min=1, max=MOST_DIVISORS) for name in ("rows", "columns"))
    fixed = card.inputs.padded_size([shape_in_plane(CROP_SHAPE, card.inputs.plane)[1:]])
    problem = ""
    for size, axes in ((None, {0: batch, 2: height, 3: width}), (fixed, {0: batch})):
        example = random_inputs(card.inputs, 2, size or (2 * divisor, 3 * divisor))
        try:
            program = torch.export.export(portable, example, dynamic_shapes=(axes, {0: batch}, {0: batch}))
        # What a network raises that looks at its sizes is up to its code.
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            problem = " ".join(str(error).split())
        else:
            original = copy.deepcopy(portable)
            original.network = network
            return Captured(card=card, network=original, program=program, size=size)
    raise BundleError(f"{bundle}: no graph can be made of the encoder {card.encoder} ({problem[:300]})")
