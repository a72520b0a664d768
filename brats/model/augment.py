"""Augmentation of training slices: flips, or one warp of images and labels and then changes of intensity.

Tensor operations alone, without random numbers and, on a GPU, without a question that waits for it: a CUDA graph
can capture it. On a CPU the slices and images that a transform leaves alone are left out.

Axes: `B` slices of a batch, `C` modality, `N` images (`B C` in one), `H W` slice axes, `P` parameters.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from brats.config import Augmentation
from brats.model.augment_draw import IMAGE_COLUMNS, SLICE_COLUMNS

N_NOISE = 2**20  # numbers in the table; a slice has at most as many pixels
NOISE_STRIDE = 64  # between the positions from which it is read
N_FIELD_WAVES, N_ELASTIC_WAVES = 4, 5  # half waves along an edge; with more, strong displacements fold over


def noise_table(seed: int, device: torch.device) -> Tensor:
    """Standard normal numbers on the device, for all noise, bias fields and displacements of a run."""
    numbers = np.random.default_rng(seed).standard_normal(N_NOISE, np.float32)
    return torch.from_numpy(numbers).to(device)


@torch.no_grad()
def augment(
    images: Tensor, labels: Tensor, parameters: Tensor, noise: Tensor, kind: Augmentation
) -> tuple[Tensor, Tensor]:
    """Augmented images (B, C, H, W) and labels (B, H, W): normalised float32, background 0; uint8.

    parameters: (B, P) of `brats.model.augment_draw.draw` for the same kind
    noise: of `noise_table`
    """
    if kind == "none":
        return images, labels
    if kind == "flips":
        return flip(images, parameters), flip(labels, parameters)
    images, brain, labels = warp(images, labels, parameters[:, : len(SLICE_COLUMNS)], noise)
    images = change_intensities(images, brain, parameters[:, len(SLICE_COLUMNS) :], noise)
    return images.contiguous(memory_format=torch.channels_last), labels


def flip(slices: Tensor, flips: Tensor) -> Tensor:
    """Flip slices (B, ..., H, W) along H and W where `flips` (B, 2) is not 0; a new tensor."""
    for axis, flipped in zip((-2, -1), flips.bool().unbind(1), strict=True):
        slices = torch.where(flipped.view(-1, *[1] * (slices.ndim - 1)), slices.flip(axis), slices)
    return slices


def warp(images: Tensor, labels: Tensor, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B, C, H, W), where they are not background (the same shape, 0 or 1) and labels, by SLICE_COLUMNS.

    Images are interpolated; background and labels are those of the nearest pixel. Outside the slice, all is 0.
    """
    grid = _grid(parameters, noise, images.shape[2], images.shape[3])
    exact = torch.cat([labels[:, None], images != 0], dim=1).float()
    exact = functional.grid_sample(exact, grid, mode="nearest", align_corners=False)
    images = functional.grid_sample(images, grid, mode="bilinear", align_corners=False)
    brain = exact[:, 1:]
    return images.mul_(brain), brain, exact[:, 0].to(labels.dtype)


