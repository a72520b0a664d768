"""The training job on a real embedded Ray: what it leaves and nothing else, resumed, with two workers and one."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
from safetensors.numpy import load_file

from brats.config import BOUNDS, PredictConfig
from brats.errors import ConfigError
from brats.model.bundle import bundle_dir, exported_epoch
from brats.model.checkpoint import load_checkpoint
from brats.pipeline.predict import predict
from brats.pipeline.workers.fit import read_progress
from brats.presets import PRESETS
from tests.support import BUSY_MACHINE, ROOT
from tests.support.fault_cluster import Job
from tests.support.synthetic import write_case, write_cases
from tests.support.training import BATCH_SIZE, OPTIONS, n_planned
from tests.support.training import run_tiny as run

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]

FEW = 15  # steps, of the twenty or more of a coronal epoch


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cases")
    write_cases(root, 14, shape=(32, 30, 14), no_et_every=4)
    return root


@dataclass(frozen=True)
class Places:
    """Folders that a job may meet; `temporary` has a short path, which Ray's sockets need."""

    out: Path
    home: Path
    cwd: Path
    temporary: Path


@pytest.fixture(scope="module")
def places(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Folders after a job, as a user runs it, trained with two workers, predicted and scored its test split."""
    temporary = Path(tempfile.mkdtemp(prefix="b-", dir="/tmp"))
    places = Places(**{name: tmp_path_factory.mktemp(name) for name in ("out", "home", "cwd")}, temporary=temporary)
    before = contents(cases)
    tiny = [option for option in OPTIONS if option != "--no-tune"]
    options = ["--data", str(cases), "--out", str(places.out), *tiny, "--epochs", "3", "--workers", "2"]
    others = ("RAY_", "MPL", "XDG_", "BRATS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    own = {"HOME": str(places.home), "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, str(ROOT / "jobs" / "train.py"), *options, "--nifti"],
            cwd=places.cwd,
            env={**kept, **BUSY_MACHINE, **own},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert contents(cases) == before
        yield places
    finally:
        shutil.rmtree(temporary)


def contents(folder: Path) -> dict[str, int]:
    """The files and folders below a folder, with the times of their last change."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_nothing_is_written_to_the_home_or_the_working_folder(places: Places) -> None:
    assert contents(places.home) == {}
    assert contents(places.cwd) == {}


def test_temporary_files_are_in_a_folder_that_is_the_users_alone(places: Places) -> None:
    files = [path.relative_to(places.temporary) for path in places.temporary.rglob("*") if path.is_file()]
    assert {path.parts[0] for path in files} == {f"brats-{os.getuid()}"}
    assert stat.S_IMODE((places.temporary / f"brats-{os.getuid()}").stat().st_mode) == 0o700


@pytest.fixture(scope="module")
def finished(places: Places) -> Path:
    """The output folder of that job."""
    return places.out


def test_the_output_holds_nothing_hidden(finished: Path) -> None:
    names = [path.name for path in finished.rglob("*")]
    assert "config.json" in names
    assert [name for name in names if name.startswith(".")] == []


def test_run_leaves_model_history_scores_masks_and_figures(finished: Path) -> None:
    found = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert {
        "config.json",
        "split.parquet",
        "history.parquet",
        "model/model.safetensors",
        "model/model.json",
        "model/README.md",
        "test/nifti/labels_brats2018.txt",
        "test/metrics/cases.parquet",
        "test/metrics/slices.parquet",
        "test/metrics/notebook.parquet",
        "test/metrics/summary.parquet",
        "figures/learning_curves.png",
    } <= found
    split = pd.read_parquet(finished / "split.parquet")
    tested = set(split.case_id[split.split == "test"])
    assert {path.stem for path in (finished / "test" / "masks").iterdir()} == tested
    assert {path.name.removesuffix(".nii.gz") for path in (finished / "test" / "nifti").glob("*.nii.gz")} == tested
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


def test_the_model_is_tuned_on_the_validation_cases(finished: Path) -> None:
    split = pd.read_parquet(finished / "split.parquet")
    decoding = json.loads((finished / "model" / "model.json").read_text())["decoding"]
    assert decoding["n_tuned_on"] == (split.split == "val").sum() > 0
    assert decoding["thresholds"] == [0.5] * 3  # they are few
    assert not (finished / "tuning").exists()


def test_second_run_trains_and_predicts_nothing(
    finished: Path, cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = (finished / "model" / "model.safetensors").stat().st_mtime_ns
    run(cases, finished, nifti=True)
    said = capsys.readouterr().out
    assert "nothing to do: 3 epochs are done" in said
    assert "tune " not in said
    assert (finished / "model" / "model.safetensors").stat().st_mtime_ns == model


CORONAL: dict[str, Any] = {
    "plane": "coronal",
    "context": 1,
    "extra_channels": ("foreground", "t1ce-t1"),
    "et_ratio": 0.8,
    "fold": 2,
    "workers": 1,
    "tune": False,
}


@pytest.fixture(scope="module")
def folded(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps of a run that differs in what it sees and validates on, its test split predicted."""
    out = tmp_path_factory.mktemp("folded")
    run(finished / "prepared", out, **CORONAL, epochs=None, steps=FEW)
    return out


def test_fold_is_what_is_validated_on_and_the_rest_but_the_test_split_is_trained_on(
    finished: Path, folded: Path
) -> None:
    cases = pd.read_parquet(finished / "prepared" / "cases.parquet")
    tested, fold = cases.split == "test", cases.fold == 2
    assert 0 < fold.sum() < (~tested).sum()
    split = pd.read_parquet(folded / "split.parquet")
    assert {name: set(rows.case_id) for name, rows in split.groupby("split")} == {
        "test": set(cases.case_id[tested]),
        "val": set(cases.case_id[fold & ~tested]),
        "train": set(cases.case_id[~fold & ~tested]),
    }


def test_a_run_in_another_plane_with_more_channels_scores_what_it_validated(
    finished: Path, folded: Path, tmp_path: Path
) -> None:
    """The Dice of validation is taken in the plane, that of prediction from masks on the source grid."""
    card = json.loads((folded / "model" / "model.json").read_text())
    assert (card["inputs"]["plane"], card["inputs"]["context"]) == ("coronal", 1)
    config = PredictConfig(
        model=str(folded), data=str(finished / "prepared"), out=str(tmp_path), split="val", precision="fp32",
        workers=1,
    )  # fmt: skip
    predict(config)
    split, scores = (
        pd.read_parquet(folded / "split.parquet"),
        pd.read_parquet(tmp_path / "metrics" / "cases.parquet"),
    )
    assert set(scores.case_id) == set(split.case_id[split.split == "val"])
    (epoch,) = pd.read_parquet(folded / "history.parquet").to_dict("records")
    assert 0.05 < epoch["val_dice_wt"] < 1
    for region, dice in scores.groupby("region").dice.mean().items():
        assert epoch[f"val_dice_{region.lower()}"] == pytest.approx(dice, abs=1e-6)


def test_steps_and_minutes_bound_a_run_and_more_of_either_go_on(
    finished: Path, folded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, options = tmp_path / "run", {**CORONAL, "epochs": None, "predict": False}
    shutil.copytree(folded, out)
    (row,) = read_progress(str(out))
    assert (row["n_steps"], row["n_slices"]) == (FEW, FEW * BATCH_SIZE)
    run(finished / "prepared", out, **options, steps=FEW)
    assert f"nothing to do: {FEW} steps are done" in capsys.readouterr().out
    minutes = (row["elapsed_s"] + 8) / 60
    history = run(finished / "prepared", out, **options, minutes=minutes).history
    assert len(history) > 1
    assert [each["epoch"] for each in history] == list(range(1, len(history) + 1))
    assert list(pd.read_parquet(out / "history.parquet").epoch) == [each["epoch"] for each in history]
    run(finished / "prepared", out, **options, minutes=minutes)
    assert "min are done" in capsys.readouterr().out


@pytest.mark.slow
def test_more_epochs_go_on_where_the_run_ended_and_the_better_model_is_scored_anew(
    finished: Path, folded: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(folded, out)
    (earlier,) = pd.read_parquet(out / "history.parquet").val_dice
    (out / "test" / "left_over").touch()
    run(finished / "prepared", out, **CORONAL, epochs=3)
    history = pd.read_parquet(out / "history.parquet")
    assert list(history.epoch) == [1, 2, 3]
    assert history.n_slices[0] == FEW * BATCH_SIZE < history.n_slices[1]  # less than an epoch
    assert history.val_dice[0] == earlier < history.val_dice.max()
    card = json.loads((out / "model" / "model.json").read_text())
    assert (card["epoch"], card["val_dice"]) == (history.val_dice.idxmax() + 1, history.val_dice.max())
    assert not (out / "test" / "left_over").exists()  # the scores of the earlier model went with it
    assert (out / "test" / "metrics" / "cases.parquet").exists()


def test_other_configuration_in_the_same_folder_is_refused(finished: Path, cases: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds a different run \(learning_rate 0.003 there, 0.1 here\)"):
        run(cases, finished, learning_rate=0.1)


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
    for path in masks.glob("*.nii.gz"):
        name = path.name.removesuffix(".nii.gz")
        (tmp_path / "references" / name).symlink_to(cases / name)
    said = said_by(
        *("evaluate", "--predictions", str(masks), "--references", str(tmp_path / "references"), "--out", str(out))
    )
    assert said.endswith(f"metrics  {out}/metrics ({len(list(masks.glob('*.nii.gz')))} cases)\n")
    columns = ["case_id", "region", "dice", "hd95_mm", "sensitivity", "precision"]
    ours, theirs = (pd.read_parquet(path / "metrics" / "cases.parquet") for path in (out, finished / "test"))
    pd.testing.assert_frame_equal(ours[columns], theirs[columns])


def test_report_draws_the_pictures_of_a_run_and_names_them(finished: Path, tmp_path: Path) -> None:
    said = said_by("report", "--run", str(finished), "--out", str(tmp_path / "pictures"))
    drawn = {str(path) for path in (tmp_path / "pictures").iterdir()}
    assert set(said.splitlines()) == drawn
    assert {Path(path).name for path in drawn} >= {"learning_curves.png", "distributions.png", "case_best.png"}


@pytest.mark.real
def test_short_run_on_real_cases_lowers_the_loss_and_predicts(real_data_dir: str, tmp_path: Path) -> None:
    for case_id in sorted(os.listdir(real_data_dir))[:5]:  # the fifth is held out
        (tmp_path / "cases").mkdir(exist_ok=True)
        (tmp_path / "cases" / case_id).symlink_to(Path(real_data_dir) / case_id)
    settings = {name: value for name, value in PRESETS["demo"].settings.items() if name not in BOUNDS}
    options = {**settings, "epochs": 2, "precision": "auto"}
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
