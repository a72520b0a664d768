"""What a comparison trains, on which split, and what it refuses; nothing is trained here."""

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from brats import storage
from brats.config import BOUNDS, COMPARED_PRESETS, CompareConfig, PresetName, TrainConfig
from brats.data.dataset import PREPARED_CASES, cases_path
from brats.data.run_split import read_split
from brats.errors import BratsError, ConfigError
from brats.pipeline.several import compare as module
from brats.pipeline.several.compare import (
    Comparison,
    common_split,
    compare,
    facts_of,
    held_out,
    length,
    training_of,
    twins_of,
)
from brats.pipeline.several.ensemble import freeze_below
from brats.pipeline.several.timing import Timing
from brats.presets import train_defaults
from brats.score.compare import ScoredRun
from tests.support.comparison import FACTS, scored_run

TIMING = Timing(machine="2 threads of a CPU", seconds={})


def write_dataset(folder: Path, **splits: str) -> str:
    """A table of cases, by the split of each, of patients that are called like the first letter of a case."""
    common: dict[str, Any] = {
        "modalities": ["flair", "t1", "t1ce", "t2"],
        "source_hash": "ab",
        "coding": "brats2018",
    }
    common |= {"shape": [10, 10, 10], "n_voxels_ncr": 10, "n_voxels_ed": 30, "n_voxels_et": 0}
    rows = [
        {"case_id": case_id, "patient_id": case_id[0], "split": split, "tumour_per_slice": [1], **common}
        for case_id, split in splits.items()
    ]
    storage.write_table(cases_path(str(folder)), PREPARED_CASES, PREPARED_CASES.table(rows))
    return str(folder)


@pytest.fixture
def config(tmp_path: Path) -> CompareConfig:
    data = write_dataset(tmp_path / "data", a="train", b="val", c1="test", c2="test", d="test")
    return CompareConfig(data=data, out=str(tmp_path / "out"), presets=("brats", "demo"), steps=2)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """What a stand-in for the trainings is asked for; it fails every one."""
    seen: list[TrainConfig] = []

    def fail(trainings: list[TrainConfig]) -> list[BratsError]:
        seen.extend(trainings)
        return [BratsError(f"{training.preset} diverged") for training in trainings]

    monkeypatch.setattr(module, "train_all", fail)
    return seen


def test_a_training_has_the_values_of_its_preset_and_the_options_of_the_comparison(config: CompareConfig) -> None:
    config = dataclasses.replace(config, workers=2, device="cpu", precision="bf16", wait_minutes=1.0)
    config = dataclasses.replace(config, loggers=("wandb",))
    training = training_of(config, "demo", seed=3)
    assert (training.preset, training.augmentation, training.batch_size) == ("demo", "flips", 8)
    assert (training.data, training.out) == (config.data, f"{config.out}/demo/seed_3")
    assert (training.seed, training.workers, training.device, training.precision) == (3, 2, "cpu", "bf16")
    assert training.loggers == ("wandb",)
    assert training.wait_minutes == 1.0


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        ({"steps": 4500}, "for 4,500 steps"),
        ({"epochs": 7}, "for 7 epochs"),
        ({"minutes": 1.5}, "for 1:30 min"),
        ({}, "as long as it says"),
    ],
)
def test_every_training_is_as_long_as_asked(config: CompareConfig, bound: dict[str, Any], words: str) -> None:
    config = CompareConfig(data=config.data, out=config.out, presets=config.presets, **bound)
    assert length(config) == words
    training = training_of(config, "demo", seed=0)
    own = bound or train_defaults("demo", {})
    for name in BOUNDS:
        assert getattr(training, name) == own.get(name)


def test_every_seed_and_preset_is_trained_on_one_split(config: CompareConfig, asked: list[TrainConfig]) -> None:
    with pytest.raises(
        BratsError, match=r"no training came to its end; the first of 4, brats, seed 0: brats diver"
    ):
        compare(dataclasses.replace(config, seeds=2))
    assert [(run.preset, run.seed) for run in asked] == [("brats", 0), ("demo", 0), ("brats", 1), ("demo", 1)]
    splits = [read_split(run.out) for run in asked]
    assert splits == [read_split(config.out)] * 4
    assert {row["case_id"] for row in held_out(splits[0])} == {"c1", "c2", "d"}


def test_cases_that_join_the_dataset_change_no_comparison(config: CompareConfig, tmp_path: Path) -> None:
    before = common_split(config)
    freeze_below(training_of(config, "brats", 0), before, config.data)
    write_dataset(tmp_path / "data", a="train", b="val", c1="test", c2="test", d="test", e="test")
    later = training_of(config, "demo", 0)
    freeze_below(later, before, config.data)
    assert len(read_split(later.out)) == 5


def test_a_folder_with_a_run_on_another_split_is_refused(
    config: CompareConfig, asked: list[TrainConfig], tmp_path: Path
) -> None:
    write_dataset(tmp_path / "data", a="test", b="val", c1="train", c2="train", d="test")
    freeze_below(training_of(config, "demo", 0), common_split(config), config.data)
    write_dataset(tmp_path / "data", a="train", b="val", c1="test", c2="test", d="test")
    with pytest.raises(ConfigError, match=r"demo/seed_0: holds a run with another split .*; remove it, or choose"):
        compare(config)
    assert not asked


