"""The network: a U-Net of segmentation-models-pytorch with one sigmoid channel per region.

Axes: `B` batch, `C` modality, `R` region (WT, TC, ET), `H W` slice axes, both multiples of `DIVISOR`.
"""

import logging

import torch
from torch import Tensor, nn

from brats.errors import ConfigError
from brats.labels import REGIONS

DIVISOR = 32  # five halvings of the encoder
# Nearly every pixel is healthy. A network that starts from "undecided" spends its first hundred steps on learning
# that: on phantoms one epoch from here does more than three from 0.
INITIAL_LOGIT = -3.0


def build_unet(
    *,
    encoder: str,
    n_modalities: int,
    decoder_channels: tuple[int, ...],
    encoder_weights: str | None = None,
    n_outputs: int = len(REGIONS),
) -> nn.Module:
    """A U-Net from (B, C, H, W) normalised slices to (B, R, H, W) logits, in channels-last memory format.

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
            encoder_weights=encoder_weights,
            in_channels=n_modalities,
            classes=n_outputs,
            decoder_channels=decoder_channels,
        )
    except KeyError as error:  # its message lists the weights that there are
        raise ConfigError(f"--encoder-weights: {error.args[0]}") from error
    except (OSError, ValueError, RuntimeError) as error:
        if encoder_weights is None:
            raise ConfigError(f"--encoder: {encoder!r} on {n_modalities} modalities: {error}") from error
        raise ConfigError(
            f"--encoder-weights: {encoder_weights!r} for {encoder} could not be loaded ({type(error).__name__}); "
            "they are downloaded once and need the network; leave the option out to start from random weights"
        ) from error
    nn.init.constant_(network.get_parameter("segmentation_head.0.bias"), INITIAL_LOGIT)
    return network.to(memory_format=torch.channels_last)


def freeze_unused(network: nn.Module, n_modalities: int) -> None:
    """Take parameters that the output does not depend on out of training.

    Some encoders (EfficientNet) carry a layer of the classifier they come from. Distributed training would wait
    for its gradient. Leaves the network in evaluation mode.
    """
    parameters = list(network.parameters())
    image = torch.zeros(1, n_modalities, 2 * DIVISOR, 2 * DIVISOR, device=parameters[0].device)
    gradients = torch.autograd.grad(network.eval()(image).sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


def normalise(images: Tensor, offset: Tensor, scale: Tensor, background: Tensor) -> Tensor:
    """Stored numbers (B, C, H, W) as float32 network input: `(stored - offset) / scale`, 0 in the background.

    offset, scale, background: (B, C), see `brats.data.slices.SliceBatch`.
    """
    normalised = torch.empty(images.shape, device=images.device, memory_format=torch.channels_last)
    # On a CPU one slice at a time, which its cache holds from one step of the arithmetic to the next.
    n_rows = 1 if images.device.type == "cpu" else max(1, len(images))
    for first in range(0, len(images), n_rows):
        rows = slice(first, first + n_rows)
        values = images[rows].to(torch.float32, copy=True)
        # 0 or 1 in float32: multiplying by it takes a quarter of the time that filling a mask takes on CPUs.
        inside = values.clone().ne_(background[rows, :, None, None])
        # Before the division, which would make the lowest number there is, a common background, infinite.
        values.sub_(offset[rows, :, None, None]).mul_(inside)
        normalised[rows] = values.div_(scale[rows, :, None, None])
    return normalised
