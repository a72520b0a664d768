"""The averaged network: an exponential moving average of the weights and BatchNorm statistics of one in training.

Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class AveragedNetwork:
    """A copy of a network, in evaluation mode, that follows it.

    pairs: each tensor of the network in training that is averaged, and its average
    share: of the present values in the next average, a scalar on the device
    """

    network: nn.Module
    pairs: tuple[tuple[Tensor, Tensor], ...]
    share: Tensor

    @classmethod
    def of(cls, followed: nn.Module, device: torch.device) -> Self:
        """The average of a network on the device, which has just begun: its values now."""
        network = copy.deepcopy(followed).eval().requires_grad_(False)
        network.zero_grad(set_to_none=True)
        pairs = tuple(zip(_averaged(followed), _averaged(network), strict=True))
        return cls(network=network, pairs=pairs, share=torch.zeros((), device=device))

    def set_decay(self, decay: float) -> None:
        """How much of the average the next `follow` keeps; set outside of what is captured."""
        self.share.fill_(1 - decay)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the average towards the network: work of the device alone, a few kernels for all tensors."""
        present, averages = map(list, zip(*self.pairs, strict=True))
        steps = torch._foreach_sub(present, averages)
        torch._foreach_mul_(steps, self.share)  # a tensor, so that setting it reaches a captured step too
        torch._foreach_add_(averages, steps)


def _averaged(network: nn.Module) -> Iterator[Tensor]:
    """What is averaged; the counts of batches that BatchNorm keeps are not read in evaluation."""
    return (tensor for tensor in network.state_dict().values() if tensor.is_floating_point())


def decay_at(step: int, longest: float) -> float:
    """The decay of the update after a step, counted from 0: short at first, when the weights move fast."""
    return min(longest, (1 + step) / (10 + step))
