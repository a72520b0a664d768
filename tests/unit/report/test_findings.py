"""What a folder has to report."""

from pathlib import Path

import pytest

from brats import storage
from brats.data.rejects import Reject
from brats.data.run_split import test_dir as predictions_of
from brats.errors import ConfigError, StorageError
from brats.model.hardware import record_start
from brats.report.findings import read_findings
from brats.score.results import write_results
from brats.score.tables import CASE_METRICS, metrics_path
from brats.storage import TableKind
from tests.support.drawing import make_case
from tests.support.prepared import MODALITIES
from tests.support.reports import predict_shifted, write_history_of, write_run
from tests.unit.model.test_hardware import CPU, ON_CPU, VERSIONS


def test_a_run_has_its_history_split_scores_and_masks(tmp_path: Path) -> None:
    reject = Reject(case_id="bad", path="p", stage="read", reason="r")
    run = write_run(tmp_path / "run", (0, 2), rejects=[reject])
    found = read_findings(run)
    assert found.job == "train"
    assert found.config["modalities"] == list(MODALITIES)
    assert found.config["data"] == found.data == f"{run}/prepared"
    assert len(found.histories[""]) == 3
    assert found.hardware == []  # of an earlier version
    assert [row["case_id"] for row in found.split] == ["trained_on", "case_0", "case_1"]
    assert found.predictions == dict.fromkeys(("case_0", "case_1"), f"{run}/test")
    assert set(found.case_table["case_id"]) == {"case_0", "case_1"}
    assert found.rejects == [reject]
    assert found.scores is not None
    assert found.scores.convention("cases", "dice").startswith("2 TP / (2 TP + FP + FN)")
    assert found.scores.convention("cases", "predicted_ml") == "voxels x voxel volume"


def test_a_run_before_its_prediction_has_no_scores(tmp_path: Path) -> None:
    write_history_of(tmp_path)
    found = read_findings(str(tmp_path))
    assert found.scores is None
    assert found.case_table.empty
    assert found.predictions == {}


def test_predictions_on_their_own_have_scores_and_no_epochs(tmp_path: Path) -> None:
    predict_shifted(str(tmp_path), make_case("a", MODALITIES), 1)
    write_results(str(tmp_path), {"a"}, [], config={})
    found = read_findings(str(tmp_path))
    assert found.histories == {}
    assert found.predictions == {"a": str(tmp_path)}
    assert found.job == found.data == ""


def test_folds_have_the_epochs_and_the_masks_of_a_cross_validation(tmp_path: Path) -> None:
    for fold in (0, 1):
        folder = tmp_path / f"fold_{fold}"
        write_history_of(folder)
        record_start(str(folder), 1, [CPU])
        predict_shifted(predictions_of(str(folder)), make_case(f"case_{fold}", MODALITIES), fold)
    predict_shifted(str(tmp_path / "elsewhere"), make_case("case_0", MODALITIES), 0)
    write_results(str(tmp_path / "elsewhere"), {"case_0"}, [], config={})
    content = storage.read_bytes(metrics_path(str(tmp_path / "elsewhere"), "cases"))
    storage.remove(str(tmp_path / "elsewhere"))
    storage.write_bytes(metrics_path(str(tmp_path), "cases"), content)
    found = read_findings(str(tmp_path))
    assert list(found.histories) == ["fold_0", "fold_1"]
    assert found.hardware == [f"1 worker on 1 machine, {ON_CPU}; {VERSIONS}"]
    assert found.predictions == {f"case_{fold}": f"{tmp_path}/fold_{fold}/test" for fold in (0, 1)}
    assert found.case_table["case_id"].unique().tolist() == ["case_0"]


@pytest.mark.parametrize("place", ["", "missing"])
def test_a_folder_without_results_is_named(tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigError, match=r"--run: .* has no history.parquet; give the --out of a finished train"):
        read_findings(str(tmp_path / place))


def test_a_table_of_another_version_is_named(tmp_path: Path) -> None:
    newer = TableKind(name=CASE_METRICS.name, version=99, schema=CASE_METRICS.schema)
    storage.write_table(metrics_path(str(tmp_path), "cases"), newer, newer.table([]))
    with pytest.raises(StorageError, match=r"cases.parquet: 'case metrics' of version 99"):
        read_findings(str(tmp_path))


def test_a_missing_table_is_empty(tmp_path: Path) -> None:
    storage.write_table(metrics_path(str(tmp_path), "cases"), CASE_METRICS, CASE_METRICS.table([]))
    scores = read_findings(str(tmp_path)).scores
    assert scores is not None
    assert scores.table("ranking").empty
    assert scores.convention("ranking", "n") == ""