def test_a_test_split_of_one_patient_is_refused(config: CompareConfig, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", a="train", b="val", c1="test", c2="test")
    with pytest.raises(ConfigError, match=r"--data: the test split of .*data holds 1 patient, and 2 are needed"):
        common_split(config)


def test_case_folders_are_refused(config: CompareConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--data: .* is not a prepared dataset; make one with jobs/prepare.py"):
        common_split(dataclasses.replace(config, data=str(tmp_path)))


def test_another_comparison_in_the_folder_is_refused(config: CompareConfig, asked: list[TrainConfig]) -> None:
    for steps, message in ((2, "no training came to its end"), (3, r"different run \(steps 2 there, 3 here\)")):
        with pytest.raises(BratsError, match=message):
            compare(dataclasses.replace(config, steps=steps))
    assert len(asked) == 2


def test_presets_and_seeds_may_be_added(config: CompareConfig, asked: list[TrainConfig]) -> None:
    for changed in (config, dataclasses.replace(config, presets=("t1-slices", "demo"), seeds=2)):
        with pytest.raises(BratsError, match="no training came to its end"):
            compare(changed)
    assert len(asked) == 2 + 4


def test_the_folder_of_a_run_is_refused(config: CompareConfig) -> None:
    storage.write_json(f"{config.out}/config.json", {"job": "train", "result": {}, "execution": {}})
    with pytest.raises(ConfigError, match="holds the output of train, not of compare; choose another --out"):
        compare(config)


def run_of(preset: str, *case_ids: str) -> ScoredRun:
    return scored_run(preset, dict.fromkeys(case_ids, 0.5))


def test_the_page_counts_cases_and_patients_and_scores_background_on_the_test_split(config: CompareConfig) -> None:
    runs = [run_of("demo", "c1", "c2", "d"), run_of("brats", "c1", "c2", "d")]
    facts = facts_of(config, common_split(config), runs, TIMING, {})
    assert (facts.n_cases, facts.n_patients, facts.reference) == (3, 2, "brats")
    assert facts.background["accuracy"] == pytest.approx(0.96)
    assert (facts.timed_on, facts.length) == ("2 threads of a CPU", "for 2 steps")
    assert (facts.left_out, facts.twins) == ({}, {})


def test_a_case_that_one_preset_rejected_is_left_out_and_named(config: CompareConfig) -> None:
    runs = [run_of("demo", "c1", "d"), run_of("brats", "c1", "c2", "d")]
    facts = facts_of(config, common_split(config), runs, TIMING, {})
    assert (facts.n_cases, facts.n_patients) == (2, 2)
    assert facts.left_out == {"demo, seed 0": ["c2"]}


def test_presets_without_a_case_in_common_are_not_compared(config: CompareConfig) -> None:
    message = r"no case of the test split has scores of every .*: demo, seed 0 lacks c2, d; brats, seed 0 lacks c1"
    with pytest.raises(BratsError, match=message):
        facts_of(config, common_split(config), [run_of("demo", "c1"), run_of("brats", "c2", "d")], TIMING, {})


@pytest.mark.parametrize(
    ("presets", "reference"), [(("demo", "brats"), "brats"), (("t1-slices", "demo"), "t1-slices")]
)
def test_the_reference_stays_where_it_failed(
    config: CompareConfig, presets: tuple[PresetName, ...], reference: str
) -> None:
    config = dataclasses.replace(config, presets=presets)
    facts = facts_of(config, common_split(config), [run_of("demo", "c1", "c2")], TIMING, {"x, seed 0": "diverged"})
    assert facts.reference == reference


def test_a_preset_that_is_another_by_a_second_name_is_not_trained(
    config: CompareConfig, asked: list[TrainConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(config, presets=("four-modality", "demo", "brats"))
    with pytest.raises(BratsError, match="no training came to its end"):
        compare(config)
    assert [run.preset for run in asked] == ["demo", "brats"]
    assert "four-modality is trained as brats is, so brats alone is trained" in capsys.readouterr().out


def test_of_the_presets_compared_by_default_one_alone_is_another(config: CompareConfig) -> None:
    assert twins_of(dataclasses.replace(config, presets=COMPARED_PRESETS)) == {"four-modality": "brats"}


def test_two_names_of_one_training_are_refused(config: CompareConfig, asked: list[TrainConfig]) -> None:
    with pytest.raises(ConfigError, match="--presets: four-modality and brats are the same training; name another"):
        compare(dataclasses.replace(config, presets=("four-modality", "brats")))
    assert not asked


def test_a_failed_training_fails_the_job_at_its_end() -> None:
    comparison = Comparison(out="out", table=pa.table({}), facts=FACTS)
    comparison.check()
    failed = dataclasses.replace(FACTS, failures={"classic-unet, seed 0": "diverged"})
    with pytest.raises(BratsError, match=r"trainings that failed: classic-unet, seed 0; the same command goes on"):
        dataclasses.replace(comparison, facts=failed).check()
