"""The network: a U-Net of segmentation-models-pytorch, or the classic one, with the channels of an `OutputSpec`.

Axes: `B` batch, `C` channel, `K` channel of the output, `H W` slice axes, both multiples of `DIVISOR`.
"""

import logging
from typing import Any

import torch
from torch import nn

from brats.config import CLASSIC_UNET
from brats.data.batches import DIVISOR
from brats.errors import ConfigError
from brats.model.classic_unet import ClassicUnet
from brats.model.outputs import BACKGROUND, REGION_OUTPUTS, OutputSpec
from brats.model.pretrained import INSTALLED, load_encoder

# Nearly every pixel is healthy. A network that starts from "undecided" spends its first hundred steps on learning
# that: on phantoms one epoch from here does more than three from 0. The background as a class starts at 0.
INITIAL_LOGIT = -3.0


def build_unet(
    *,
    encoder: str,
    n_channels: int,
    decoder_channels: tuple[int, ...],
    encoder_weights: str | None = None,
    outputs: OutputSpec = REGION_OUTPUTS,
    dropout: float = 0.0,
) -> nn.Module:
    """A U-Net from (B, C, H, W) normalised slices to (B, K, H, W) logits, in channels-last memory format.

    encoder:         of segmentation-models-pytorch, or `CLASSIC_UNET` for that network as a whole
    encoder_weights: installed ones, by their name in `INSTALLED`, or ones to download; None for random ones
    dropout:         share of the deepest features that are left out in training, before they are decoded

    Raises ConfigError for an encoder that the package does not know or cannot give this many input channels, and
    for pretrained weights that cannot be had.
    """
    if encoder != CLASSIC_UNET:
        network = smp_unet(encoder, encoder_weights, n_channels, outputs.n_channels, decoder_channels)
        if dropout:
            decoder: Any = network.get_submodule("decoder")
            decoder.center = nn.Dropout(dropout)  # in place of an identity: the names of the weights stay
    elif encoder_weights is None:
        network = ClassicUnet(n_channels, outputs.n_channels, decoder_channels, dropout)
    else:
        raise ConfigError(
            f"--encoder-weights: there are no pretrained weights of {CLASSIC_UNET}, so not {encoder_weights!r}; "
            "give none"
        )
    bias = [0.0 if channel == BACKGROUND else INITIAL_LOGIT for channel in outputs.channels]
    with torch.no_grad():
        network.get_parameter("segmentation_head.0.bias").copy_(torch.tensor(bias))
    return network.to(memory_format=torch.channels_last)


def smp_unet(
    encoder: str, weights: str | None, n_channels: int, n_outputs: int, decoder_channels: tuple[int, ...]
) -> nn.Module:
    """The U-Net of segmentation-models-pytorch; errors as of `build_unet`."""
    import segmentation_models_pytorch as smp

    if encoder not in smp.encoders.encoders and not encoder.startswith("tu-"):
        known = ", ".join(sorted(smp.encoders.encoders)[:4])
        raise ConfigError(
            f"--encoder: {encoder!r} is not known to segmentation-models-pytorch (it has {known} ...)"
        )
    _check_weights(encoder, weights)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        network: nn.Module = smp.Unet(
            encoder,
            encoder_weights=None if weights in INSTALLED else weights,
            in_channels=n_channels,
            classes=n_outputs,
            decoder_channels=decoder_channels,
        )
    except KeyError as error:  # its message lists the weights that there are
        raise ConfigError(f"--encoder-weights: {error.args[0]}") from error
    except (OSError, ValueError, RuntimeError) as error:
        if weights is None:
            raise ConfigError(f"--encoder: {encoder!r} on {n_channels} channels: {error}") from error
        raise ConfigError(
            f"--encoder-weights: {weights!r} for {encoder} could not be loaded ({type(error).__name__}); "
            "they are downloaded once and need the network; --encoder-weights none starts from random weights"
        ) from error
    if weights in INSTALLED:
        load_encoder(network.get_submodule("encoder"), weights, encoder)
    return network


def _check_weights(encoder: str, weights: str | None) -> None:
    """Raise ConfigError for weights of an encoder of timm that cannot be: any name would have others downloaded."""
    installed = [name for name, known in INSTALLED.items() if known.encoder == encoder]
    if encoder.startswith("tu-") and weights is not None and weights not in (*INSTALLED, "imagenet"):
        known = ", ".join([*installed, "imagenet (downloaded once)"])
        raise ConfigError(f"--encoder-weights: {weights!r} is not known for {encoder}; give {known} or none")


@torch.no_grad()
def training_problem(network: nn.Module, n_channels: int, n_slices: int, size: tuple[int, int]) -> str:
    """Why a network cannot be trained on so many slices (H, W) at once; "" where it can. Changes its statistics.

    After five halvings a slice of 32 x 32 is a single value, and BatchNorm has no deviation of one.
    """
    try:
        network.train()(torch.zeros(n_slices, n_channels, *size))
    except (ValueError, RuntimeError) as error:
        return " ".join(str(error).split())
    return ""


def freeze_unused(network: nn.Module, n_channels: int) -> None:
    """Take parameters that the output does not depend on out of training.

    Some encoders (EfficientNet) carry a layer of the classifier they come from. Distributed training would wait
    for its gradient. Leaves the network in evaluation mode.
    """
    parameters = list(network.parameters())
    image = torch.zeros(1, n_channels, 2 * DIVISOR, 2 * DIVISOR, device=parameters[0].device)
    gradients = torch.autograd.grad(network.eval()(image).sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
