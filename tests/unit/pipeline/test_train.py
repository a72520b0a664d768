"""Steps of a training job without Ray: what it says and writes about the model that it started from."""

import dataclasses
from pathlib import Path

import pytest

from brats.model.bundle import bundle_dir, read_card, save_bundle
from brats.model.initial import find_initial, keep_initial
from brats.pipeline.train import export_model, warn_of_known_patients
from tests.support.bundles import MODEL_CARD
from tests.support.prepared import CONFIG, undecided_network
from tests.support.runs import run_fit, write_data

pytestmark = pytest.mark.usefixtures("one_thread")

TRAINED_ON = {name: {"patient_id": f"p{name}", "voxel_hash": f"v2:{name}"} for name in "abcde"}


def row(case_id: str, split: str, *, patient_id: str = "", voxel_hash: str = "v2:new") -> dict[str, str]:
    return {
        "case_id": case_id,
        "patient_id": patient_id or f"p{case_id}",
        "split": split,
        "voxel_hash": voxel_hash,
    }


def test_patients_to_score_that_the_first_model_knows_are_named_by_split(
    capsys: pytest.CaptureFixture[str],
) -> None:
    split = [
        row("a", "train", voxel_hash="v2:a"),
        row("new", "val"),
        *(row(name, "test", voxel_hash=f"v2:{name}") for name in "bcd"),
        row("e", "test"),
    ]
    warn_of_known_patients(split, TRAINED_ON)
    assert capsys.readouterr().out == (
        "train    WARNING: the model of --init was trained or chosen on patients of the test split "
        "(pb, pc, pd and 1 more; 1 by name alone); their scores say nothing about new patients\n"
    )
    warn_of_known_patients([row("renamed", "val", voxel_hash="v2:a")], TRAINED_ON)
    assert "patients of the val split (prenamed); their scores" in capsys.readouterr().out
    warn_of_known_patients([row("a", "train", voxel_hash="v2:a"), row("new", "test")], TRAINED_ON)
    assert capsys.readouterr().out == ""


def test_the_card_lists_the_cases_of_both_models(tmp_path: Path) -> None:
    data = write_data(tmp_path / "prepared")
    before = dataclasses.replace(MODEL_CARD, trained_on=TRAINED_ON)
    save_bundle(str(tmp_path / "model"), undecided_network().state_dict(), before)
    paths = {"out": str(tmp_path / "run"), "init": str(tmp_path / "model")}
    config = dataclasses.replace(CONFIG, epochs=1, **paths)  # type: ignore[arg-type]
    initial = find_initial(config)
    assert initial is not None
    keep_initial(config.out, initial)
    run_fit(data, Path(config.out), config)
    split = [row("b", "train", voxel_hash="v2:new b"), row("f", "val"), row("g", "test")]
    export_model(config, split)
    found = read_card(bundle_dir(config.out)).trained_on
    assert found == {
        **TRAINED_ON,
        "b": {"patient_id": "pb", "voxel_hash": "v2:new b"},
        "f": {"patient_id": "pf", "voxel_hash": "v2:new"},
    }
