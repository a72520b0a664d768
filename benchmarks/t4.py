"""The kernels of a training step, counted, and the seconds that a card takes for them: a model, not a measurement.

Axes: `B` slices, `C` channel, `H W` slice axes.
"""

import functools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.preparing import fit_line
from brats.config import MODALITIES
from brats.labels import REGIONS
from brats.model.losses import bce_dice_loss
from brats.model.unet import build_unet, freeze_unused

SIZE = (192, 160)
DECODER = (256, 128, 64, 32, 16)
ENCODERS = ("resnet34", "timm-tf_efficientnet_lite0")

aten = torch.ops.aten
NO_KERNEL = {aten.empty, aten.new_empty, aten.empty_like, aten.detach}
# Bytes per weight of what follows backward, in float32: unscaled 8, their norm 4, clipped 8; AdamW reads weight,
# gradient and two moments and writes three of them, 28. Each is a few kernels for all weights together.
OPTIMISER_BYTES, OPTIMISER_KERNELS = 48, 8


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One launch: bytes that it reads and writes at the least, and its floating-point operations."""

    n_bytes: int
    n_matrix: int = 0
    """Of convolutions that tensor cores compute."""
    n_vector: int = 0
    """Of depthwise convolutions, which they do not."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimiser step of one card."""

    kernels: Sequence[Kernel]
    n_slices: int
    n_weights: int
    """That are trained, and so exchanged."""

    @property
    def n_bytes(self) -> int:
        return sum(kernel.n_bytes for kernel in self.kernels)

    @property
    def n_flop(self) -> int:
        return sum(kernel.n_matrix + kernel.n_vector for kernel in self.kernels)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card does in a second at the most."""

    n_bytes: float
    n_matrix: float
    n_vector: float

    def seconds(self, step: Step) -> float:
        """The sum over the kernels of the slowest of their bytes and operations."""
        return sum(
            max(kernel.n_bytes / self.n_bytes, kernel.n_matrix / self.n_matrix, kernel.n_vector / self.n_vector)
            for kernel in step.kernels
        )


class _Counter(TorchDispatchMode):
    """Takes down the kernels of all operations inside; on tensors of the device "meta" nothing is computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels: list[Kernel] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.kernels.extend(_kernels(func, args, result))
        return result


def _kernels(func: Any, args: tuple[Any, ...], result: Any) -> Iterator[Kernel]:
    operation = func.overloadpacket
    if func.is_view or operation in NO_KERNEL:
        return
    if operation is aten.convolution:
        inputs, weight = args[:2]
        yield _convolution(weight, result, inputs, weight, result)
    elif operation is aten.convolution_backward:
        gradient, inputs, weight = args[:3]
        of_inputs, of_weight, _ = result
        for output in (of_inputs, of_weight):
            if output is not None:  # the first layer's input needs no gradient
                other = weight if output is of_inputs else inputs
                yield _convolution(weight, gradient, gradient, other, output)
    else:
        yield Kernel(n_bytes=_bytes(args, result))


def _convolution(weight: Tensor, output: Tensor, *moved: Tensor) -> Kernel:
    """Forward, or backward to input or weights: the same arithmetic.

    output: of the forward pass, or its gradient; moved: what this pass reads and writes
    """
    n_flop = 2 * output.numel() * math.prod(weight.shape[1:])
    depthwise = weight.shape[1] == 1
    return Kernel(n_bytes=_bytes(moved), n_matrix=0 if depthwise else n_flop, n_vector=n_flop if depthwise else 0)


def _bytes(*values: Any) -> int:
    return sum(leaf.numel() * leaf.itemsize for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


@functools.cache
def training_step(encoder: str, n_slices: int) -> Step:
    """What a step of so many slices launches: forward in float16 as autocast does it, loss, backward, optimiser.

    Normalising and augmenting are not in it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of the package, for this way to name an encoder of timm
        network = build_unet(encoder=encoder, n_channels=len(MODALITIES), decoder_channels=DECODER)
    freeze_unused(network, len(MODALITIES))
    network = network.train().to("meta")
    trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    inputs = torch.empty(n_slices, len(MODALITIES), *SIZE, device="meta", dtype=torch.float16)
    targets = torch.empty(n_slices, len(REGIONS), *SIZE, device="meta")
    with _Counter() as counter:
        # Autocast casts what convolutions take, in every step; BatchNorm keeps its float32.
        cast = {
            name: weight.half() if weight.ndim == 4 or name.startswith("segmentation_head") else weight
            for name, weight in trained.items()
        }
        logits = functional_call(network, cast, (inputs.contiguous(memory_format=torch.channels_last),))
        bce_dice_loss(logits, targets).backward()
    n_weights = sum(weight.numel() for weight in trained.values())
    optimiser = [Kernel(n_bytes=OPTIMISER_BYTES * n_weights // OPTIMISER_KERNELS)] * OPTIMISER_KERNELS
    return Step(kernels=[*counter.kernels, *optimiser], n_slices=n_slices, n_weights=n_weights)


# NVIDIA's data sheets, but the matrix products of the H100, which were measured (bf16). n_vector is float32.
H100 = Card(n_bytes=3.35e12, n_matrix=791e12, n_vector=67e12)
T4 = Card(n_bytes=320e9, n_matrix=65e12, n_vector=8.1e12)
# Slices per second by batch, measured on one H100 with torch 2.11 on 2026-11-25: the whole step as one CUDA graph,
# resnet34, fp16, 4 x 192 x 160.
H100_SLICES_PER_S = {8: 1_780, 16: 2_657, 32: 3_639, 64: 4_393}
# Seconds of one eager step of resnet34: on that H100 8 slices at 538 a second, and an estimate for a g4dn.xlarge.
EAGER_STEP_S = (8 / 538, 0.025)
SPREAD = 0.25  # by which the fraction of a T4 may differ from that of the H100, either way
AUGMENTATION = 0.1  # of the step, at most


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Seconds of a graph-replayed step: `kernel_s` per kernel, and of `Card.seconds` the inverse of `fraction`."""

    kernel_s: float
    fraction: float
    deviation: float

    def seconds(self, step: Step, card: Card) -> float:
        return self.kernel_s * len(step.kernels) + card.seconds(step) / self.fraction


def fit_h100() -> Fit:
    """The line through what was measured; deviation: the largest, as a share."""
    steps = {n_slices: training_step("resnet34", n_slices) for n_slices in H100_SLICES_PER_S}
    measured_s = [n_slices / rate for n_slices, rate in H100_SLICES_PER_S.items()]
    slope, intercept, deviation = fit_line([H100.seconds(step) for step in steps.values()], measured_s)
    n_kernels = len(steps[8].kernels)  # the same for every number of slices
    return Fit(kernel_s=intercept / n_kernels, fraction=1 / slope, deviation=deviation)


def t4_range() -> tuple[Fit, Fit]:
    """A slow and a fast T4. The slow one augments as well."""
    fit = fit_h100()
    slow = fit.fraction * (1 - SPREAD) / (1 + AUGMENTATION)
    return (
        Fit(kernel_s=fit.kernel_s, fraction=slow, deviation=fit.deviation),
        Fit(kernel_s=fit.kernel_s, fraction=fit.fraction * (1 + SPREAD), deviation=fit.deviation),
    )
