"""The training job on a real embedded Ray: two workers and one, resumed, refused, diverged."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from brats.config import PRESETS, TrainConfig
from brats.errors import BratsError, ConfigError
from brats.model.checkpoint import load_checkpoint
from brats.pipeline.train import TrainedRun, train
from tests.support import ROOT
from tests.support.synthetic import write_case, write_cases

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]

JOB = str(ROOT / "jobs" / "train.py")
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
    assert history.n_slices.nunique() == 1


def test_every_planned_slice_was_trained_on(finished: Path) -> None:
    split = pd.read_parquet(finished / "split.parquet")
    training = split[split.split == "train"]
    with_tumour = sum((np.array(counts) > 0).sum() for counts in training.tumour_per_slice)
    assert pd.read_parquet(finished / "history.parquet").n_slices.iloc[0] > with_tumour


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


def test_more_epochs_go_on_where_the_run_ended(finished: Path, cases: Path, tmp_path: Path) -> None:
    os.system(f"cp -r {finished} {tmp_path}/run")
    run(cases, tmp_path / "run", epochs=4, workers=1)
    assert list(pd.read_parquet(tmp_path / "run" / "history.parquet").epoch) == [1, 2, 3, 4]


def test_other_configuration_in_the_same_folder_is_refused(finished: Path, cases: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds a different run \(learning_rate 0.003 there, 0.1 here\)"):
        run(cases, finished, learning_rate=0.1)


def test_unknown_encoder_is_refused_before_any_work(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--encoder: 'resnet1' is not known"):
        run(finished / "prepared", tmp_path / "run", encoder="resnet1", workers=1)


def test_loss_that_is_not_finite_stops_all_workers_with_one_line(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(BratsError, match=r"epoch 1, step \d+: the loss is no longer finite.*--learning-rate"):
        run(finished / "prepared", tmp_path / "run", learning_rate=1e30, warmup_steps=0, clip_norm=1e30)


def job(data: Path, out: Path) -> list[str]:
    options = [f"--{name.replace('_', '-')}" for name in TINY]
    values = [
        [str(item) for item in value] if isinstance(value, tuple) else [str(value)] for value in TINY.values()
    ]
    flat = [part for option, value in zip(options, values, strict=True) for part in [option, *value]]
    return [sys.executable, JOB, "--data", str(data), "--out", str(out), "--no-predict", *flat]


def test_killed_run_resumes_to_the_weights_of_an_unbroken_one(finished: Path, tmp_path: Path) -> None:
    """The driver and all it started are killed after an epoch; the same command then finishes the run."""
    command = job(finished / "prepared", tmp_path / "run")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    first = tmp_path / "run" / "checkpoints" / "epoch_00001" / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    broken_off = load_checkpoint(str(tmp_path / "run"))
    assert broken_off is not None
    assert 1 <= broken_off.epoch < 3
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert f"resuming after epoch {broken_off.epoch}" in result.stdout
    assert list(pd.read_parquet(tmp_path / "run" / "history.parquet").epoch) == [1, 2, 3]
    resumed = load_checkpoint(str(tmp_path / "run"), 3)
    unbroken = load_checkpoint(str(finished), 3)
    assert resumed is not None
    assert unbroken is not None
    for name, weight in unbroken.weights.items():
        np.testing.assert_allclose(
            resumed.weights[name].numpy(), weight.numpy(), rtol=1e-4, atol=1e-5, err_msg=name
        )


def test_bundle_loads_with_safetensors_alone(finished: Path) -> None:
    assert "segmentation_head.0.weight" in load_file(finished / "model" / "model.safetensors")


@pytest.mark.real
def test_short_run_on_real_cases_lowers_the_loss_and_predicts(real_data_dir: str, tmp_path: Path) -> None:
    for case_id in sorted(os.listdir(real_data_dir))[:6]:
        (tmp_path / "cases").mkdir(exist_ok=True)
        (tmp_path / "cases" / case_id).symlink_to(Path(real_data_dir) / case_id)
    options = {**PRESETS["demo"], "epochs": 2, "precision": "auto"}
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


def test_start_that_got_nowhere_does_not_hold_the_folder(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--fold"):
        run(finished / "prepared", tmp_path / "run", fold=9)
    with pytest.raises(ConfigError, match="--fold: 8"):
        run(finished / "prepared", tmp_path / "run", fold=8)
