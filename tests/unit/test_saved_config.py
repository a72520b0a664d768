"""Saved configurations: what shapes a result, and which output folders a job may go on in."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from brats import storage
from brats.config import RECIPE, PrepareConfig, TrainConfig
from brats.errors import ConfigError
from brats.saved_config import SavedConfig, result_fields


def prepare_config(**values: Any) -> PrepareConfig:
    return PrepareConfig(data="/data", out="/out", **values)


# What shapes a result


def test_paths_workers_and_devices_do_not_shape_a_result() -> None:
    shaping = set(result_fields(TrainConfig(out="run")))
    assert shaping.isdisjoint(
        {"data", "out", "workers", "device", "precision", "epochs", "strict", "debug", "nifti"}
    )
    assert shaping >= {
        "modalities",
        "encoder",
        "batch_size",
        "learning_rate",
        "seed",
        "fold",
        "patience",
        "ema",
        "recipe",
    }


def test_result_fields_are_as_they_come_back_from_json() -> None:
    values = result_fields(prepare_config(modalities=("t1", "t2")))
    assert values["modalities"] == ["t1", "t2"]
    assert json.loads(json.dumps(values)) == values


# Output folders


def test_a_new_folder_is_claimed_by_its_config(tmp_path: Path) -> None:
    out = str(tmp_path / "new")
    SavedConfig.of("train", TrainConfig(out="run", epochs=3, seed=7), data_fingerprint="abc").claim(out)
    saved = storage.read_json(storage.join(out, "config.json"))
    assert saved["job"] == "train"
    assert (saved["result"]["seed"], saved["result"]["data_fingerprint"]) == (7, "abc")
    assert saved["execution"]["epochs"] == 3
    assert set(saved["result"]) & set(saved["execution"]) == set()


def test_the_same_values_claim_a_folder_again(tmp_path: Path) -> None:
    for _ in range(2):
        SavedConfig.of("prepare", prepare_config()).claim(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_execution_values_may_change_and_the_latest_are_kept(tmp_path: Path) -> None:
    SavedConfig.of("train", TrainConfig(out="run", epochs=3)).claim(str(tmp_path))
    SavedConfig.of("train", TrainConfig(out="run", epochs=9, workers=4, data="/elsewhere")).claim(str(tmp_path))
    assert storage.read_json(str(tmp_path / "config.json"))["execution"]["epochs"] == 9


def test_a_folder_of_a_different_run_is_refused_naming_fields_and_both_values(tmp_path: Path) -> None:
    first = SavedConfig.of(
        "train", TrainConfig(out="run", batch_size=16, modalities=("t1", "t2")), data_fingerprint="abc"
    )
    first.claim(str(tmp_path))
    before = (tmp_path / "config.json").read_bytes()
    second = SavedConfig.of(
        "train", TrainConfig(out="run", batch_size=8, modalities=("t1",)), data_fingerprint="abc"
    )
    with pytest.raises(ConfigError) as caught:
        second.claim(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}: holds a different run (batch_size 16 there, 8 here; "
        "modalities ['t1', 't2'] there, ['t1'] here); choose another --out"
    )
    assert (tmp_path / "config.json").read_bytes() == before


def test_other_data_are_a_different_run(tmp_path: Path) -> None:
    SavedConfig.of("train", TrainConfig(out="run"), data_fingerprint="abc").claim(str(tmp_path))
    with pytest.raises(ConfigError, match="data_fingerprint 'abc' there, 'xyz' here"):
        SavedConfig.of("train", TrainConfig(out="run"), data_fingerprint="xyz").claim(str(tmp_path))


def test_a_field_that_only_one_side_has_is_a_difference(tmp_path: Path) -> None:
    SavedConfig(job="train", result={"seed": 0, "old": 1}, execution={}, earlier={}).claim(str(tmp_path))
    with pytest.raises(ConfigError, match="new None there, 2 here; old 1 there, None here"):
        SavedConfig(job="train", result={"seed": 0, "new": 2}, execution={}, earlier={}).claim(str(tmp_path))


def test_a_folder_of_another_job_is_refused(tmp_path: Path) -> None:
    SavedConfig.of("prepare", prepare_config()).claim(str(tmp_path))
    with pytest.raises(ConfigError, match="holds the output of prepare, not of train; choose another --out"):
        SavedConfig.of("train", TrainConfig(out="run")).claim(str(tmp_path))


def test_a_config_of_another_program_is_refused(tmp_path: Path) -> None:
    storage.write_json(str(tmp_path / "config.json"), {"model": "other"})
    with pytest.raises(ConfigError, match="holds the output of None, not of train"):
        SavedConfig.of("train", TrainConfig(out="run")).claim(str(tmp_path))


def test_configuration_of_before_a_field_was_added_goes_on(tmp_path: Path) -> None:
    now = SavedConfig.of("train", TrainConfig(out="run"))
    before = {name: value for name, value in now.result.items() if name != "loss"}
    dataclasses.replace(now, result=before, earlier={}).write(str(tmp_path))
    now.claim(str(tmp_path))
    other = dataclasses.replace(now, earlier={"loss": "another"})
    dataclasses.replace(now, result=before, earlier={}).write(str(tmp_path))
    with pytest.raises(ConfigError, match="loss 'another' there, 'bce-dice' here"):
        other.claim(str(tmp_path))


def test_configuration_of_before_an_option_of_several_values_goes_on_without_any(tmp_path: Path) -> None:
    now = SavedConfig.of("train", TrainConfig(out="run"))
    before = {name: value for name, value in now.result.items() if name != "extra_channels"}
    dataclasses.replace(now, result=before, earlier={}).write(str(tmp_path))
    now.claim(str(tmp_path))
    other = SavedConfig.of("train", TrainConfig(out="run", extra_channels=("foreground",)))
    with pytest.raises(ConfigError, match=r"extra_channels \[\] there, \['foreground'\] here"):
        other.claim(str(tmp_path))


def test_a_run_of_another_recipe_does_not_go_on(tmp_path: Path) -> None:
    now = SavedConfig.of("train", TrainConfig(out="run"))
    before = {name: value for name, value in now.result.items() if name != "recipe"}
    dataclasses.replace(now, result=before, earlier={}).write(str(tmp_path))
    with pytest.raises(ConfigError, match=rf"\(recipe 1 there, {RECIPE} here\); choose another --out"):
        now.claim(str(tmp_path))


def test_check_without_values_refuses_another_job_alone(tmp_path: Path) -> None:
    SavedConfig.of("train", TrainConfig(out="run", seed=1)).write(str(tmp_path))
    SavedConfig.of("train", TrainConfig(out="run", seed=2)).check(str(tmp_path), values=False)
    with pytest.raises(ConfigError, match="holds the output of train, not of prepare"):
        SavedConfig.of("prepare", prepare_config()).check(str(tmp_path), values=False)
