"""The report of a folder: its pictures and its page, whatever the folder has and lacks."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brats import storage
from brats.config import ReportConfig, TrainConfig
from brats.data.dataset import PREPARED_CASES, cases_path, slices_path
from brats.data.items import Item, PreparedCase
from brats.data.masks import masks_path, write_masks
from brats.data.run_split import SPLIT, choose_split, freeze_split, read_prepared, read_split, split_path
from brats.data.run_split import test_dir as predictions_of
from brats.data.slices import encode_case
from brats.errors import ConfigError
from brats.model.history import HISTORY, write_history
from brats.pipeline.predict import write_case
from brats.pipeline.report import MASKS_ELSEWHERE, NOTHING_PREDICTED, page_of, report
from brats.score.parts import Part, write_part
from brats.score.results import write_results
from brats.score.tables import CASE_METRICS, metrics_path
from tests.support.drawing import make_case
from tests.support.prepared import MODALITIES, tiny_case
from tests.support.reports import predict_shifted, write_run


def write_epochs(run: Path) -> None:
    row = {**dict.fromkeys(HISTORY.schema.names, 0.5), "epoch": 1, "n_slices": 10}
    write_history(str(run), [row, {**row, "epoch": 2}], {})


def test_run_without_predictions_has_its_learning_curves(tmp_path: Path) -> None:
    write_epochs(tmp_path)
    assert report(ReportConfig(run=str(tmp_path))) == [str(tmp_path / "figures" / "learning_curves.png")]
    assert NOTHING_PREDICTED in (tmp_path / "report" / "index.html").read_text()


def test_run_with_predictions_has_cases_and_distributions_too(tmp_path: Path) -> None:
    write_epochs(tmp_path)
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
        "volumes.png",
    ]
    assert all(Path(path).parent == tmp_path / "elsewhere" for path in pictures)
    assert all(Path(path).exists() for path in pictures)
    assert (tmp_path / "elsewhere" / "index.html").exists()


def test_figures_are_written_in_the_formats_asked_for_and_shown_in_the_page_all_the_same(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", (0,), probabilities=True)
    names = ("learning_curves", "distributions", "volumes", "uncertainty", "case_best", "reliability")
    assert report(ReportConfig(run=run, figures=("pdf",))) == [f"{run}/figures/{name}.pdf" for name in names]
    assert {path.name for path in Path(run, "figures").iterdir()} == {f"{name}.pdf" for name in names}
    assert Path(page_of(ReportConfig(run=run))).read_text().count("data:image/png;base64,") >= 2


def test_figures_are_the_same_when_drawn_again_and_with_other_formats(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", (0,), probabilities=True)
    first = {path: storage.read_bytes(path) for path in report(ReportConfig(run=run, figures=("pdf", "png")))}
    again = report(ReportConfig(run=run, figures=("pdf",)))
    assert again == [path for path in first if path.endswith(".pdf")]
    assert {path: storage.read_bytes(path) for path in first} == first


def test_reliability_is_drawn_of_the_cases_of_the_viewer(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", (0, 1), probabilities=True)
    assert f"{run}/figures/reliability.png" not in report(ReportConfig(run=run, cases=0))


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
    write_epochs(tmp_path)
    row = {"case_id": "a", "region": "WT", "dice": 0.5}
    storage.write_table(metrics_path(str(tmp_path / "test"), "cases"), CASE_METRICS, CASE_METRICS.table([row]))
    storage.write_table(split_path(str(tmp_path)), SPLIT, SPLIT.table([]), prepared=str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match=r"gone: the prepared cases of .* are gone .*index\.html has the rest"):
        report(ReportConfig(run=str(tmp_path)))
    assert "1 case with a reference" in (tmp_path / "report" / "index.html").read_text()


def test_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"--run: .* has no history.parquet; give the --out of a finished train.py"
    ):
        report(ReportConfig(run=str(tmp_path)))


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page alone: drawing the pictures of the cases takes seconds."""
    monkeypatch.setattr("brats.pipeline.report.draw_figures", lambda *_: iter(()))


