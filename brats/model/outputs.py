"""OutputSpec: what the channels of the network are, and how targets and probabilities follow from it.

Axes: `B` batch, `K` channel of the network, `R` region that it predicts, `H W` slice axes.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from brats.config import OutputKind
from brats.labels import ED, REGIONS, TISSUES
from brats.model.losses import region_targets

EQUAL_ODDS = 0.5  # the threshold of a region where none has been chosen
BACKGROUND = "background"
CHANNELS: dict[OutputKind, tuple[str, ...]] = {
    "regions": tuple(REGIONS),
    "classes": (BACKGROUND, *map(str.upper, TISSUES)),  # the channel of a tissue is its label
    "whole-tumour": ("WT",),
}
"""The channels of the network by name, for each kind: sigmoids, and for exclusive classes a softmax."""


@dataclass(frozen=True)
class OutputSpec:
    """What the network gives: regions and the whole tumour by a sigmoid each, classes by one softmax."""

    kind: OutputKind = "regions"

    @property
    def channels(self) -> tuple[str, ...]:
        return CHANNELS[self.kind]

    @property
    def n_channels(self) -> int:
        return len(self.channels)

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that it predicts, the first of `REGIONS`."""
        return ("WT",) if self.kind == "whole-tumour" else tuple(REGIONS)

    def targets(self, labels: Tensor) -> Tensor:
        """What the loss compares logits with: the mask (B, K, H, W) float32 of each channel in labels (B, H, W)."""
        if self.kind == "classes":
            return torch.stack([labels == label for label in range(self.n_channels)], dim=1).float()
        return region_targets(labels, self.regions)

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probability (B, R, H, W) float32 of each region, whatever the kind, of logits (B, K, H, W)."""
        if self.kind != "classes":
            return torch.sigmoid(logits.float())
        of_class = torch.softmax(logits.float(), dim=1).unbind(1)
        sums = [
            functools.reduce(torch.add, [of_class[label] for label in REGIONS[region].labels])
            for region in self.regions
        ]
        return torch.stack(sums, dim=1).clamp_(max=1)  # a sum may be rounded to more

    def masks(self, logits: Tensor) -> Tensor:
        """Where each region (B, R, H, W) is more likely than not; it never waits for the device."""
        return self.probabilities(logits) > EQUAL_ODDS if self.kind == "classes" else logits > 0

    def predictable(self, labels: Tensor) -> Tensor:
        """The labels that a perfect network would predict: of the whole tumour alone, all of it is ED."""
        if self.kind != "whole-tumour":
            return labels
        return region_targets(labels, ("WT",)).squeeze(1).to(labels.dtype) * ED


REGION_OUTPUTS = OutputSpec()
