"""The portable network: the same input and output as in prediction, and sizes left open where they can be."""

import dataclasses

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from brats.data.batches import InputSpec
from brats.errors import BundleError
from brats.model import portable
from brats.model.inputs import RawCase
from brats.model.outputs import OutputSpec
from brats.model.portable import PortableNetwork, capture, random_inputs, with_fixed_padding
from tests.support.bundles import MODEL_CARD
from tests.support.prepared import tiny_case

pytestmark = pytest.mark.usefixtures("one_thread")

FULL = InputSpec(modalities=("t1ce", "flair"), context=1, extra=("foreground",))


class Kept(nn.Module):
    """Gives its first channels as logits, and keeps what it saw."""

    seen: Tensor

    def forward(self, images: Tensor) -> Tensor:
        self.seen = images
        return images[:, :3]


class OfOneSize(nn.Module):
    """A network whose code allows slices of this size alone."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.size = height, width

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[2:] == self.size
        return images.repeat(1, 2, 1, 1)[:, :3] / 1000


def portable_of(network: nn.Module, inputs: InputSpec) -> PortableNetwork:
    """The portable network around this very one, not a copy."""
    given = PortableNetwork(network, inputs, OutputSpec())
    given.network = network
    return given


def test_the_network_sees_what_it_sees_in_prediction() -> None:
    case = tiny_case(shape=(64, 32, 5))
    raw = RawCase.of(case, FULL, pinned=False)
    (expected,) = raw.batches(5)
    network = Kept()
    images = nn.functional.pad(raw.images.float(), (0, 0, 0, 0, 0, 0, 1, 1))
    stacked = torch.stack([images[at : at + 5, m] for m in range(2) for at in range(3)], 1)
    stacked[stacked == raw.numbers[2].reshape(-1)[0]] = 0  # the background
    mean, std = raw.numbers[0], raw.numbers[1]
    given = portable_of(network, FULL)
    found = given(stacked, mean, std)
    torch.testing.assert_close(network.seen, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found, torch.sigmoid(expected[:, :3]))


def test_the_difference_of_t1ce_and_t1_is_the_last_channel() -> None:
    inputs = InputSpec(modalities=("t1", "t1ce"), extra=("t1ce-t1",))
    images, mean, std = random_inputs(inputs, 2, (4, 4))
    network = Kept()
    portable_of(network, inputs)(images, mean, std)
    assert network.seen.shape == (2, 3, 4, 4)
    torch.testing.assert_close(network.seen[:, 2], network.seen[:, 1] - network.seen[:, 0])


@pytest.mark.parametrize(("size", "stride", "dilation"), [(3, 2, 1), (5, 2, 1), (4, 4, 1), (3, 1, 2), (1, 2, 1)])
def test_padding_by_numbers_is_that_of_tensorflow_where_the_stride_divides_the_size(
    size: int, stride: int, dilation: int
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(Conv2dSame(2, 4, size, stride=stride, dilation=dilation, groups=2))
    fixed = with_fixed_padding(network)
    images = torch.rand(1, 2, 32, 64)
    assert not any(isinstance(module, Conv2dSame) for module in fixed.modules())
    torch.testing.assert_close(fixed(images), network(images), rtol=0, atol=0)


@pytest.mark.parametrize(("plane", "size"), [("axial", (256, 256)), ("coronal", (160, 256))])
def test_a_network_of_one_size_gets_that_of_brats_in_its_plane(
    plane: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = dataclasses.replace(MODEL_CARD.inputs, plane=plane)  # type: ignore[arg-type]
    card = dataclasses.replace(MODEL_CARD, inputs=inputs)
    monkeypatch.setattr(portable, "load_bundle", lambda _: (OfOneSize(*size), card))
    captured = capture("bundle")
    assert captured.size == size
    assert f"{size[0]} x {size[1]} alone" in captured.takes
    images, mean, std = captured.random_inputs()
    assert captured.program.module()(images, mean, std).shape == (3, 3, *size)


def test_a_network_of_another_size_is_refused_with_its_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portable, "load_bundle", lambda _: (OfOneSize(64, 64), MODEL_CARD))
    with pytest.raises(BundleError, match=f"^bundle: no graph can be made of the encoder {MODEL_CARD.encoder} "):
        capture("bundle")
