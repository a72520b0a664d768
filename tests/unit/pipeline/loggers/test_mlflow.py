"""MLflow: a store of files, written by its client and read back with it."""

from pathlib import Path
from typing import Any

import pytest

from brats.errors import LoggerError
from brats.pipeline.loggers import mlflow
from brats.pipeline.loggers.logger import read_logged_run
from brats.pipeline.loggers.mlflow import MLflow, find_run, log_epochs, store_of
from tests.support.logged import ALL_POINTS, EPOCHS, clear_settings, log_start, mlflow_points, mlflow_run, saved_run


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear_settings(monkeypatch, tmp_path / "cache")


def test_every_figure_is_a_metric_at_its_epoch_in_the_folder_of_the_run(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "runs" / "a")
    log_start(MLflow(run), EPOCHS)
    assert store_of(run) == f"file://{run}/mlflow"
    assert mlflow_points(store_of(run)) == ALL_POINTS
    found = mlflow_run(store_of(run))
    assert (found.info.run_name, found.info.status) == ("runs/a", "FINISHED")


def test_a_folder_of_any_name_holds_its_store(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "a b#1 50%20")
    log_start(MLflow(run), EPOCHS)
    assert mlflow_points(store_of(run)) == ALL_POINTS
    assert (Path(run) / "mlflow").is_dir()


def test_what_shaped_the_result_is_a_parameter_and_what_may_change_a_tag(tmp_path: Path) -> None:
    run = saved_run(tmp_path, epochs=3, batch_size=8)
    log_start(MLflow(run), EPOCHS)
    saved_run(tmp_path, epochs=30, batch_size=8)
    log_start(MLflow(run), EPOCHS)
    data = mlflow_run(store_of(run)).data
    assert (data.params["batch_size"], data.params["modalities"]) == ("8", "flair, t1, t1ce, t2")
    assert data.tags["epochs"] == "30"
    assert not data.params.keys() & data.tags.keys()


def test_a_resume_goes_on_with_the_same_run_and_leaves_no_double_points(tmp_path: Path) -> None:
    run = saved_run(tmp_path)
    log_start(MLflow(run), EPOCHS[:2], finished=False)
    assert mlflow_run(store_of(run)).info.status == "KILLED"
    log_start(MLflow(run), EPOCHS)
    assert mlflow_points(store_of(run)) == ALL_POINTS
    assert mlflow_run(store_of(run)).info.status == "FINISHED"


def test_epochs_that_are_trained_again_are_logged_once(tmp_path: Path) -> None:
    run = saved_run(tmp_path)
    log_start(MLflow(run), EPOCHS)
    log_start(MLflow(run), [(1, {"loss/train": 9.0}), (2, {"loss/train": 9.0, "dice/val": 0.75})])
    assert mlflow_points(store_of(run)) == sorted([*ALL_POINTS, (2, "dice/val", 0.75)])


def test_a_run_that_is_logged_already_stays_as_it_is(tmp_path: Path) -> None:
    run = saved_run(tmp_path)
    log_start(MLflow(run), EPOCHS)
    before = mlflow_run(store_of(run)).info
    log_start(MLflow(run), EPOCHS, finished=False)
    assert mlflow_run(store_of(run)).info.to_proto() == before.to_proto()


def test_the_store_and_the_experiment_are_those_of_the_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"file://{tmp_path}/store"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    run = saved_run(tmp_path / "run")
    log_start(MLflow(run), EPOCHS)
    assert mlflow_points(store) == ALL_POINTS
    assert mlflow.load().MlflowClient(store).get_experiment_by_name("mine") is not None
    assert not (tmp_path / "run" / "mlflow").exists()


def test_several_runs_in_one_store_are_told_apart(tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    runs = [read_logged_run(saved_run(tmp_path / name)) for name in ("a", "b")]
    for run in runs:
        log_epochs(find_run(run, store), EPOCHS)
    found = [find_run(run, store) for run in runs]
    assert found[0].run_id != found[1].run_id
    assert found[0].logged == found[1].logged == {(name, number) for number, name, _ in ALL_POINTS}


def test_a_long_history_is_logged_in_batches(tmp_path: Path) -> None:
    run = saved_run(tmp_path)
    epochs = [(number, {"a": 1.0, "b": 2.0}) for number in range(1, 701)]
    log_start(MLflow(run), epochs)
    assert len(mlflow_points(store_of(run))) == 1400


def test_a_server_that_does_not_answer_is_one_line_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = saved_run(tmp_path)
    logger = MLflow(run)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    with pytest.raises(LoggerError) as caught:
        logger.log(EPOCHS)
    assert str(caught.value) == "mlflow: http://127.0.0.1:9: [Errno 111] Connection refused"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    logger.log(EPOCHS)
    assert mlflow_points(store_of(run)) == ALL_POINTS


def test_what_a_failure_has_left_out_is_logged_later_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = saved_run(tmp_path)
    logger = MLflow(run)
    logger.log(EPOCHS[:1])
    client = mlflow.load().MlflowClient

    def fill_up(self: Any, run_id: str, metrics: Any) -> None:
        client.log_metric(self, run_id, metrics[0].key, metrics[0].value, step=metrics[0].step)
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(client, "log_batch", fill_up)
        with pytest.raises(LoggerError, match=r"mlflow: file://.*/mlflow: No space left on device"):
            logger.log(EPOCHS)
    logger.log(EPOCHS)
    assert mlflow_points(store_of(run)) == ALL_POINTS


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log_start(MLflow(saved_run(tmp_path)), EPOCHS)
    assert capfd.readouterr() == ("", "")
