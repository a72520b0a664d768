"""Augmentation of training slices: flips, or one warp of images and labels and then changes of intensity.

Tensor operations alone, without random numbers and, on a GPU, without a question that waits for it: a CUDA graph
can capture it. On a CPU the slices and images that a transform leaves alone are left out, which gives the same
images to 1e-5 and the same labels. Call it outside of autocast: positions of pixels need float32.

Axes: `B` slices of a batch, `C` modality, `N` images (`B C` in one), `H W` slice axes, `P` parameters.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from brats.config import Augmentation
from brats.model.augment_draw import IMAGE_COLUMNS, SLICE_COLUMNS

N_NOISE = 2**20  # numbers in the table; a slice has at most as many pixels
NOISE_STRIDE = 64  # between the positions from which it is read
NEIGHBOUR = 4001  # positions between those from which a slice and the next one of its image read their noise
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
    of_images = for_neighbours(parameters[:, len(SLICE_COLUMNS) :], images.shape[1])
    images = change_intensities(images, brain, of_images, noise)
    return images.contiguous(memory_format=torch.channels_last), labels


def drop_modalities(images: Tensor, kept: Tensor) -> Tensor:
    """Images (B, C, H, W) in which modalities that are not kept are 0, which is background; others are unchanged.

    kept: 1 or 0 for each modality, (B, M); the channels are those of the first modality, then of the next
    """
    of_channels = kept.repeat_interleave(images.shape[1] // kept.shape[1], dim=1)
    return images * of_channels[:, :, None, None]


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
    brain = functional.grid_sample((images != 0).float(), grid, mode="nearest", align_corners=False)
    images = functional.grid_sample(images, grid, mode="bilinear", align_corners=False)
    nearest = functional.grid_sample(labels[:, None].float(), grid, mode="nearest", align_corners=False)
    return images.mul_(brain), brain, nearest[:, 0].to(labels.dtype)


def _grid(parameters: Tensor, noise: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel is taken from, (B, H, W, 2): W before H, in halves of the edges, from the centre."""
    at = dict(zip(SLICE_COLUMNS, parameters[:, :, None, None, None].unbind(1), strict=True))
    h, w = (torch.linspace((1 - size) / 2, (size - 1) / 2, size, device=noise.device) for size in (height, width))
    sources = [
        (at[edge + "_from_w"] * w + at[edge + "_from_1"]) * (2 / size)
        + at[edge + "_from_h"] * h[:, None] * (2 / size)
        for edge, size in (("w", width), ("h", height))
    ]
    grid = torch.cat(sources, dim=1)
    grid = _where(0, partial(_displace, noise), grid, at["elastic"], at["elastic_at"])
    return grid.movedim(1, -1)


def _displace(noise: Tensor, grid: Tensor, strength: Tensor, position: Tensor) -> Tensor:
    """A grid (B, 2, H, W) displaced smoothly, by pixels of this standard deviation."""
    height, width = grid.shape[2:]
    waves = strength * _read(noise, position, (2, N_ELASTIC_WAVES, N_ELASTIC_WAVES))
    waves[:, 0].mul_(2 / width)
    waves[:, 1].mul_(2 / height)
    return grid + _smooth(waves, height, width)


def for_neighbours(parameters: Tensor, n_channels: int) -> Tensor:
    """IMAGE_COLUMNS of each modality as those of each channel, where a modality has several, one after the other.

    They are slices of one image, and are changed alike; only their noise differs.
    """
    of_images: Tensor = parameters.unflatten(1, (-1, len(IMAGE_COLUMNS)))
    depth = n_channels // of_images.shape[1]
    if depth == 1:
        return parameters
    of_channels = of_images[:, :, None].repeat(1, 1, depth, 1)
    elsewhere = NEIGHBOUR * torch.arange(depth, device=parameters.device)
    of_channels[..., IMAGE_COLUMNS.index("noise_at")] += elsewhere
    return of_channels.flatten(1)


