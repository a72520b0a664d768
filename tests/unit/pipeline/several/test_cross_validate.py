"""Cross-validation: a run for each fold, the scores of all patients out of fold, and their models as one."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from brats import storage
from brats.config import TrainConfig
from brats.data import run_split
from brats.data.run_split import read_split
from brats.errors import ConfigError
from brats.model.bundle import bundle_dir
from brats.model.ensemble import read_ensemble, read_model
from brats.pipeline.several import ensemble
from brats.pipeline.several.cross_validate import finish, lay_out
from brats.pipeline.train import TrainedRun, claim
from brats.score.tables import metrics_path
from tests.support.bundles import save_undecided_bundle
from tests.support.patients import patient_row, write_patients
from tests.support.prepared import CONFIG
from tests.support.trained import score_at_once, train_at_once

predictions_of = run_split.test_dir  # under its own name pytest would take it for a test
N_PATIENTS = 6


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of the networks that were trained; nothing is."""
    trained: list[str] = []

    def train(config: TrainConfig) -> TrainedRun:
        trained.append(Path(config.out).name)
        return train_at_once(config)

    monkeypatch.setattr(ensemble, "train", train)
    monkeypatch.setattr(ensemble, "predict_test_split", lambda config, *_: score_at_once(config))
    monkeypatch.setattr(ensemble, "report", lambda _: [])  # of a fold, whose cases have no images to draw
    return trained


def config_of(tmp_path: Path, **changes: Any) -> TrainConfig:
    rows = [patient_row(number, with_et=number > 0) for number in range(N_PATIENTS)]
    values = {
        "data": write_patients(str(tmp_path / "prepared"), rows),
        "out": str(tmp_path / "run"),
        "cross_validation": 3,
    }
    shaping = {name: getattr(CONFIG, name) for name in ("modalities", "encoder", "decoder_channels")}
    return TrainConfig(**{**shaping, **values, **changes})


def run(config: TrainConfig) -> TrainedRun:
    lay_out(config)
    return finish(config, {})


def cases_tested(folder: str) -> set[str]:
    return {row["case_id"] for row in read_split(folder) if row["split"] == "test"}


def cases(folder: str) -> pd.DataFrame:
    return pd.read_parquet(metrics_path(folder, "cases")).sort_values(["case_id", "region"], ignore_index=True)


def test_every_patient_is_scored_once_by_the_model_of_its_fold(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    trained = run(config)
    folds = [f"{config.out}/fold_{fold}" for fold in range(3)]
    assert [len(cases_tested(fold)) for fold in folds] == [2, 2, 2]
    assert set().union(*map(cases_tested, folds)) == {f"case_{number}" for number in range(N_PATIENTS)}
    expected = pd.concat([cases(predictions_of(fold)) for fold in folds])
    expected = expected.sort_values(["case_id", "region"], ignore_index=True)
    pd.testing.assert_frame_equal(cases(config.out), expected)
    summary = pd.read_parquet(metrics_path(config.out, "summary"))
    (row,) = summary.query("region == 'WT' and metric == 'dice' and subset == 'all'").itertuples()
    assert (row.n, row.mean) == (N_PATIENTS, 1.0)
    assert (row.ci95_low, row.ci95_high) == (1.0, 1.0)
    assert trained.scores is not None
    assert trained.scores.n_cases == N_PATIENTS
    assert trained.masks == [f"{fold}/test/masks" for fold in folds]
    assert [Path(picture).name for picture in trained.figures] == ["distributions.png", "volumes.png"]


def test_the_models_of_all_folds_are_one_that_knows_all_patients(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    run(config)
    bundle = bundle_dir(config.out)
    assert [member.name for member in read_ensemble(bundle).members] == ["fold_0", "fold_1", "fold_2"]
    assert set(read_model(bundle).trained_on) == {f"case_{number}" for number in range(N_PATIENTS)}
    assert {row["split"] for row in read_split(config.out)} == {"train"}


def test_a_fold_that_was_deleted_is_the_same_when_it_is_made_again(tmp_path: Path, stand_ins: list[str]) -> None:
    config = config_of(tmp_path)
    run(config)
    before, fold = cases(config.out), f"{config.out}/fold_1"
    of_fold = read_split(fold)
    shutil.rmtree(fold)
    stand_ins.clear()
    run(config)
    assert stand_ins == ["fold_0", "fold_1", "fold_2"]  # `train` finds what is done
    assert read_split(fold) == of_fold
    pd.testing.assert_frame_equal(cases(config.out), before)


def test_a_fold_of_several_seeds_is_tested_with_their_average(tmp_path: Path) -> None:
    config = config_of(tmp_path, seeds=2)
    leaves = lay_out(config)
    assert [leaf.out.removeprefix(f"{config.out}/") for leaf in leaves] == [
        f"fold_{fold}/seed_{seed}" for fold in range(3) for seed in range(2)
    ]
    trained = finish(config, {})
    assert len(read_ensemble(bundle_dir(f"{config.out}/fold_2")).members) == 2
    assert len(read_ensemble(bundle_dir(config.out)).members) == len(trained.history) == 6
    for leaf in leaves:
        assert cases_tested(leaf.out) == cases_tested(leaf.out.rpartition("/")[0])
        assert not storage.exists(predictions_of(leaf.out))
    assert set(cases(config.out).case_id) == {f"case_{number}" for number in range(N_PATIENTS)}


def test_folds_without_enhancing_tumour_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lay_out(config_of(tmp_path, cross_validation=N_PATIENTS))
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "WARNING" in line)
    fold = next(k for k in range(N_PATIENTS) if cases_tested(f"{tmp_path}/run/fold_{k}") == {"case_0"})
    assert f"fold {fold} has no case with enhancing tumour: its Dice of ET says only whether" in line


def test_patients_that_the_first_model_knows_are_named_once_for_each_fold_that_scores_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    initial = save_undecided_bundle(tmp_path / "initial", trained_on=["case_2"])
    config = config_of(tmp_path, init=str(initial), seeds=2)
    for network in lay_out(config) + lay_out(config):
        claim(network)
    said = [line for line in capsys.readouterr().out.splitlines() if "model of --init" in line]
    assert sum("patients of the test split (patient_2; 1 by name alone)" in line for line in said) == 1
    folds = [read_split(f"{config.out}/fold_{fold}") for fold in range(3)]
    scored = [row["split"] for rows in folds for row in rows if row["case_id"] == "case_2"]
    assert len(said) == sum(split != "train" for split in scored)


def test_another_number_of_folds_for_the_same_folder_is_refused(tmp_path: Path) -> None:
    lay_out(config_of(tmp_path))
    with pytest.raises(ConfigError, match=r"holds a different run \(cross_validation 3 there, 2 here\)"):
        lay_out(config_of(tmp_path, cross_validation=2))


def test_a_start_with_too_many_folds_does_not_hold_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--cross-validation: 7 folds need as many patients"):
        lay_out(config_of(tmp_path, cross_validation=7))
    assert len(lay_out(config_of(tmp_path))) == 3


def test_without_prediction_there_are_models_and_no_scores(tmp_path: Path) -> None:
    config = config_of(tmp_path, predict=False)
    trained = run(config)
    assert trained.scores is None
    assert (trained.masks, trained.figures) == ([], [])
    assert len(read_ensemble(bundle_dir(config.out)).members) == 3
