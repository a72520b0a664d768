"""Augmentation of training slices: random flips.

They are drawn for the whole global batch from (seed, epoch, step), so that a slice is flipped in the same way
whichever rank trains on it, before and after a resume.

Axes: `B` batch, `H W` slice axes.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

FLIP_PROBABILITY = 0.5  # for each of the two axes

Flips = npt.NDArray[np.bool_]


def draw_flips(n_slices: int, *, seed: int, epoch: int, step: int) -> Flips:
    """Which slices of a global batch are flipped along H and along W: bool, (n_slices, 2)."""
    random = np.random.default_rng([seed, epoch, step])
    return random.random((n_slices, 2)) < FLIP_PROBABILITY


def flip(slices: Tensor, flips: Flips) -> Tensor:
    """Flip slices (B, ..., H, W) along the axes that `flips` (B, 2) names; a new tensor."""
    along_h, along_w = (torch.from_numpy(axis).to(slices.device) for axis in flips.T)
    shape = (-1, *[1] * (slices.ndim - 1))
    slices = torch.where(along_h.reshape(shape), slices.flip(-2), slices)
    return torch.where(along_w.reshape(shape), slices.flip(-1), slices)
