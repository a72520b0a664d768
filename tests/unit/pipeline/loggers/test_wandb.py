"""Weights & Biases: offline runs, whose files are read back."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from brats.errors import LoggerError
from brats.pipeline.loggers import wandb
from brats.pipeline.loggers.logger import read_logged_run
from brats.pipeline.loggers.wandb import WandB
from tests.support.logged import (
    ALL_POINTS,
    EPOCHS,
    clear_settings,
    log_start,
    saved_run,
    wandb_config,
    wandb_file,
    wandb_points,
)


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear_settings(monkeypatch, tmp_path / "cache")


def test_every_figure_is_logged_at_its_epoch_in_the_folder_of_the_run(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", epochs=3)
    log_start(WandB(run), EPOCHS)
    assert wandb_points(wandb_file(Path(run))) == ALL_POINTS
    config = wandb_config(wandb_file(Path(run)))
    assert (config["epochs"], config["modalities"]) == (3, ["flair", "t1", "t1ce", "t2"])


def test_a_resume_writes_the_whole_history_under_the_same_identity(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run")
    log_start(WandB(run), EPOCHS[:2], finished=False)
    first = wandb_file(Path(run))
    log_start(WandB(run), EPOCHS)
    assert wandb_points(wandb_file(Path(run))) == ALL_POINTS
    assert wandb_file(Path(run)).name == first.name


def test_epochs_that_are_trained_again_replace_theirs(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run")
    log_start(WandB(run), EPOCHS)
    log_start(WandB(run), [(1, {"loss/train": 9.0}), (2, {"loss/train": 8.0})])
    assert wandb_points(wandb_file(Path(run))) == [(1, "loss/train", 9.0), (2, "loss/train", 8.0)]


def test_a_run_that_is_logged_already_stays_as_it_is_unless_its_folder_has_gone(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run")
    log_start(WandB(run), EPOCHS)
    stamp = wandb_file(Path(run)).stat().st_mtime_ns
    log_finished(run)
    assert wandb_file(Path(run)).stat().st_mtime_ns == stamp
    shutil.rmtree(tmp_path / "run" / "wandb")
    log_finished(run)
    assert wandb_points(wandb_file(Path(run))) == ALL_POINTS


def log_finished(run: str) -> None:
    """What a start of a finished run logs."""
    logger = WandB(run)
    logger.log(EPOCHS)
    logger.close(finished=True)


def test_a_run_without_epochs_opens_nothing(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run")
    logger = WandB(run)
    logger.log([])
    logger.close(finished=False)
    assert not (tmp_path / "run" / "wandb").exists()


def test_the_folder_is_that_of_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    run = saved_run(tmp_path / "run")
    log_start(WandB(run), EPOCHS)
    assert wandb_points(wandb_file(tmp_path / "elsewhere")) == ALL_POINTS
    assert not (tmp_path / "run" / "wandb").exists()


def test_runs_in_one_folder_leave_each_other_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "all"))
    runs = [saved_run(tmp_path / name) for name in ("a", "b")]
    for run in (*runs, runs[0]):
        log_start(WandB(run), EPOCHS[:2])
        log_start(WandB(run), EPOCHS)
    assert len(list((tmp_path / "all" / "wandb").glob("offline-run-*"))) == 2


def test_a_mode_that_is_none_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "nowhere")
    monkeypatch.setattr(wandb.load(), "login", lambda **_: True)
    with pytest.raises(LoggerError) as caught:
        WandB(saved_run(tmp_path / "run")).log(EPOCHS)
    assert str(caught.value).startswith("wandb: ")
    assert "\n" not in str(caught.value)


def test_online_without_a_key_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    asked = []

    def login(**options: Any) -> bool:
        asked.append(options)
        return False

    monkeypatch.setattr(wandb.load(), "login", login)
    with pytest.raises(LoggerError, match="WANDB_MODE is online, but no key is known; set WANDB_API_KEY"):
        WandB(saved_run(tmp_path / "run")).log(EPOCHS)
    assert asked == [{"prompt": False}]


class Online:
    """Plays a run of W&B whose server has all before `step`."""

    def __init__(self, step: int) -> None:
        self.step, self.logged, self.codes = step, list[tuple[int, dict[str, float]]](), list[int]()

    def log(self, figures: dict[str, float], *, step: int, commit: bool) -> None:
        assert commit
        self.logged.append((step, figures))

    def finish(self, exit_code: int) -> None:
        self.codes.append(exit_code)


def test_online_the_same_run_goes_on_after_what_the_server_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    opened: list[dict[str, Any]] = []
    server = Online(step=2)

    def init(**options: Any) -> Online:
        opened.append(options)
        return server

    monkeypatch.setattr(wandb.load(), "login", lambda **_: True)
    monkeypatch.setattr(wandb.load(), "init", init)
    run = saved_run(tmp_path / "run")
    log_start(WandB(run), EPOCHS)
    assert server.logged == [(2, {"loss/train": 0.25}), (3, {"loss/train": 0.125})]
    assert server.codes == [0]
    (options,) = opened
    assert (options["id"], options["resume"]) == (read_logged_run(run).identity, "allow")
    log_finished(run)
    assert len(opened) == 1


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "file"))
    with pytest.raises(LoggerError, match=r"^wandb: .*File exists"):
        WandB(saved_run(tmp_path / "run")).log(EPOCHS)


def test_nothing_is_printed_and_nothing_written_to_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    log_start(WandB(saved_run(tmp_path / "run")), EPOCHS)
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "home").exists()
