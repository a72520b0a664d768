"""Fusion of a trained network for inference: the same outputs in fewer passes over memory."""

import copy
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from brats.config import Precision
from brats.data.batches import DIVISOR
from brats.model.precision import DTYPES

SAME_LOGITS = 1e-3  # float32 sums in another order


def for_inference(network: nn.Module, n_channels: int, precision: Precision) -> nn.Module:
    """A copy of a network on a CPU, in evaluation mode, for (B, C, H, W) inputs under `autocast(precision)`.

    BatchNorm is fused into the convolutions before it, and their weights are kept in the type that is computed
    in, which autocast would cast anew for every batch.
    """
    fused = fuse_batchnorm(network, n_channels)
    for module in fused.modules():
        if isinstance(module, nn.Conv2d):
            module.to(DTYPES[precision])
    return fused.to(memory_format=torch.channels_last)


@torch.no_grad()
def fuse_batchnorm(network: nn.Module, n_channels: int) -> nn.Module:
    """A copy without the BatchNorms that follow a convolution.

    Which do is seen by running it once. A copy whose outputs are not the network's (an encoder may use the output
    of a convolution in two places) is given up for one that is as it was.
    """
    fused = copy.deepcopy(network).eval()
    image = torch.randn(1, n_channels, 2 * DIVISOR, 2 * DIVISOR, generator=torch.Generator().manual_seed(0))
    expected, pairs = _run(fused, image)
    names = {module: name for name, module in fused.named_modules()}
    for convolution, norm in pairs:
        _replace(fused, names[convolution], fuse_conv_bn_eval(convolution, norm))
        _replace(fused, names[norm], _activation_of(norm))
    if pairs and not torch.allclose(fused(image), expected, rtol=SAME_LOGITS, atol=SAME_LOGITS):
        return copy.deepcopy(network).eval()
    return fused


def _run(network: nn.Module, image: Tensor) -> tuple[Tensor, list[tuple[nn.Conv2d, nn.BatchNorm2d]]]:
    """The output, and each BatchNorm whose input came straight from a convolution, with it."""
    outputs: list[tuple[Tensor, nn.Conv2d]] = []
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def made(module: Any, _: Any, output: Tensor) -> None:
        outputs.append((output, module))

    def taken(module: Any, inputs: tuple[Tensor, ...]) -> None:
        pairs.extend((convolution, module) for output, convolution in outputs if output is inputs[0])

    hooks = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(made))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d):  # other subclasses do more than normalise
            hooks.append(module.register_forward_pre_hook(taken))
    logits: Tensor = network(image)
    for hook in hooks:
        hook.remove()
    return logits, pairs


def _activation_of(norm: nn.BatchNorm2d) -> nn.Module:
    """What a BatchNorm does after normalising; in encoders of timm the activation."""
    return norm.get_submodule("act") if isinstance(norm, BatchNormAct2d) else nn.Identity()


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)
