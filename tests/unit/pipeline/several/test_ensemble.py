"""Runs of several networks: their members, the average of them, and what happens when one fails."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brats import storage
from brats.config import TrainConfig
from brats.data import run_split
from brats.data.cases import Hdf5Options
from brats.data.items import check_unread
from brats.data.run_split import choose_split, freeze_split, read_prepared, read_split, split_path
from brats.errors import BratsError, ConfigError
from brats.model.bundle import bundle_dir
from brats.model.ensemble import read_ensemble
from brats.pipeline.several import ensemble
from brats.pipeline.several.ensemble import average, below, finish, lay_out, members_of
from brats.pipeline.train import TrainedRun, claim
from tests.support.bundles import save_undecided_bundle
from tests.support.patients import patient_row, write_patients
from tests.support.prepared import CONFIG
from tests.support.trained import train_at_once

predictions_of = run_split.test_dir  # under its own name pytest would take it for a test
SPLITS = ("train", "train", "val", "test")


@pytest.fixture
def prepared(tmp_path: Path) -> str:
    """A dataset of four patients, the last of whom is tested on."""
    rows = [patient_row(number, split=split) for number, split in enumerate(SPLITS)]
    return write_patients(str(tmp_path / "prepared"), rows)


@pytest.fixture
def predicted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was predicted: folders of runs, as their test splits are."""
    runs: list[str] = []

    def predict_test_split(config: TrainConfig, *_: object) -> None:
        storage.write_json(storage.join(predictions_of(config.out), "scores.json"), {})
        runs.append(config.out)

    monkeypatch.setattr(ensemble, "predict_test_split", predict_test_split)
    monkeypatch.setattr(ensemble, "train", train_at_once)
    return runs


def config_of(tmp_path: Path, **changes: Any) -> TrainConfig:
    values = {"data": str(tmp_path / "prepared"), "out": str(tmp_path / "run"), "seeds": 2, "seed": 5}
    shaping = {name: getattr(CONFIG, name) for name in ("modalities", "encoder", "decoder_channels")}
    return TrainConfig(**{**shaping, **values, **changes})


def test_members_are_runs_of_one_network_with_the_seeds_from_the_first_on(tmp_path: Path) -> None:
    config = config_of(tmp_path, seeds=3, learning_rate=0.5, nifti=True, coding="brats2023")
    members = members_of(config, "/prepared")
    assert [(member.out, member.seed) for member in members] == [
        (str(tmp_path / "run" / f"seed_{seed}"), seed) for seed in (5, 6, 7)
    ]
    for member in members:
        assert (member.seeds, member.predict, member.data, member.coding) == (1, False, "/prepared", "auto")
        assert (member.learning_rate, member.encoder) == (0.5, config.encoder)
    assert members_of(config_of(tmp_path, seeds=1), "/prepared") == []


@pytest.mark.parametrize(
    ("options", "members"),
    [
        ({"seeds": 1}, [("coronal", "coronal", 5), ("sagittal", "sagittal", 5), ("axial", "axial", 5)]),
        (
            {"seeds": 2},
            [
                (f"{plane}_seed_{seed}", plane, seed)
                for plane in ("coronal", "sagittal", "axial")
                for seed in (5, 6)
            ],
        ),
    ],
)
def test_a_triplanar_run_has_a_network_for_each_plane_and_seed_those_that_must_fit_in_memory_first(
    tmp_path: Path, options: dict[str, int], members: list[tuple[str, str, int]]
) -> None:
    found = members_of(config_of(tmp_path, triplanar=True, **options), "/prepared")
    assert [(Path(member.out).name, member.plane, member.seed) for member in found] == members
    assert not any(member.triplanar for member in found)


def test_a_dataset_without_counts_for_a_plane_is_refused_before_the_folder_is_claimed(tmp_path: Path) -> None:
    rows = [patient_row(n, split=split, tumour_per_coronal_slice=None) for n, split in enumerate(SPLITS)]
    prepared = write_patients(str(tmp_path / "prepared"), rows)
    with pytest.raises(
        ConfigError, match=r"^--plane or --triplanar: .* does not count the tumour voxels of coronal slices"
    ):
        lay_out(config_of(tmp_path, data=prepared, triplanar=True))
    assert not (tmp_path / "run").exists()


