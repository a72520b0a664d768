"""Drawing the pictures of a run from its files."""

from pathlib import Path

import pytest

from brats import storage
from brats.config import ReportConfig, TrainConfig
from brats.data.dataset import PREPARED_CASES, cases_path, slices_path
from brats.data.items import Item, PreparedCase
from brats.data.run_split import SPLIT, choose_split, freeze_split, read_prepared, read_split, split_path
from brats.data.slices import encode_case
from brats.errors import ConfigError
from brats.model.history import HISTORY, write_history
from brats.pipeline.predict import write_case
from brats.pipeline.report import report
from brats.score.results import write_results
from brats.score.tables import CASE_METRICS, metrics_path
from tests.support.prepared import tiny_case


def write_run(run: Path) -> None:
    row = {**dict.fromkeys(HISTORY.schema.names, 0.5), "epoch": 1, "n_slices": 10}
    write_history(str(run), [row, {**row, "epoch": 2}], {})


def test_run_without_predictions_has_its_learning_curves(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert report(ReportConfig(run=str(tmp_path))) == [str(tmp_path / "figures" / "learning_curves.png")]


def test_run_with_predictions_has_cases_and_distributions_too(tmp_path: Path) -> None:
    write_run(tmp_path)
    prepared, predictions = str(tmp_path / "prepared"), str(tmp_path / "test")
    case = tiny_case("a")
    assert case.labels is not None
    storage.write_bytes(slices_path(prepared, "a"), encode_case(case)[0])
    source = PreparedCase(path="", voxel_hash="")
    item = Item(case_id="a", patient_id="p", split="test", source=source, sources=(), coding="brats2018")
    write_case(predictions, item, case, case.labels, nifti=False)
    write_results(predictions, {"a"}, [], config={})
    storage.write_table(split_path(str(tmp_path)), SPLIT, SPLIT.table([]), prepared=prepared)
    pictures = report(ReportConfig(run=str(tmp_path), out=str(tmp_path / "elsewhere")))
    assert sorted(Path(path).name for path in pictures) == [
        "case_best.png",
        "distributions.png",
        "learning_curves.png",
    ]
    assert all(Path(path).parent == tmp_path / "elsewhere" for path in pictures)
    assert all(Path(path).exists() for path in pictures)


def test_cases_are_read_from_where_the_dataset_was_moved(tmp_path: Path) -> None:
    row = {"patient_id": "p", "modalities": ["t1"], "source_hash": "ab", "fold": None, "tumour_per_slice": [1]}
    rows = [{**row, "case_id": split, "split": split} for split in ("train", "val")]
    run = str(tmp_path / "run")
    for prepared in (str(tmp_path / "first"), str(tmp_path / "moved")):
        storage.write_table(cases_path(prepared), PREPARED_CASES, PREPARED_CASES.table(rows))
        split = choose_split(TrainConfig(modalities=("t1",), out=run), run, prepared)
        freeze_split(run, split, prepared)
        assert read_prepared(run) == prepared
        assert read_split(run) == split


def test_missing_prepared_cases_are_named(tmp_path: Path) -> None:
    write_run(tmp_path)
    row = {"case_id": "a", "region": "WT", "dice": 0.5}
    storage.write_table(metrics_path(str(tmp_path / "test"), "cases"), CASE_METRICS, CASE_METRICS.table([row]))
    storage.write_table(split_path(str(tmp_path)), SPLIT, SPLIT.table([]), prepared=str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match=r"gone: the prepared cases of .* are gone"):
        report(ReportConfig(run=str(tmp_path)))


def test_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"--run: .* has no history.parquet; give the --out of a finished train.py"
    ):
        report(ReportConfig(run=str(tmp_path)))
