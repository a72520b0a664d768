"""ONNX files and archives of torch.export: read by other programs they give the network's probabilities."""

import dataclasses
import importlib.util
import io
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from brats.data.batches import InputSpec
from brats.errors import BratsError, ConfigError
from brats.model.bundle import save_bundle
from brats.model.formats import DESCRIPTION, check_onnx_installed, to_onnx, to_torch
from brats.model.outputs import OutputSpec
from brats.model.portable import TOLERANCE, Captured, capture
from brats.model.unet import build_unet
from tests.support.bundles import MODEL_CARD

INPUTS = InputSpec(modalities=("t1", "t1ce"), context=1, extra=("foreground", "t1ce-t1"))
CHANNELS = (8, 4, 4, 4, 4)


class Nowhere(nn.Module):
    """Finds nothing."""

    def forward(self, images: Tensor, *_: Tensor) -> Tensor:
        return torch.zeros(len(images), 3, *images.shape[2:])


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    """The graph of a classic U-Net with all kinds of channels, which predicts classes."""
    torch.manual_seed(0)
    outputs = OutputSpec("classes")
    network = build_unet(
        encoder="classic-unet", n_channels=INPUTS.n_channels, decoder_channels=CHANNELS, outputs=outputs
    )
    card = dataclasses.replace(
        MODEL_CARD,
        encoder="classic-unet",
        decoder_channels=CHANNELS,
        inputs=INPUTS,
        outputs={"kind": "classes", "names": list(outputs.channels)},
    )
    folder = str(tmp_path_factory.mktemp("bundle"))
    save_bundle(folder, network.state_dict(), card)
    return capture(folder)


def test_the_archive_is_read_by_torch_and_says_what_it_takes(captured: Captured) -> None:
    content, difference = to_torch(captured)
    assert difference <= TOLERANCE
    kept: dict[str, Any] = {DESCRIPTION: ""}
    torch.export.load(io.BytesIO(content), extra_files=kept)
    assert json.loads(kept[DESCRIPTION])["inputs"]["extra"] == ["foreground", "t1ce-t1"]


def test_onnxruntime_gives_the_networks_probabilities_at_any_size(captured: Captured) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    content, difference = to_onnx(captured)
    assert difference <= TOLERANCE
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["images", "mean", "std"]
    described = json.loads(session.get_modelmeta().custom_metadata_map[DESCRIPTION])
    assert described["inputs"]["modalities"] == ["t1", "t1ce"]
    assert captured.size is None
    one = [tensor[:1, ..., :32, :64] if tensor.ndim == 4 else tensor[:1] for tensor in captured.random_inputs()]
    named = {name: tensor.numpy() for name, tensor in zip(("images", "mean", "std"), one, strict=True)}
    (found,) = session.run(["probabilities"], named)
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(found), captured.network(*one), rtol=0, atol=TOLERANCE)


def test_a_graph_that_differs_from_its_network_is_not_written(captured: Captured) -> None:
    other = dataclasses.replace(captured, network=Nowhere())
    with pytest.raises(BratsError, match=r"gives probabilities that are up to .*, where 0\.0001 is accepted"):
        to_torch(other)


def test_missing_packages_are_named_with_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(
        ConfigError, match=r"^--formats: onnx needs onnxscript, which is not installed; .*\[export\]"
    ):
        check_onnx_installed()