def _grid(parameters: Tensor, noise: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel is taken from, (B, H, W, 2): W before H, in halves of the edges, from the centre."""
    at = dict(zip(SLICE_COLUMNS, parameters[:, :, None, None, None].unbind(1), strict=True))
    h = torch.arange(height, device=noise.device)[:, None] - (height - 1) / 2
    w = torch.arange(width, device=noise.device) - (width - 1) / 2
    sources = [at[row + "_from_w"] * w + at[row + "_from_1"] + at[row + "_from_h"] * h for row in "wh"]
    grid = torch.cat(sources, dim=1)
    grid = _where(at["elastic"] != 0, partial(_displace, noise), grid, at["elastic"], at["elastic_at"])
    return torch.stack([grid[:, 0] * (2 / width), grid[:, 1] * (2 / height)], dim=-1)


def _displace(noise: Tensor, grid: Tensor, strength: Tensor, position: Tensor) -> Tensor:
    """Pixels (B, 2, H, W) displaced smoothly, by so many pixels of standard deviation."""
    return grid + strength * _waves(noise, position, N_ELASTIC_WAVES, grid)


def change_intensities(images: Tensor, brain: Tensor, parameters: Tensor, noise: Tensor) -> Tensor:
    """Images (B, C, H, W), each changed by its own IMAGE_COLUMNS; written over. `brain` is 1 in them, else 0."""
    shape = images.shape
    columns = parameters.reshape(-1, len(IMAGE_COLUMNS), 1, 1, 1).unbind(1)
    at = dict(zip(IMAGE_COLUMNS, columns, strict=True))
    brain = brain.reshape(-1, 1, *shape[2:])
    linear = (at["gain"] != 1) | (at["shift"] != 0)
    images = images.reshape(brain.shape)
    images = _where(linear, _scale, images, brain, at["gain"], at["shift"])
    images = _where(at["gamma"] != 1, _gamma, images, brain, at["gamma"])
    images = _where(at["field"] != 0, partial(_bias, noise), images, at["field"], at["field_at"])
    images = _where(at["blur"] != 0, _blur, images, brain, at["blur"])
    images = _where(at["low_resolution"] != 0, _lower_resolution, images, brain, at["low_resolution"])
    images = _where(at["noise"] != 0, partial(_add_noise, noise), images, brain, at["noise"], at["noise_at"])
    return images.view(shape)


def _where(wanted: Tensor, change: Callable[..., Tensor], images: Tensor, *others: Tensor) -> Tensor:
    """Images changed where wanted; elsewhere `change(images, *others)` must be the same. On a CPU written over."""
    if images.device.type != "cpu":
        return change(images, *others)
    rows = wanted.flatten().nonzero()[:, 0]
    if len(rows):
        images[rows] = change(images[rows], *(other[rows] for other in others))
    return images


def _scale(images: Tensor, brain: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    return (images * gain).addcmul_(shift, brain)


def _gamma(images: Tensor, brain: Tensor, gamma: Tensor) -> Tensor:
    """Each image between its least and greatest value to the power of gamma, these two unchanged."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    span = (high - low).clamp_min_(torch.finfo(torch.float32).tiny)
    powers = ((images - low) / span).clamp_(0, 1).pow_(gamma)
    return powers.mul_(span).add_(low).mul_(brain)


def _bias(noise: Tensor, images: Tensor, strength: Tensor, position: Tensor) -> Tensor:
    """Images times 1 plus a smooth field of this standard deviation."""
    return (strength * _waves(noise, position, N_FIELD_WAVES, images)).add_(1).mul_(images)


def _blur(images: Tensor, brain: Tensor, share: Tensor) -> Tensor:
    """Images mixed with their mean over 3 x 3 pixels."""
    blurred = functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    return images.lerp(blurred, share).mul_(brain)


def _lower_resolution(images: Tensor, brain: Tensor, share: Tensor) -> Tensor:
    """Images mixed with what half as many pixels along each edge would show."""
    coarse = functional.avg_pool2d(images, 2)
    return images.lerp(functional.interpolate(coarse, images.shape[2:], mode="bilinear"), share).mul_(brain)


def _add_noise(noise: Tensor, images: Tensor, brain: Tensor, strength: Tensor, position: Tensor) -> Tensor:
    numbers = _read(noise, position, images[0].numel()).view(images.shape)
    return torch.addcmul(images, numbers.mul_(strength), brain)


def _waves(noise: Tensor, position: Tensor, n_waves: int, images: Tensor) -> Tensor:
    """Smooth random fields of the shape of images (N, F, H, W): mean 0, variance 1 over the table.

    Sums of products of cosines along H and along W, of 0 to `n_waves - 1` half waves, with normal coefficients.
    """
    n_fields, height, width = images.shape[1:]
    numbers = _read(noise, position, n_fields * n_waves**2).view(-1, n_fields, n_waves, n_waves)
    along_h, along_w = (_cosines(n_waves, size, noise.device) for size in (height, width))
    return along_h @ (numbers @ along_w.T)


def _cosines(n_waves: int, size: int, device: torch.device) -> Tensor:
    """Half waves of cosines along an edge, (size, n_waves); the mean over the edge of their sum of squares is 1."""
    phases = (torch.arange(size, device=device)[:, None] + 0.5) * (math.pi / size)
    waves = torch.cos(phases * torch.arange(n_waves, device=device)) * math.sqrt(2 / n_waves)
    waves[:, 0] *= math.sqrt(1 / 2)
    return waves


def _read(noise: Tensor, position: Tensor, n_numbers: int) -> Tensor:
    """Numbers of the table (N, n_numbers) from the positions of N images on, around at its end."""
    windows = noise.unfold(0, n_numbers, NOISE_STRIDE)
    return windows[position.flatten().long() % len(windows)]
