"""Starting from another model: what fits, what is refused, what a run keeps, and whom that model knows."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from brats.config import TrainConfig
from brats.data.batches import InputSpec
from brats.errors import BundleError, ConfigError
from brats.model.bundle import ModelCard, save_bundle
from brats.model.ensemble import save_ensemble
from brats.model.initial import find_initial, initial_dir, keep_initial, known_patients, read_initial
from brats.model.learner import Learner
from tests.support.bundles import MODEL_CARD
from tests.support.prepared import ALONE, CONFIG, INPUTS, undecided_network
from tests.support.runs import run_fit, write_data

pytestmark = pytest.mark.usefixtures("one_thread")


def write_model(folder: Path, card: ModelCard = MODEL_CARD) -> Path:
    save_bundle(str(folder), undecided_network().state_dict(), card)
    return folder


def config_of(tmp_path: Path, model: Path, **options: object) -> TrainConfig:
    paths = {"out": str(tmp_path / "run"), "init": str(model)}
    return dataclasses.replace(CONFIG, **{**paths, **options})  # type: ignore[arg-type]


# What is found


def test_without_the_option_there_is_no_model_to_start_from() -> None:
    assert find_initial(CONFIG) is None


def test_a_model_that_fits_is_known_by_its_weights_wherever_it_lies(tmp_path: Path) -> None:
    found = find_initial(config_of(tmp_path, write_model(tmp_path / "run1" / "model").parent))
    moved = find_initial(config_of(tmp_path, write_model(tmp_path / "elsewhere")))
    assert found is not None
    assert moved is not None
    assert found.folder == str(tmp_path / "run1" / "model")
    assert len(found.hash) == 16
    assert moved.hash == found.hash
    assert found.card.trained_on == MODEL_CARD.trained_on
    network = undecided_network()
    torch.nn.init.ones_(network.get_parameter("segmentation_head.0.bias"))
    save_bundle(str(tmp_path / "elsewhere"), network.state_dict(), MODEL_CARD)
    other = find_initial(config_of(tmp_path, tmp_path / "elsewhere"))
    assert other is not None
    assert other.hash != found.hash


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"encoder": "resnet18"}, "encoder tu-test_resnet, this run resnet18"),
        ({"decoder_channels": (16, 8, 8, 8, 8)}, "decoder channels 8 8 8 8 8, this run 16 8 8 8 8"),
        ({"outputs": "whole-tumour"}, "outputs regions, this run whole-tumour"),
        ({"modalities": ("t1ce", "flair")}, "modalities flair t1ce, this run t1ce flair"),
        ({"modalities": ("flair",)}, "modalities flair t1ce, this run flair"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_with_what_differs(
    tmp_path: Path, options: dict[str, object], difference: str
) -> None:
    model = write_model(tmp_path / "model")
    with pytest.raises(ConfigError) as caught:
        find_initial(config_of(tmp_path, model, **options))
    assert str(caught.value) == (
        f"--init: the model {model} has {difference}; give the options that the model was trained with, or another "
        "model"
    )


def test_a_folder_without_a_model_or_with_a_damaged_one_is_named_with_the_option(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(ConfigError, match=r"^--init: .*/model: no model here; give a run of train.py or"):
        find_initial(config_of(tmp_path, tmp_path / "model"))
    write_model(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"^--init: .*: not a whole safetensors file"):
        find_initial(config_of(tmp_path, tmp_path / "model"))


def test_a_model_of_another_plane_fits(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    assert find_initial(config_of(tmp_path, model, plane="coronal")) is not None


def test_of_an_ensemble_one_model_has_to_be_named(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    save_ensemble(str(tmp_path / "both"), dict.fromkeys(("a", "b"), str(tmp_path / "model")))
    with pytest.raises(ConfigError, match=r"both is an ensemble; name one of its models, such as .*both/member_0$"):
        find_initial(config_of(tmp_path, tmp_path / "both"))
    assert find_initial(config_of(tmp_path, tmp_path / "both" / "member_1")) is not None


# What a run keeps


def test_a_run_keeps_the_model_and_needs_its_first_place_no_more(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    config = config_of(tmp_path, model)
    found = find_initial(config)
    assert found is not None
    keep_initial(config.out, found)
    shutil.rmtree(model)
    kept = find_initial(config)
    assert kept == dataclasses.replace(found, folder=initial_dir(config.out))
    keep_initial(config.out, kept)
    torch.testing.assert_close(read_initial(config.out), dict(undecided_network().state_dict()), rtol=0, atol=0)


def test_training_starts_from_the_weights_and_a_resume_does_without_them(tmp_path: Path) -> None:
    data = write_data(tmp_path / "prepared")
    config = config_of(tmp_path, write_model(tmp_path / "model"), epochs=1)
    with pytest.raises(BundleError, match=r"init/model.safetensors: no such file"):
        run_fit(data, Path(config.out), config)
    found = find_initial(config)
    assert found is not None
    keep_initial(config.out, found)
    assert len(run_fit(data, Path(config.out), config)) == 1
    shutil.rmtree(initial_dir(config.out))
    assert len(run_fit(data, Path(config.out), dataclasses.replace(config, epochs=2))) == 2


def test_network_and_average_begin_with_the_weights() -> None:
    weights = {name: tensor.clone() for name, tensor in undecided_network().state_dict().items()}
    learner = Learner.of(dataclasses.replace(CONFIG, seed=5), INPUTS, ALONE, initial=weights)
    assert learner.average is not None
    for state in (learner.network.state_dict(), learner.average.network.state_dict()):
        torch.testing.assert_close(dict(state), weights, rtol=0, atol=0)


def test_the_inputs_of_this_test_are_those_of_the_card() -> None:
    assert InputSpec.of(CONFIG) == MODEL_CARD.inputs == INPUTS


# Whom it knows


def row(case_id: str, *, patient_id: str = "", voxel_hash: str = "v2:new") -> dict[str, str]:
    return {"case_id": case_id, "patient_id": patient_id or f"patient of {case_id}", "voxel_hash": voxel_hash}


def test_patients_are_known_by_voxels_or_by_the_name_of_a_case_or_patient() -> None:
    trained_on = {
        "a": {"patient_id": "A", "voxel_hash": "v2:1"},
        "b": {"patient_id": "B", "voxel_hash": "2"},  # a hash of an earlier version, which nothing is known by
    }
    rows = [
        row("renamed", voxel_hash="v2:1"),
        row("a", voxel_hash="v2:1"),
        row("a", patient_id="other", voxel_hash="v2:9"),
        row("later visit", patient_id="B"),
        row("new", voxel_hash="2"),
    ]
    known = known_patients(rows, trained_on)
    assert known.patients == ["B", "other", "patient of a", "patient of renamed"]
    assert known.by_name == ["B", "other"]
    assert known_patients(rows[-1:], trained_on) == ([], [])