def change_intensities(images: Tensor, brain: Tensor, parameters: Tensor, noise: Tensor) -> Tensor:
    """Images (B, C, H, W), each changed by its own IMAGE_COLUMNS; written over. `brain` is 1 in them, else 0."""
    shape = images.shape
    columns = parameters.reshape(-1, len(IMAGE_COLUMNS), 1, 1, 1).unbind(1)
    at = dict(zip(IMAGE_COLUMNS, columns, strict=True))
    brain = brain.reshape(-1, 1, *shape[2:])
    images = images.reshape(brain.shape)
    images = _where(1, torch.mul, images, at["gain"])
    images = _where(0, _shift, images, at["shift"], brain)
    images = _where(1, _gamma, images, at["gamma"], brain)
    images = _where(0, partial(_bias, noise), images, at["field"], at["field_at"])
    images = _where(0, _blur, images, at["blur"], brain)
    images = _where(0, _lower_resolution, images, at["low_resolution"], brain)
    images = _where(0, partial(_add_noise, noise), images, at["noise"], at["noise_at"], brain)
    return images.view(shape)


def _where(
    neutral: float, change: Callable[..., Tensor], images: Tensor, strength: Tensor, *others: Tensor
) -> Tensor:
    """`change(images, strength, *others)`, which leaves images of the neutral strength as they are.

    On a CPU they are not computed, and the others written over.
    """
    if images.device.type != "cpu":  # where asking for their strength would wait for the device
        return change(images, strength, *others)
    rows = (strength.flatten() != neutral).nonzero()[:, 0]
    if len(rows):
        images[rows] = change(images[rows], *(column[rows] for column in (strength, *others)))
    return images


def _shift(images: Tensor, shift: Tensor, brain: Tensor) -> Tensor:
    """Images plus a constant outside the background."""
    return torch.addcmul(images, shift, brain)


def _gamma(images: Tensor, gamma: Tensor, brain: Tensor) -> Tensor:
    """Each image between its least and greatest value to the power of gamma, these two unchanged."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    span = (high - low).clamp_min_(torch.finfo(torch.float32).tiny)
    powers = torch.sub(images, low).div_(span).pow_(gamma)
    return torch.addcmul(low, powers, span).mul_(brain)


def _bias(noise: Tensor, images: Tensor, strength: Tensor, position: Tensor) -> Tensor:
    """Images times 1 plus a smooth field of this standard deviation."""
    waves = strength * _read(noise, position, (1, N_FIELD_WAVES, N_FIELD_WAVES))
    return torch.addcmul(images, images, _smooth(waves, *images.shape[2:]))


def _blur(images: Tensor, share: Tensor, brain: Tensor) -> Tensor:
    """Images mixed with their mean over 3 x 3 pixels."""
    blurred = functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    return images.lerp(blurred, share).mul_(brain)


def _lower_resolution(images: Tensor, share: Tensor, brain: Tensor) -> Tensor:
    """Images mixed with what half as many pixels along each edge would show."""
    coarse = functional.avg_pool2d(images, 2)
    return images.lerp(functional.interpolate(coarse, images.shape[2:], mode="bilinear"), share).mul_(brain)


def _add_noise(noise: Tensor, images: Tensor, strength: Tensor, position: Tensor, brain: Tensor) -> Tensor:
    """Noise of this standard deviation added outside the background."""
    return torch.addcmul(images, _read(noise, position, images.shape[1:]).mul_(strength), brain)


def _smooth(waves: Tensor, height: int, width: int) -> Tensor:
    """Smooth fields (N, F, H, W): sums of products of cosines along H and along W, by coefficients (N, F, K, K).

    Standard normal coefficients give fields of mean 0 and, over all pixels, variance 1.
    """
    along_h, along_w = (_cosines(waves.shape[-1], size, waves.device) for size in (height, width))
    return along_h @ (waves @ along_w.T)


def _cosines(n_waves: int, size: int, device: torch.device) -> Tensor:
    """None to `n_waves - 1` half waves along an edge, (size, n_waves); the mean of their sum of squares is 1."""
    half = math.pi / (2 * size)  # of the way from one pixel to the next
    phases = torch.linspace(half, math.pi - half, size, device=device)[:, None]
    cosines = torch.cos(phases * torch.arange(n_waves, device=device))
    return cosines.mul_(math.sqrt(2 / (n_waves + 1)))


def _read(noise: Tensor, position: Tensor, shape: Sequence[int]) -> Tensor:
    """Numbers of the table (N, *shape), from N positions on; positions past the last count from the first again."""
    windows = noise.unfold(0, math.prod(shape), NOISE_STRIDE)
    return windows[position.flatten().long() % len(windows)].view(-1, *shape)