def test_members_start_from_the_copy_of_a_model_that_their_run_keeps(tmp_path: Path, prepared: str) -> None:
    initial = save_undecided_bundle(tmp_path / "initial")
    config = config_of(tmp_path, data=prepared, init=str(initial), seeds=1, triplanar=True)
    members = lay_out(config)
    shutil.rmtree(initial)
    assert [member.init for member in members] == [f"{config.out}/init"] * 3
    assert lay_out(config) == members
    other = save_undecided_bundle(tmp_path / "other")
    (other / "model.safetensors").write_bytes(change_weights((other / "model.safetensors").read_bytes()))
    with pytest.raises(ConfigError, match="init_weights"):
        lay_out(dataclasses.replace(config, init=str(other)))


def change_weights(content: bytes) -> bytes:
    """Weights in the form of safetensors, of which the last number is another."""
    return content[:-4] + bytes(4)


def test_members_take_prepared_cases_without_the_options_of_their_files(tmp_path: Path) -> None:
    config = TrainConfig(
        data="cases",
        out=str(tmp_path),
        seeds=2,
        coding="brats2018",
        hdf5_channels=("flair", "t1", "t1ce", "t2"),
        hdf5_spacing_mm=(1.0, 1.0, 2.0),
    )
    member = below(config, "seed_1", "prepared")
    check_unread("prepared", member.coding, Hdf5Options.of(member))


def test_all_members_train_on_the_split_of_the_dataset(tmp_path: Path, prepared: str) -> None:
    config = config_of(tmp_path)
    members = lay_out(config)
    assert [Path(member.out).name for member in members] == ["seed_5", "seed_6"]
    for run in (config, *members):
        assert [row["split"] for row in read_split(run.out)] == list(SPLITS)
        assert read_prepared(run.out) == prepared


def test_what_makes_scores_say_less_is_reported_once_for_all_networks_that_are_averaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [patient_row(n, split=split, tumour_per_slice=[0, n]) for n, split in enumerate(("val", "train"))]
    prepared = write_patients(str(tmp_path / "prepared"), rows)
    initial = save_undecided_bundle(tmp_path / "initial", trained_on=["case_0"])
    for member in lay_out(config_of(tmp_path, data=prepared, init=str(initial))):
        claim(member)  # as the process that fits it does, and the one that goes on with it
        claim(member)
    no_tumour, known = (line for line in capsys.readouterr().out.splitlines() if "WARNING" in line)
    assert "no case of the val split has tumour" in no_tumour
    assert "trained or chosen on patients of the val split (patient_0; 1 by name alone)" in known


def test_a_run_of_one_network_is_its_own_and_only_member(tmp_path: Path) -> None:
    config = config_of(tmp_path, seeds=1)
    assert lay_out(config) == [config]
    assert not (tmp_path / "run").exists()


def test_the_average_of_the_members_predicts_the_test_split_once(
    tmp_path: Path, prepared: str, predicted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path, data=prepared)
    lay_out(config)
    trained = finish(config, {})
    assert predicted == [config.out]
    assert [member.name for member in read_ensemble(bundle_dir(config.out)).members] == ["seed_5", "seed_6"]
    assert [run.out for run in trained.networks] == [f"{config.out}/seed_5", f"{config.out}/seed_6"]
    assert len(trained.history) == 2
    said = capsys.readouterr().out
    assert f"seed_6, 2 of 2, in {config.out}/seed_6\n" in said
    assert f"history  {config.out}/seed_5/history.parquet and 1 more\n" in trained.summary()


def test_scores_of_an_average_that_is_no_longer_the_same_go(
    tmp_path: Path, prepared: str, predicted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, data=prepared)
    lay_out(config)
    finish(config, {})
    kept = Path(predictions_of(config.out)) / "kept"
    kept.touch()
    finish(config, {})
    assert kept.exists()
    monkeypatch.setattr(ensemble, "train", train_better)
    finish(config, {})
    assert not kept.exists()
    assert predicted == [config.out] * 3


@pytest.mark.usefixtures("predicted")
def test_scores_of_an_earlier_average_go_before_the_new_one_counts_as_there(
    tmp_path: Path, prepared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, data=prepared)
    lay_out(config)
    finish(config, {})
    monkeypatch.setattr(ensemble, "train", train_better)
    remove = storage.remove

    def remove_or_be_killed(path: str) -> None:
        if path == predictions_of(config.out):
            raise KeyboardInterrupt
        remove(path)

    monkeypatch.setattr(storage, "remove", remove_or_be_killed)
    with pytest.raises(KeyboardInterrupt):
        finish(config, {})
    monkeypatch.setattr(storage, "remove", remove)
    kept = Path(predictions_of(config.out)) / "kept"
    kept.touch()
    finish(config, {})
    assert not kept.exists()


