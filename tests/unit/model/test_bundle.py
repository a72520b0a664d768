"""Model bundles: written and read back the same, refused with a reason when they are not whole, never unpickled."""

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from brats.config import CLASSIC_UNET, OutputKind
from brats.data.batches import InputSpec
from brats.errors import BundleError, CaseError, StorageError
from brats.labels import Labels
from brats.model.bundle import ModelCard, card_outputs, find_bundle, load_bundle, read_card, save_bundle
from brats.model.decoding import Decoding
from brats.model.outputs import OutputSpec
from tests.support.bundles import MODEL_CARD
from tests.support.prepared import MODALITIES, segmenter_of, tiny_case, undecided_network

pytestmark = pytest.mark.usefixtures("one_thread")


def network() -> nn.Module:
    """With weights and BatchNorm statistics as training leaves them."""
    model = undecided_network()
    with torch.no_grad():
        model.train()(torch.randn(4, len(MODALITIES), 64, 64))
    return model.eval()


def predict(model: nn.Module, card: ModelCard) -> Labels:
    return segmenter_of(model, inputs=card.inputs, decoding=card.decoding).labels(tiny_case(), 4)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    save_bundle(str(tmp_path), network().state_dict(), MODEL_CARD)
    return tmp_path


def edit_card(bundle: Path, **changes: Any) -> None:
    card = json.loads((bundle / "model.json").read_text())
    (bundle / "model.json").write_text(json.dumps({**card, **changes}))


