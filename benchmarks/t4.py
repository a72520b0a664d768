"""The kernels of a training step, counted, and the seconds that a card takes for them: a model, not a measurement.

Axes: `B` slices, `C` channel, `H W` slice axes.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