def train_better(config: TrainConfig) -> TrainedRun:
    trained = train_at_once(config)
    save_undecided_bundle(Path(bundle_dir(config.out)))
    return trained


def test_members_of_a_member_that_is_an_average_count_one_by_one(tmp_path: Path) -> None:
    bundles = {name: save_undecided_bundle(tmp_path / name / "model").parent for name in ("a", "b", "c")}
    pair = config_of(tmp_path, out=str(tmp_path / "pair"))
    average(pair, {name: str(bundles[name]) for name in ("a", "b")})
    both = config_of(tmp_path, out=str(tmp_path / "both"))
    average(both, {"pair": pair.out, "c": str(bundles["c"])})
    names = [member.name for member in read_ensemble(bundle_dir(both.out)).members]
    assert names == ["pair/member_0", "pair/member_1", "c"]


@pytest.mark.usefixtures("predicted")
def test_a_member_that_fails_is_named_after_the_others_are_trained(
    tmp_path: Path, prepared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, data=prepared, seeds=3)

    def fail_once(member: TrainConfig) -> TrainedRun:
        if member.seed == 6:
            raise BratsError("the GPU is gone")
        return train_at_once(member)

    monkeypatch.setattr(ensemble, "train", fail_once)
    lay_out(config)
    with pytest.raises(BratsError, match=r"^1 of 3 runs failed: seed_6 \(the GPU is gone\); the same command"):
        finish(config, {})
    assert storage.exists(bundle_dir(f"{config.out}/seed_7"))
    assert not storage.exists(bundle_dir(config.out))


@pytest.mark.usefixtures("predicted")
def test_a_network_that_has_failed_in_a_process_of_its_own_is_not_trained_again(
    tmp_path: Path, prepared: str
) -> None:
    config = config_of(tmp_path, data=prepared)
    lay_out(config)
    with pytest.raises(BratsError, match=r"seed_5 \(its machine was lost\)"):
        finish(config, {f"{config.out}/seed_5": BratsError("its machine was lost")})
    assert not storage.exists(bundle_dir(f"{config.out}/seed_5"))


def refusing(*errors: BratsError | None) -> Callable[[TrainConfig], TrainedRun]:
    """A training that fails with these errors, or not, in turn."""
    outcomes = iter(errors)

    def train(member: TrainConfig) -> TrainedRun:
        if error := next(outcomes):
            raise error
        return train_at_once(member)

    return train


@pytest.mark.usefixtures("predicted")
def test_a_member_that_is_refused_is_named_after_the_others_are_trained(
    tmp_path: Path, prepared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, data=prepared)
    monkeypatch.setattr(ensemble, "train", refusing(ConfigError("another job is at work"), None))
    lay_out(config)
    with pytest.raises(ConfigError, match=r"^1 of 2 runs failed: seed_5 \(another job is at work\)"):
        finish(config, {})
    assert storage.exists(bundle_dir(f"{config.out}/seed_6"))


@pytest.mark.usefixtures("predicted")
def test_a_reason_that_holds_for_several_members_is_given_once(
    tmp_path: Path, prepared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, data=prepared, seeds=3)
    no_gpu = ConfigError("--device: cuda, but Ray sees no GPU")
    monkeypatch.setattr(ensemble, "train", refusing(no_gpu, BratsError("its machine was lost"), no_gpu))
    lay_out(config)
    with pytest.raises(BratsError) as failure:
        finish(config, {})
    assert not isinstance(failure.value, ConfigError)
    assert str(failure.value) == (
        "3 of 3 runs failed: seed_5, seed_7 (--device: cuda, but Ray sees no GPU); seed_6 (its machine was lost); "
        "the same command goes on with them"
    )


def test_a_folder_of_another_run_is_not_taken_for_a_member(tmp_path: Path, prepared: str) -> None:
    config = config_of(tmp_path, data=prepared)
    other = [{**row, "split": "train"} for row in choose_split(config, "elsewhere", prepared)]
    freeze_split(f"{config.out}/seed_6", other, prepared)
    with pytest.raises(
        ConfigError, match=r"run/seed_6: holds a run with another split than it has here; remove it"
    ):
        lay_out(config)


def test_other_options_for_the_same_folder_are_refused(tmp_path: Path, prepared: str) -> None:
    lay_out(config_of(tmp_path, data=prepared))
    with pytest.raises(ConfigError, match=r"holds a different run \(seeds 2 there, 3 here\)"):
        lay_out(config_of(tmp_path, data=prepared, seeds=3))
    assert storage.exists(split_path(str(tmp_path / "run" / "seed_5")))