@pytest.mark.usefixtures("without_pictures")
def test_worst_median_and_best_are_in_the_page_and_the_others_beside_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", (0, 1, 2, 3, 4))
    page = make_page(run)
    data = page_data(page)
    assert [case["title"].rpartition(" ")[2] for case in data["cases"][:3]] == ["worst", "median", "best"]
    assert [case["id"] for case in data["cases"]] == ["case_4", "case_2", "case_0", "case_3", "case_1"]
    assert [case["file"] for case in data["cases"]] == [None] * 3 + ["cases/case_3.view.gz", "cases/case_1.view.gz"]
    assert sorted(path.name for path in Path(page).parent.joinpath("cases").iterdir()) == [
        "case_1.view.gz",
        "case_3.view.gz",
    ]


@pytest.mark.usefixtures("without_pictures")
def test_a_report_made_again_leaves_no_case_of_the_one_before_and_no_other_file_alone(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", (0, 1, 2, 3))
    report(ReportConfig(run=run))
    cases = tmp_path / "run" / "report" / "cases"
    (cases / "mine.nii.gz").write_text("mine")
    page = make_page(run, cases=3)
    assert [path.name for path in cases.iterdir()] == ["mine.nii.gz"]
    assert "1 of 4 cases are not in the viewer: --cases 3" in Path(page).read_text()


@pytest.mark.usefixtures("without_pictures")
def test_a_page_without_room_has_its_cases_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brats.report.viewer.PAGE_LIMIT_BYTES", 0)
    page = make_page(write_run(tmp_path / "run", (0, 1)))
    assert [case["inline"] for case in page_data(page)["cases"]] == [None, None]
    assert len(list(Path(page).parent.joinpath("cases").iterdir())) == 2


def test_predictions_on_their_own_have_a_page(tmp_path: Path) -> None:
    out = predictions_of(write_run(tmp_path / "run", (0, 1)))
    pictures, page = report(ReportConfig(run=out)), page_of(ReportConfig(run=out))
    assert [Path(path).name for path in pictures] == ["distributions.png", "volumes.png"]
    html = Path(page).read_text()
    assert "no config.json" in html  # which would name the cases
    assert 'id="case-table"' in html


@pytest.mark.usefixtures("without_pictures")
def test_cases_without_a_reference_are_viewed_without_scores(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_run(run, ())
    case = make_case("new", MODALITIES)
    storage.write_bytes(slices_path(str(run / "prepared"), "new"), encode_case(replace(case, labels=None))[0])
    write_masks(predictions_of(str(run)), "new", np.zeros(case.grid.shape, np.uint8))
    write_part(predictions_of(str(run)), Part(case_id="new"))
    write_results(predictions_of(str(run)), {"new"}, [], config={})
    page = make_page(str(run))
    assert [found["title"] for found in page_data(page)["cases"]] == ["new, no reference"]
    assert "Nothing is scored here" in Path(page).read_text()


@pytest.mark.usefixtures("without_pictures")
def test_a_case_whose_mask_has_another_grid_is_named_and_the_others_are_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", (0, 1, 2, 3))
    write_masks(predictions_of(run), "case_2", np.zeros((4, 5, 6), np.uint8))
    page = make_page(run)
    assert len(page_data(page)["cases"]) == 3
    assert "case_2: not in the viewer: " in Path(page).read_text()


def test_a_case_to_draw_whose_mask_has_another_grid_is_named_once_the_page_is_written(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", (0,))
    write_masks(predictions_of(run), "case_0", np.zeros((4, 5, 6), np.uint8))
    with pytest.raises(
        ConfigError, match=r"case_0.parquet: shape \(4, 5, 6\), .*; predict it again; .* has the rest"
    ):
        report(ReportConfig(run=run))
    assert (tmp_path / "run" / "report" / "index.html").exists()


def test_masks_of_other_programs_are_said_to_stay_in_their_files(tmp_path: Path) -> None:
    predict_shifted(str(tmp_path), make_case("a", MODALITIES), 1)
    write_results(str(tmp_path), {"a"}, [], config={})
    storage.remove(masks_path(str(tmp_path), "a"))
    storage.write_json(str(tmp_path / "config.json"), {"job": "evaluate", "result": {}, "execution": {}})
    page = make_page(str(tmp_path))
    assert MASKS_ELSEWHERE in Path(page).read_text()


def make_page(run: str, cases: int = 40) -> str:
    """Report on a folder; the path of the page."""
    config = ReportConfig(run=run, cases=cases)
    report(config)
    return page_of(config)


def page_data(page: str) -> dict[str, Any]:
    """What the viewer of a page is given."""
    found = re.findall(r'id="report-data">(.*?)</script>', Path(page).read_text())
    viewer: dict[str, Any] = json.loads(found[0])["viewer"]
    return viewer
