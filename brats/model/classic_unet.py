"""The classic U-Net: plain convolutions, as Ronneberger, Fischer and Brox published it in 2015 (arXiv 1505.04597).

What differs from the paper: convolutions are padded, so that the output is as large as the input and nothing is cut
off the skip connections; and drop-out is an option. As in the paper, nothing normalises the features. With the 64
to 1,024 channels of the paper it has 31 million parameters.

Axes: `B` batch, `C` channel, `K` channel of the output, `H W` slice axes, both multiples of 16.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ClassicUnet(nn.Module):
    """From (B, C, H, W) to (B, K, H, W) logits; the halvings are one fewer than the levels."""

    def __init__(self, n_channels: int, n_outputs: int, level_channels: Sequence[int], dropout: float) -> None:
        """
        level_channels: features at each level, deepest first
        dropout:        share of the deepest features left out, "at the end of the contracting path"
        """
        super().__init__()
        from_top = (n_channels, *reversed(level_channels))
        self.contracting = nn.ModuleList(itertools.starmap(two_convolutions, itertools.pairwise(from_top)))
        self.halve = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        steps = list(itertools.pairwise(level_channels))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(deeper, upper, 2, stride=2) for deeper, upper in steps)
        self.expanding = nn.ModuleList(two_convolutions(2 * upper, upper) for _, upper in steps)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                initialise(module)
        self.segmentation_head = nn.Sequential(nn.Conv2d(level_channels[-1], n_outputs, 1))

    def forward(self, images: Tensor) -> Tensor:
        features, skips = images, []
        for level, block in enumerate(self.contracting):
            features = block(self.halve(features) if level else features)
            skips.append(features)
        features = self.dropout(skips.pop())
        for enlarge, block in zip(self.enlarge, self.expanding, strict=True):
            features = block(torch.cat([skips.pop(), enlarge(features)], dim=1))
        logits: Tensor = self.segmentation_head(features)
        return logits


def two_convolutions(n_in: int, n_out: int) -> nn.Sequential:
    """Twice a convolution of 3 x 3 and its ReLU."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(n_out, n_out, 3, padding=1),
        nn.ReLU(inplace=True),
    )


def initialise(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Normal weights with which features keep their mean square, as the paper has it, and no bias.

    Their deviation is sqrt(2 / N), N the values that one output is a sum of, for half of which the ReLU makes up.
    After a transposed convolution, whose outputs each see one weight per channel, there is none: sqrt(1 / N).
    """
    if isinstance(layer, nn.Conv2d):
        nn.init.normal_(layer.weight, std=(2 / layer.weight[0].numel()) ** 0.5)
    else:
        nn.init.normal_(layer.weight, std=(1 / layer.in_channels) ** 0.5)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
