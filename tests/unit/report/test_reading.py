"""The cases of a report, read and packed."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from brats import storage
from brats.config import PredictConfig
from brats.data.dataset import slices_path
from brats.errors import BratsError, CaseError
from brats.report.findings import Findings, Scores, read_findings
from brats.report.reading import (
    Viewed,
    case_reader,
    roles,
    view_case,
    viewing_order,
    with_figures,
    without_file,
)
from tests.support.reports import write_run
from tests.support.synthetic import write_case


def scored(dice: dict[str, float], predicted: str) -> Findings:
    rows = [{"case_id": name, "region": "WT", "dice": value} for name, value in dice.items()]
    scores = Scores(tables={"cases": pd.DataFrame(rows)}, conventions={})
    return Findings(folder="", scores=scores, predictions=dict.fromkeys(predicted, "/p"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return read_findings(write_run(tmp_path_factory.mktemp("run") / "run", (0, 3), probabilities=True))


def test_the_viewer_begins_with_worst_median_and_best_then_the_worst_of_the_others() -> None:
    found = scored({"a": 0.9, "b": 0.1, "c": 0.5, "d": 0.2, "e": 0.7}, "abcdexy")
    assert roles(found) == {"worst": "b", "median": "c", "best": "a"}
    assert viewing_order(found) == ["b", "c", "a", "d", "e", "x", "y"]


def test_cases_without_a_mask_are_not_viewed() -> None:
    found = scored({"a": 0.9, "b": 0.1, "c": 0.5}, "bx")
    assert roles(found) == {"best": "b"}
    assert viewing_order(found) == ["b", "x"]


def test_without_scores_cases_are_in_the_order_of_their_ids() -> None:
    found = Findings(folder="", predictions={"b": "/p", "a": "/p"})
    assert viewing_order(found) == ["a", "b"]


def test_a_case_of_a_run_is_packed_with_its_score_and_its_worst_slice(run: Findings) -> None:
    viewed = view_case(run, case_reader(run), "case_1", "worst")
    assert isinstance(viewed, Viewed)
    assert viewed.case.title.startswith("case_1, Dice 0.")
    assert viewed.case.packed is not None
    assert viewed.case.n_bytes == len(viewed.case.packed)
    assert viewed.example is not None
    assert not viewed.example.title.endswith("worst")  # which the caption says
    assert viewed.example.panel.startswith("data:image/png;base64,")
    assert set(viewed.calibration) == {"WT", "TC", "ET"}
    assert without_file(viewed).case.packed is None


def test_a_case_without_a_role_has_no_picture(run: Findings) -> None:
    viewed = view_case(run, case_reader(run), "case_0", "")
    assert isinstance(viewed, Viewed)
    assert viewed.example is None


def test_a_case_whose_prepared_file_has_gone_is_told(tmp_path: Path) -> None:
    found = read_findings(write_run(tmp_path / "run", (0,)))
    storage.remove(slices_path(found.data, "case_0"))
    told = view_case(found, case_reader(found), "case_0", "")
    assert isinstance(told, str)
    assert told.startswith("not in the viewer: ")
    assert "case_0.parquet" in told


def predicted_from_files(data: Path) -> Findings:
    config = PredictConfig(model="/gone", data=str(data), out="/out")
    return Findings(
        folder="/out", job="predict", config={"model": config.model, "data": config.data}, data=config.data
    )


def test_cases_of_folders_are_read_from_their_files(tmp_path: Path) -> None:
    write_case(str(tmp_path), "BraTS20_Training_001")
    read = case_reader(predicted_from_files(tmp_path))
    assert list(read("BraTS20_Training_001").images) == ["flair", "t1", "t1ce", "t2"]
    with pytest.raises(CaseError, match="its files have gone"):
        read("BraTS20_Training_002")


def test_modalities_are_those_of_the_run_that_made_the_model(tmp_path: Path, run: Findings) -> None:
    write_case(str(tmp_path), "BraTS20_Training_001")
    found = predicted_from_files(tmp_path)
    read = case_reader(replace(found, config={**found.config, "model": run.folder}))
    assert list(read("BraTS20_Training_001").images) == ["flair", "t1ce"]


def test_without_a_configuration_the_viewer_does_not_know_the_cases() -> None:
    with pytest.raises(BratsError, match=r"no config\.json"):
        case_reader(Findings(folder="/out"))


def test_examples_take_the_figures_of_their_role(run: Findings) -> None:
    viewed = view_case(run, case_reader(run), "case_1", "worst")
    assert isinstance(viewed, Viewed)
    assert viewed.example is not None
    found = with_figures({"worst": viewed.example, "best": viewed.example}, {"worst": "data:figure"})
    assert [example.figure for example in found.values()] == ["data:figure", ""]
