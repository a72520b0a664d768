"""The network: a U-Net of segmentation-models-pytorch with one sigmoid channel per region.

Axes: `B` batch, `C` channel, `R` region (WT, TC, ET), `H W` slice axes, both multiples of `DIVISOR`.
"""

import logging

import torch
from torch import nn

from brats.data.batches import DIVISOR
from brats.errors import ConfigError
from brats.labels import REGIONS
from brats.model.pretrained import INSTALLED, load_encoder

# Nearly every pixel is healthy. A network that starts from "undecided" spends its first hundred steps on learning
# that: on phantoms one epoch from here does more than three from 0.
INITIAL_LOGIT = -3.0


def build_unet(
    *,
    encoder: str,
    n_channels: int,
    decoder_channels: tuple[int, ...],
    encoder_weights: str | None = None,
) -> nn.Module:
    """A U-Net from (B, C, H, W) normalised slices to (B, R, H, W) logits, in channels-last memory format.

    encoder_weights: installed ones, by their name in `INSTALLED`, or ones to download; None for random ones

    Raises ConfigError for an encoder that the package does not know or cannot give this many input channels, and
    for pretrained weights that cannot be had.
    """
    import segmentation_models_pytorch as smp

    if encoder not in smp.encoders.encoders and not encoder.startswith("tu-"):
        known = ", ".join(sorted(smp.encoders.encoders)[:4])
        raise ConfigError(
            f"--encoder: {encoder!r} is not known to segmentation-models-pytorch (it has {known} ...)"
        )
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        network: nn.Module = smp.Unet(
            encoder,
            encoder_weights=None if encoder_weights in INSTALLED else encoder_weights,
            in_channels=n_channels,
            classes=len(REGIONS),
            decoder_channels=decoder_channels,
        )
    except KeyError as error:  # its message lists the weights that there are
        raise ConfigError(f"--encoder-weights: {error.args[0]}") from error
    except (OSError, ValueError, RuntimeError) as error:
        if encoder_weights is None:
            raise ConfigError(f"--encoder: {encoder!r} on {n_channels} channels: {error}") from error
        raise ConfigError(
            f"--encoder-weights: {encoder_weights!r} for {encoder} could not be loaded ({type(error).__name__}); "
            "they are downloaded once and need the network; --encoder-weights none starts from random weights"
        ) from error
    if encoder_weights in INSTALLED:
        load_encoder(network.get_submodule("encoder"), encoder_weights, encoder)
    nn.init.constant_(network.get_parameter("segmentation_head.0.bias"), INITIAL_LOGIT)
    return network.to(memory_format=torch.channels_last)


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
