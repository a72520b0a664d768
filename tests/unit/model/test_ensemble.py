"""Ensembles: the mean of their members' probabilities, in a bundle that needs nothing beside it."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from brats.data.batches import InputSpec
from brats.errors import BundleError
from brats.model.bundle import card_outputs, load_bundle, save_bundle
from brats.model.decoding import Decoding
from brats.model.ensemble import (
    EnsembleSegmenter,
    bundles_of,
    check_regions,
    is_ensemble,
    load_segmenter,
    read_model,
    save_ensemble,
)
from brats.model.inference import Segmenter
from brats.model.outputs import OutputSpec
from tests.support.bundles import MODEL_CARD
from tests.support.prepared import CPU, MODALITIES, segmenter_of, tiny_case, undecided_network

pytestmark = pytest.mark.usefixtures("one_thread")


class Constant(nn.Module):
    """A network that finds each region everywhere with the same probability."""

    def __init__(self, probabilities: Sequence[float]) -> None:
        super().__init__()
        self._logits = torch.tensor(probabilities).logit()

    def forward(self, slices: Tensor) -> Tensor:
        return self._logits.reshape(1, -1, 1, 1).expand(len(slices), -1, *slices.shape[2:])


def ensemble_of(
    *probabilities: Sequence[float], thresholds: tuple[float, ...] = (0.5, 0.5, 0.5)
) -> EnsembleSegmenter:
    members = [segmenter_of(Constant(values)) for values in probabilities]
    return EnsembleSegmenter(members=members, decoding=Decoding(thresholds=thresholds))


def save_member(folder: Path, seed: int, **changes: Any) -> str:
    """A bundle of random weights; returns its folder."""
    torch.manual_seed(seed)
    network = undecided_network()
    nn.init.normal_(network.get_parameter("segmentation_head.0.bias"), std=seed / 2)
    save_bundle(str(folder), network.state_dict(), replace(MODEL_CARD, **changes))
    return str(folder)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three bundles by name, the last of which sees the modalities in another order."""
    root = tmp_path_factory.mktemp("members")
    turned = InputSpec(modalities=tuple(reversed(MODALITIES)))
    return {
        "a": save_member(root / "a", 1, trained_on={"x": {"patient_id": "p", "voxel_hash": "h"}}),
        "b": save_member(root / "b", 2, trained_on={"y": {"patient_id": "q", "voxel_hash": "i"}}),
        "c": save_member(root / "c", 3, inputs=turned, trained_on={}),
    }


@pytest.fixture
def bundle(members: dict[str, str], tmp_path: Path) -> Path:
    save_ensemble(str(tmp_path / "model"), members)
    return tmp_path / "model"


# The mean


def test_probabilities_are_the_mean_of_those_of_the_members() -> None:
    mean = ensemble_of((0.9, 0.8, 0.1), (0.5, 0.2, 0.1), (0.1, 0.2, 0.7)).probabilities(tiny_case(), 4)
    assert mean.shape == (10, 3, 40, 36)
    torch.testing.assert_close(mean.amin((0, 2, 3)), torch.tensor([0.5, 0.4, 0.3]))
    torch.testing.assert_close(mean.amax((0, 2, 3)), torch.tensor([0.5, 0.4, 0.3]))


@pytest.mark.parametrize(
    ("probabilities", "label"),
    [([(0.9, 0.9, 0.9), (0.2, 0.2, 0.0)], 1), ([(0.9, 0.9, 0.9), (0.2, 0.2, 0.2)], 3), ([(0.9, 0.1, 0.1)] * 2, 2)],
)
def test_labels_are_those_of_the_mean_not_of_a_vote(probabilities: list[Sequence[float]], label: int) -> None:
    labels = ensemble_of(*probabilities).labels(tiny_case(), 4)
    assert labels.shape == (10, 40, 36)
    assert labels.dtype == np.uint8
    assert (labels == label).all()


def test_thresholds_are_compared_with_the_mean() -> None:
    pair = [(0.9, 0.9, 0.3), (0.5, 0.1, 0.1)]
    assert (ensemble_of(*pair, thresholds=(0.6, 0.6, 0.6)).labels(tiny_case(), 4) == 2).all()
    assert (ensemble_of(*pair, thresholds=(0.6, 0.6, 0.1)).labels(tiny_case(), 4) == 3).all()


def test_an_ensemble_of_one_network_twice_labels_as_that_network_does() -> None:
    segmenter = segmenter_of(undecided_network().eval())
    twice = EnsembleSegmenter(members=[segmenter, segmenter], decoding=segmenter.decoding)
    alone = segmenter.labels(tiny_case(), 4)
    assert len(np.unique(alone)) == 4
    assert (twice.labels(tiny_case(), 4) != alone).mean() < 1e-3  # a voxel at the threshold may be turned


# The bundle


def test_a_bundle_predicts_the_mean_after_its_members_are_gone(tmp_path: Path) -> None:
    members = {name: save_member(tmp_path / name, seed) for seed, name in enumerate("ab", 1)}
    expected = sum(Segmenter.load(folder, CPU, "fp32").probabilities(tiny_case(), 4) for folder in members.values())
    assert save_ensemble(str(tmp_path / "model"), members)
    for folder in members.values():
        shutil.rmtree(folder)
    loaded = load_segmenter(str(tmp_path / "model"), CPU, "fp32")
    torch.testing.assert_close(loaded.probabilities(tiny_case(), 4), expected / 2)