def edit_weights(bundle: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = safetensors.torch.load_file(bundle / "model.safetensors")
    change(weights)
    safetensors.torch.save_file(weights, bundle / "model.safetensors")


def test_a_bundle_is_two_files(bundle: Path) -> None:
    assert sorted(path.name for path in bundle.iterdir()) == ["model.json", "model.safetensors"]


def test_card_and_weights_come_back_as_they_were(bundle: Path) -> None:
    loaded, card = load_bundle(str(bundle))
    assert card == MODEL_CARD
    expected = network().state_dict()
    assert list(loaded.state_dict()) == list(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())
    assert not loaded.training


def test_a_loaded_network_predicts_exactly_as_the_one_saved(bundle: Path) -> None:
    before = predict(network(), MODEL_CARD)
    assert before.any()
    np.testing.assert_array_equal(predict(*load_bundle(str(bundle))), before)


def test_the_card_says_all_that_predicting_needs(bundle: Path) -> None:
    card = json.loads((bundle / "model.json").read_text())
    assert card["format"] == "brats-ray model 3"
    inputs = {"modalities": list(MODALITIES), "divisor": 32, "plane": "axial", "context": 0, "extra": []}
    assert card["inputs"] == inputs
    assert card["outputs"] == {
        "kind": "regions",
        "names": ["WT", "TC", "ET"],
    }
    assert card["decoding"] == {
        "thresholds": [0.5, 0.5, 0.5],
        "smallest_et_mm3": 0.0,
        "doubtful_wt_mm3": 0.0,
        "n_tuned_on": 0,
    }
    assert "standard deviation" in card["normalisation"]
    assert card["trained_on"] == {"case": {"patient_id": "p", "voxel_hash": "h"}}
    assert set(card["versions"]) >= {"brats-ray", "torch", "segmentation-models-pytorch"}


def test_decoding_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    tuned = Decoding(thresholds=(0.3, 0.4, 0.6), smallest_et_mm3=73.0, doubtful_wt_mm3=50.0, n_tuned_on=12)
    save_bundle(str(tmp_path), {}, dataclasses.replace(MODEL_CARD, decoding=tuned))
    assert read_card(str(tmp_path)).decoding == tuned


def test_a_card_of_format_2_has_its_thresholds_and_no_rules(bundle: Path) -> None:
    outputs = {"kind": "regions", "names": ["WT", "TC", "ET"]}
    edit_card(bundle, format="brats-ray model 2", outputs={**outputs, "thresholds": [0.3, 0.4, 0.6]})
    remove_from_card(bundle, "decoding")
    assert read_card(str(bundle)).decoding == Decoding(thresholds=(0.3, 0.4, 0.6))
    edit_card(bundle, outputs=outputs)
    with pytest.raises(BundleError, match=r"thresholds \[\] are not 3 numbers"):
        read_card(str(bundle))


@pytest.mark.parametrize("kind", get_args(OutputKind))
def test_a_network_of_every_kind_of_outputs_comes_back_and_predicts_as_before(tmp_path: Path, kind: str) -> None:
    outputs = OutputSpec(kind)  # type: ignore[arg-type]
    model = undecided_network(outputs=outputs).eval()
    card = dataclasses.replace(MODEL_CARD, outputs=card_outputs(outputs))
    save_bundle(str(tmp_path), model.state_dict(), card)
    loaded, found = load_bundle(str(tmp_path))
    assert (found, found.output_spec, found.regions) == (card, outputs, outputs.regions)
    before, after = (segmenter_of(each, outputs=outputs).labels(tiny_case(), 4) for each in (model, loaded))
    assert before.any()
    np.testing.assert_array_equal(before, after)


def test_a_bundle_of_the_classic_network_comes_back(tmp_path: Path) -> None:
    card = dataclasses.replace(MODEL_CARD, encoder=CLASSIC_UNET, decoder_channels=(8, 4, 4, 2, 2))
    model = undecided_network(CLASSIC_UNET, decoder_channels=card.decoder_channels).eval()
    save_bundle(str(tmp_path), model.state_dict(), card)
    np.testing.assert_array_equal(predict(*load_bundle(str(tmp_path))), predict(model, card))


def test_loading_never_unpickles(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, refuse)
    load_bundle(str(bundle))


def test_a_pickle_in_place_of_the_weights_is_refused_unread(bundle: Path) -> None:
    torch.save(network().state_dict(), bundle / "model.safetensors")
    with pytest.raises(BundleError, match=r"model.safetensors: not a whole safetensors file"):
        load_bundle(str(bundle))


@pytest.mark.parametrize("n_bytes", [0, 4, 2000, -1])
def test_truncated_weights_are_refused(bundle: Path, n_bytes: int) -> None:
    path = bundle / "model.safetensors"
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(BundleError, match=rf"^{path}: not a whole safetensors file"):
        load_bundle(str(bundle))


NAME = "segmentation_head.0.bias"


def test_a_missing_tensor_is_named(bundle: Path) -> None:
    edit_weights(bundle, lambda weights: weights.pop(NAME))
    with pytest.raises(BundleError, match=rf"model.safetensors: the tensor {NAME} is missing"):
        load_bundle(str(bundle))


def test_a_tensor_too_many_is_named(bundle: Path) -> None:
    edit_weights(bundle, lambda weights: weights.update(extra=torch.zeros(1)))
    with pytest.raises(BundleError, match=r"model.safetensors: the tensor extra does not belong to this network"):
        load_bundle(str(bundle))


def test_a_tensor_of_another_shape_is_named_with_both_shapes(bundle: Path) -> None:
    edit_weights(bundle, lambda weights: weights.update({NAME: torch.zeros(4)}))
    with pytest.raises(BundleError, match=rf"the tensor {NAME} has shape \(4,\), not \(3,\)"):
        load_bundle(str(bundle))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "brats-ray model 4"}, "format 'brats-ray model 4', this program reads 'brats-ray model 3'"),
        ({"format": None}, "format None"),
        (
            {"outputs": {"kind": "organs"}},
            "outputs of the kind 'organs', this program knows regions, classes, whole",
        ),
        ({"outputs": {"kind": ["regions"]}}, r"outputs of the kind \['regions'\]"),
        ({"outputs": {}}, "outputs of the kind None"),
        (
            {"outputs": {"kind": "classes", "names": ["NCR", "ED", "ET"]}},
            "are not the classes background, NCR, ED, ET",
        ),
        ({"outputs": {"kind": "regions", "names": ["ET", "TC", "WT"]}}, "are not the regions WT, TC, ET"),
        ({"decoding": {"thresholds": [0.5, 0.5, 1.0]}}, r"\[0.5, 0.5, 1.0\] are not 3 numbers between 0 and 1"),
        ({"decoding": {"thresholds": [0.5, 0.5]}}, r"\[0.5, 0.5\] are not 3 numbers between 0 and 1"),
        ({"decoding": {"thresholds": [0.5] * 3, "smallest_et_mm3": -1}}, r"smallest_et_mm3 -1 is not 0 or more"),
        ({"decoding": {"thresholds": [0.5] * 3, "n_tuned_on": 1.5}}, r"n_tuned_on is '1.5'"),
        ({"decoding": {"thresholds": [0.5] * 3, "smooth": 1}}, r"unexpected keyword argument 'smooth'"),
        ({"encoder": "resnet19"}, "'resnet19' is not known"),
    ],
)
def test_a_card_that_this_program_cannot_follow_is_refused(
    bundle: Path, changes: dict[str, Any], message: str
) -> None:
    edit_card(bundle, **changes)
    with pytest.raises(BundleError, match=rf"^{bundle / 'model.json'}: .*{message}"):
        load_bundle(str(bundle))


