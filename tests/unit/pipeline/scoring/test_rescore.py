"""Scoring the masks of a prediction again, its steps run in this process: what is added, kept, said and refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from brats import storage
from brats.config import EvaluateConfig
from brats.data.cases import DEFAULT_HDF5
from brats.data.items import find_items
from brats.data.masks import MASK, masks_path, read_masks, write_masks
from brats.data.predicted import Prediction
from brats.errors import BratsError, ConfigError
from brats.pipeline.scoring import rescore as module
from brats.pipeline.scoring.check import check_evaluation
from brats.pipeline.scoring.evaluate import evaluate
from brats.score.results import Results
from brats.score.tables import CASE_METRICS
from tests.support.in_process import run_in_process
from tests.support.predictions import ADDED, MODALITIES, forget, read_part, write_prediction
from tests.support.synthetic import write_case, write_cases

TABLES = ("cases", "slices", "notebook", "lesions", "summary")


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    run_in_process(monkeypatch, module)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three predicted cases, one of which has no segmentation, as today's program leaves them."""
    root = tmp_path_factory.mktemp("finished")
    write_cases(root / "data", 2, shape=(20, 18, 8), radius=3)
    write_case(str(root / "data"), "unlabelled", shape=(20, 18, 8), radius=3, labelled=False)
    write_prediction(root / "data", root / "out")
    return root


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    """The same, moved, and with the columns of an earlier version."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    config["execution"]["data"] = str(tmp_path / "data")
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    forget(tmp_path / "out")
    return tmp_path


def run(root: Path, **options: Any) -> Results:
    return evaluate(check_evaluation(EvaluateConfig(predictions=str(root / "out"), **options)))


def tables(out: Path) -> dict[str, pd.DataFrame]:
    return {name: pd.read_parquet(out / "metrics" / f"{name}.parquet") for name in TABLES}


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_tables_of_an_earlier_version_become_those_of_today(root: Path, finished: Path) -> None:
    assert tables(root / "out")["cases"][list(ADDED)].isna().all(axis=None)
    results = run(root)
    assert (results.n_cases, results.rejects) == (3, [])
    for name, expected in tables(finished / "out").items():
        pd.testing.assert_frame_equal(tables(root / "out")[name], expected, check_exact=True)
    for case_id in ("case_00", "case_01", "unlabelled"):
        parts = [read_part(folder / "out" / "parts" / f"{case_id}.json") for folder in (root, finished)]
        for part in parts:
            del part["sources"]  # their paths are those of the copy
        assert parts[0] == parts[1]
    assert contents(root / "out" / "masks") == contents(finished / "out" / "masks")


def test_configuration_in_the_tables_and_that_of_the_folder_stay(root: Path) -> None:
    before = (root / "out" / "config.json").read_bytes()
    path = str(root / "out" / "metrics" / "cases.parquet")
    kind = CASE_METRICS
    expected = storage.read_metadata(storage.read_table(path, kind).schema, path, kind)["config"]
    run(root)
    assert storage.read_metadata(storage.read_table(path, kind).schema, path, kind)["config"] == expected
    assert (root / "out" / "config.json").read_bytes() == before


def test_cases_that_have_every_metric_are_left_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(root)
    before = contents(root / "out")
    storage.remove(masks_path(str(root / "out"), "case_00"))  # it would be missed
    run(root)
    assert "without a segmentation, so without scores: unlabelled" in capsys.readouterr().out
    assert {name: content for name, content in before.items() if name != "masks/case_00.parquet"} == contents(
        root / "out"
    )


def test_interrupted_rerun_goes_on_with_the_cases_that_are_left(root: Path, finished: Path) -> None:
    shutil.copy(finished / "out" / "parts" / "case_00.json", root / "out" / "parts" / "case_00.json")
    storage.remove(masks_path(str(root / "out"), "case_00"))
    assert run(root).rejects == []
    assert tables(root / "out")["cases"].assd_mm.notna().all()


def test_elsewhere_all_cases_are_scored_and_the_prediction_is_only_read(root: Path, finished: Path) -> None:
    before = contents(root / "out")
    results = run(root, out=str(root / "scores"))
    assert results.n_cases == 2
    assert contents(root / "out") == before
    for name in ("cases", "notebook", "lesions", "summary"):
        pd.testing.assert_frame_equal(
            tables(root / "scores")[name], tables(finished / "out")[name], check_exact=True
        )


def test_references_may_lie_elsewhere_and_without_images(root: Path, finished: Path) -> None:
    (root / "references").mkdir()
    for path in (root / "data").rglob("*_seg.nii.gz"):
        path.rename(root / "references" / path.name)
    shutil.rmtree(root / "data")
    with pytest.raises(
        ConfigError, match=r"--references: the cases of the prediction are not .*/data: no such folder"
    ):
        run(root)
    run(root, references=str(root / "references"))
    pd.testing.assert_frame_equal(tables(root / "out")["cases"], tables(finished / "out")["cases"])


def test_case_that_gets_a_reference_later_gets_its_scores(root: Path, tmp_path: Path) -> None:
    write_case(str(tmp_path / "new"), "unlabelled", shape=(20, 18, 8), radius=3)
    shutil.copy(
        tmp_path / "new" / "unlabelled" / "unlabelled_seg.nii.gz",
        root / "data" / "unlabelled" / "unlabelled_seg.nii.gz",
    )
    run(root)
    scores = tables(root / "out")["cases"].set_index(["case_id", "region"])
    assert scores.loc["unlabelled"].dice.tolist() == [0, 0, 0]
    assert scores.loc[("unlabelled", "TC"), ["hd95_mm", "assd_mm"]].tolist() == [373.13, 373.13]


def test_score_that_differs_from_the_mask_fails_by_name_and_the_other_cases_are_completed(root: Path) -> None:
    path = masks_path(str(root / "out"), "case_00")
    labels = read_masks(path).copy()
    labels[0, 0, 0] = 1
    write_masks(str(root / "out"), "case_00", labels)
    before = (root / "out" / "parts" / "case_00.json").read_bytes()
    with pytest.raises(
        BratsError, match=r"scores of 1 case are not those of the masks; the first: case_00: .*dice of"
    ):
        run(root)
    assert (root / "out" / "parts" / "case_00.json").read_bytes() == before
    scores = tables(root / "out")["cases"].set_index("case_id")
    assert scores.loc["case_01", "assd_mm"].notna().all()
    assert scores.loc["case_00", "assd_mm"].isna().all()
    assert scores.loc["case_00", "dice"].notna().all()


def test_masks_that_cannot_be_used_are_named_and_the_other_cases_are_completed(root: Path) -> None:
    path = masks_path(str(root / "out"), "case_00")
    table = storage.read_table(path, MASK)
    newer = storage.TableKind(name=MASK.name, version=2, schema=MASK.schema)
    storage.write_table(path, newer, table)
    (reject,) = run(root).rejects
    assert str(reject) == (
        f"case_00: {path}: 'mask' of version 2, this program reads 1; make it again, in a new folder"
    )
    storage.write_table(path, MASK, table.slice(0, 0))
    assert "damaged" in str(run(root).rejects[0])
    storage.write_table(path, MASK, table.slice(0, 5))
    assert "has shape (20, 18, 5), the reference (20, 18, 8)" in str(run(root).rejects[0])
    write_masks(str(root / "out"), "case_00", np.full((20, 18, 8), 4, np.uint8))
    assert "has the label 4, a mask of predict.py 0 to 3" in str(run(root).rejects[0])
    storage.remove(path)
    assert "no such mask; predict the case again" in str(run(root).rejects[0])
    assert tables(root / "out")["cases"].set_index("case_id").loc["case_00", "dice"].notna().all()
    with pytest.raises(BratsError, match=r"1 rejected case \(--strict\)"):
        run(root, strict=True)


def test_nothing_that_can_be_scored_is_a_failure(root: Path) -> None:
    for path in (root / "out" / "masks").iterdir():
        path.unlink()
    shutil.rmtree(root / "data" / "unlabelled")
    with pytest.raises(BratsError, match=r"none of 2 cases could be scored; the first: case_00: .*no such mask"):
        run(root)


def test_prediction_that_was_interrupted_is_scored_as_far_as_it_came(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(root / "out" / "metrics")
    (root / "out" / "parts" / "case_01.json").unlink()
    results = run(root)
    said = capsys.readouterr().out
    assert "evaluate 2 cases predicted in " in said
    assert "not predicted, left out: case_01; the command that predicted the others does them" in said
    assert {*tables(root / "out")["cases"].case_id} == {"case_00"}
    assert results.n_cases == 2


def test_case_that_has_left_the_references_keeps_what_it_has(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(root / "data" / "case_01")
    run(root)
    assert "not among the references, not scored anew: case_01\n" in capsys.readouterr().out
    scores = tables(root / "out")["cases"].set_index("case_id")
    assert scores.loc["case_01", "dice"].notna().all()
    assert scores.loc["case_01", "assd_mm"].isna().all()


def test_case_that_was_left_out_of_the_tables_stays_out(root: Path) -> None:
    path = root / "out" / "parts" / "case_01.json"
    part = path.read_text().replace("case_01", "left_over")
    (root / "out" / "parts" / "left_over.json").write_text(part)
    run(root)
    assert {*tables(root / "out")["cases"].case_id} == {"case_00", "case_01"}


def test_prediction_without_any_reference_is_refused_elsewhere(root: Path, tmp_path: Path) -> None:
    write_cases(tmp_path / "others", 3, shape=(20, 18, 8), radius=3)
    for name in ("case_00", "case_01"):
        shutil.rmtree(tmp_path / "others" / name)
    with pytest.raises(BratsError, match="no predicted case has a reference to score it against"):
        run(root, references=str(tmp_path / "others"), out=str(tmp_path / "scores"))


def test_prediction_of_cases_without_segmentations_is_refused_elsewhere_and_has_nothing_to_add(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (root / "data").rglob("*_seg.nii.gz"):
        path.unlink()
    with pytest.raises(BratsError, match="no predicted case has a reference to score it against"):
        run(root, out=str(root / "scores"))
    run(root)
    said = capsys.readouterr().out
    assert "without a segmentation, so without scores: case_00, case_01, unlabelled\n" in said
    assert "every case with a reference has every metric: nothing to add\n" in said


def test_only_cases_of_the_predicted_split_are_missed(root: Path) -> None:
    prediction = Prediction(out="o", data=None, split="test", coding="auto", hdf5=DEFAULT_HDF5, run="")
    found = find_items(str(root / "data"), "", MODALITIES, "all")
    assert len(module.describe(prediction, {}, found, in_place=True)) == 1