def test_members_may_see_other_inputs_and_each_gets_its_own(bundle: Path) -> None:
    loaded = load_segmenter(str(bundle), CPU, "fp32")
    assert isinstance(loaded, EnsembleSegmenter)
    assert [member.inputs.modalities for member in loaded.members] == [
        MODALITIES,
        MODALITIES,
        tuple(reversed(MODALITIES)),
    ]
    assert read_model(str(bundle)).modalities == MODALITIES


def test_modalities_are_those_that_any_member_needs(tmp_path: Path, members: dict[str, str]) -> None:
    other = InputSpec(modalities=("flair", "t2"))
    folder = save_member(tmp_path / "d", 4, inputs=other)
    save_ensemble(str(tmp_path / "model"), {**members, "d": folder})
    assert read_model(str(tmp_path / "model")).modalities == ("flair", "t1ce", "t2")


def test_an_ensemble_knows_the_cases_of_all_its_members(bundle: Path) -> None:
    assert read_model(str(bundle)).trained_on == {
        "x": {"patient_id": "p", "voxel_hash": "h"},
        "y": {"patient_id": "q", "voxel_hash": "i"},
    }


def test_thresholds_of_an_ensemble_are_the_means_of_those_of_its_members(tmp_path: Path) -> None:
    decodings = {
        name: Decoding(thresholds=values) for name, values in (("a", (0.4, 0.5, 0.6)), ("b", (0.6, 0.5, 0.2)))
    }
    members = {name: save_member(tmp_path / name, 1, decoding=each) for name, each in decodings.items()}
    save_ensemble(str(tmp_path / "model"), members)
    loaded = load_segmenter(str(tmp_path / "model"), CPU, "fp32", flips=True)
    assert isinstance(loaded, EnsembleSegmenter)
    assert all(member.flips for member in loaded.members)
    assert loaded.decoding.thresholds == pytest.approx((0.5, 0.5, 0.4))
    assert read_model(str(tmp_path / "model")).decoding == loaded.decoding


def test_a_bundle_of_one_model_is_that_model(members: dict[str, str]) -> None:
    model = read_model(members["a"])
    weights = (Path(members["a"]) / "model.safetensors").read_bytes()
    assert model.fingerprint == hashlib.sha256(weights).hexdigest()[:16]
    assert model.cards == (load_bundle(members["a"])[1],)
    assert isinstance(load_segmenter(members["a"], CPU, "fp32"), Segmenter)
    assert bundles_of(members["a"]) == [members["a"]]


def test_the_same_members_are_not_written_again(bundle: Path, members: dict[str, str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
    assert not save_ensemble(str(bundle), members)
    assert {path: path.stat().st_mtime_ns for path in bundle.rglob("*")} == before


def test_another_member_makes_another_ensemble(bundle: Path, members: dict[str, str], tmp_path: Path) -> None:
    before = read_model(str(bundle)).fingerprint
    assert save_ensemble(str(bundle), {**members, "b": save_member(tmp_path / "b", 5)})
    assert read_model(str(bundle)).fingerprint != before
    assert save_ensemble(str(bundle), {"a": members["a"], "b": members["b"]})
    assert [Path(folder).name for folder in bundles_of(str(bundle))] == ["member_0", "member_1"]
    assert not (bundle / "member_2").exists()


def test_a_bundle_that_was_cut_off_is_none(bundle: Path, members: dict[str, str]) -> None:
    (bundle / "model.json").unlink()  # written last
    assert not is_ensemble(str(bundle))
    assert save_ensemble(str(bundle), members)


# Refused


def test_members_that_tell_other_regions_are_refused_by_name() -> None:
    card = replace(MODEL_CARD, outputs=card_outputs(OutputSpec("whole-tumour")))
    with pytest.raises(BundleError, match=r"^a predicts WT, TC, ET, but b WT; only models of the same regions"):
        check_regions({"a": MODEL_CARD, "b": card})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({}, "'members'"),
        ({"members": []}, "it lists no member"),
        ({"members": ["member_0"]}, "mapping"),
        ({"members": [{"folder": "member_0", "name": "a"}]}, "content"),
        ({"members": [{"folder": "member_0", "name": 3, "content": ""}]}, "name is '3'"),
        ({"members": [{"folder": "../a", "name": "a", "content": ""}]}, r"member 0 lies in '\.\./a'"),
    ],
)
def test_damaged_cards_are_refused_with_their_fault(tmp_path: Path, content: dict[str, Any], problem: str) -> None:
    (tmp_path / "model.json").write_text(json.dumps({"format": "brats-ray ensemble 1", **content}))
    with pytest.raises(BundleError, match=rf"model\.json: damaged \(.*{problem}.*\); give another model$"):
        read_model(str(tmp_path))


def test_a_missing_member_is_named(bundle: Path) -> None:
    shutil.rmtree(bundle / "member_1")
    with pytest.raises(BundleError, match=r"member_1/model\.json: no such file; the bundle is not whole"):
        read_model(str(bundle))