def as_format_1(bundle: Path) -> None:
    """Turn the card into one of before the network's input had a field of its own."""
    card = json.loads((bundle / "model.json").read_text())
    del card["inputs"], card["decoding"]
    card["outputs"]["thresholds"] = [0.5, 0.5, 0.5]
    card |= {"format": "brats-ray model 1", "modalities": ["t1ce", "flair"], "divisor": 64}
    (bundle / "model.json").write_text(json.dumps(card))


def test_a_card_of_format_1_is_read_with_its_modalities_and_divisor(bundle: Path) -> None:
    as_format_1(bundle)
    _, card = load_bundle(str(bundle))
    assert card == dataclasses.replace(MODEL_CARD, inputs=InputSpec(modalities=("t1ce", "flair"), divisor=64))


def remove_from_card(bundle: Path, *names: str) -> None:
    card = json.loads((bundle / "model.json").read_text())
    (bundle / "model.json").write_text(json.dumps({key: card[key] for key in card if key not in names}))


def test_a_card_without_a_field_names_it(bundle: Path) -> None:
    remove_from_card(bundle, "encoder", "epoch")
    with pytest.raises(BundleError, match=r"model.json: lacks encoder, epoch"):
        read_card(str(bundle))


def test_a_card_without_all_of_the_input_names_what_it_lacks(bundle: Path) -> None:
    edit_card(bundle, inputs={"divisor": 32})
    with pytest.raises(BundleError, match=r"model.json: lacks modalities$"):
        read_card(str(bundle))
    as_format_1(bundle)
    remove_from_card(bundle, "encoder", "modalities")
    with pytest.raises(BundleError, match=r"model.json: lacks encoder, modalities$"):
        read_card(str(bundle))


def test_a_card_of_before_a_field_of_the_input_was_added_has_its_default(bundle: Path) -> None:
    edit_card(bundle, inputs={"modalities": ["t1"]})
    assert read_card(str(bundle)).inputs == InputSpec(modalities=("t1",))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"plane": "oblique"}, "inputs is"),
        ({"context": 3}, "context 3, where 0 to 2 are expected"),
        ({"context": 1.5}, "inputs is"),
        ({"extra": ["t1ce-t1"]}, "t1ce-t1 of the modalities"),
        ({"extra": ["edges"]}, "edges"),
    ],
)
def test_an_input_that_this_program_cannot_make_is_refused(
    bundle: Path, inputs: dict[str, Any], message: str
) -> None:
    edit_card(bundle, inputs={"modalities": ["t1"], **inputs})
    with pytest.raises(BundleError, match=rf"model.json: damaged \(.*{message}"):
        read_card(str(bundle))


def test_a_card_that_is_not_json_is_refused(bundle: Path) -> None:
    (bundle / "model.json").write_text("{")
    with pytest.raises(StorageError, match=r"model.json: not JSON"):
        read_card(str(bundle))


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=rf"^{bundle / name}: no such file; the bundle is not whole"):
        load_bundle(str(bundle))


def test_the_bundle_is_found_in_a_run_and_on_its_own(tmp_path: Path) -> None:
    save_bundle(str(tmp_path / "run" / "model"), network().state_dict(), MODEL_CARD)
    assert find_bundle(str(tmp_path / "run")) == find_bundle(str(tmp_path / "run" / "model"))
    with pytest.raises(BundleError, match=rf"^{tmp_path}: no model here"):
        find_bundle(str(tmp_path))


def test_a_bundle_half_written_is_no_bundle(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StorageError("no space left")

    monkeypatch.setattr("brats.storage.write_bytes", full)
    with pytest.raises(StorageError, match="no space left"):
        save_bundle(str(bundle), network().state_dict(), MODEL_CARD)
    with pytest.raises(BundleError, match="no model here"):
        find_bundle(str(bundle))


def test_data_without_a_modality_of_the_model_is_refused_by_name(bundle: Path) -> None:
    edit_card(bundle, inputs={"modalities": ["flair", "t2"], "divisor": 32})
    model, card = load_bundle(str(bundle))
    with pytest.raises(CaseError, match="no t2; the case has flair, t1ce"):
        predict(model, card)
