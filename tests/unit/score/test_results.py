"""From parts to the final tables, without Ray."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from brats import storage
from brats.data.items import Item, PreparedCase
from brats.data.rejects import Reject
from brats.errors import BratsError
from brats.labels import ED, ET, NCR
from brats.pipeline.predict import score_case
from brats.score.lesion_tables import LESIONS
from brats.score.parts import Part, read_parts, write_part
from brats.score.results import write_results
from brats.score.summary import SUMMARY
from brats.score.tables import CASE_METRICS, NOTEBOOK, SLICES, score_rows
from brats.score.uncertainty_tables import QU_BRATS, uncertainty_rows
from tests.support.prepared import tiny_case
from tests.support.uncertainty import constant_uncertainty

IDS = {"a", "b", "bad"}
KINDS = {
    "cases": CASE_METRICS,
    "slices": SLICES,
    "notebook": NOTEBOOK,
    "lesions": LESIONS,
    "summary": SUMMARY,
}
REJECT = Reject(case_id="bad", path="bad_t1.nii.gz", stage="read", reason="the file is empty")


def write_scored(out: Path, case_id: str) -> None:
    case = tiny_case(case_id)
    assert case.labels is not None
    source = PreparedCase(path="", voxel_hash="")
    item = Item(case_id=case_id, patient_id="p", split="test", source=source, sources=(), coding="brats2018")
    write_part(str(out), score_case(item, case, case.labels))


def part_without_et() -> Part:
    """A case of three slices whose ET is missed."""
    reference, predicted = np.zeros((3, 4, 4), np.uint8), np.zeros((3, 4, 4), np.uint8)
    reference[1, 1, :3] = [NCR, ED, ET]
    predicted[1, 1, :2] = [NCR, ED]
    rows: dict[str, Any] = score_rows(
        case_id="a",
        patient_id="p",
        split="test",
        reference=reference,
        predicted=predicted,
        spacing_shw_mm=(5.0, 1.0, 1.0),
        n_outside=52,
        first_slice=20,
        rules="gli",
    )
    return Part(case_id="a", **rows)


def test_written_tables_open_in_plain_pandas(tmp_path: Path) -> None:
    write_part(str(tmp_path), part_without_et())
    write_results(str(tmp_path), IDS, [], config={})
    for name, kind in KINDS.items():
        table = pd.read_parquet(tmp_path / "metrics" / f"{name}.parquet")
        assert list(table.columns) == kind.schema.names
        assert len(table) > 0
    cases = pd.read_parquet(tmp_path / "metrics" / "cases.parquet").set_index("region")
    assert cases["dice"].to_dict() == pytest.approx({"WT": 0.8, "TC": 2 / 3, "ET": 0})
    assert cases["precision"].isna().to_dict() == {"WT": False, "TC": False, "ET": True}


def test_written_tables_carry_configuration_and_conventions(tmp_path: Path) -> None:
    write_part(str(tmp_path), part_without_et())
    write_results(str(tmp_path), IDS, [], config={"model": "RUN"})
    for name, kind in KINDS.items():
        path = str(tmp_path / "metrics" / f"{name}.parquet")
        metadata = storage.read_metadata(storage.read_table(path, kind).schema, path, kind)
        assert metadata["config"] == {"model": "RUN"}
        assert metadata["conventions"] == kind.conventions


def test_tables_of_uncertainty_are_written_where_probabilities_are_known(tmp_path: Path) -> None:
    write_scored(tmp_path, "a")
    scores = write_results(str(tmp_path), IDS, [], config={})
    assert "look at these first" not in scores.summary()
    metrics = tmp_path / "metrics"
    assert {path.stem for path in metrics.iterdir()} == {*KINDS}
    for case_id, level in (("a", 100), ("b", 128)):
        write_scored(tmp_path, case_id)
        rows: dict[str, Any] = uncertainty_rows(case_id, "p", {"WT": constant_uncertainty(level=level)})
        part = dataclasses.replace(read_parts(str(tmp_path))[case_id], **rows)
        write_part(str(tmp_path), part)
    scores = write_results(str(tmp_path), IDS, [], config={})
    assert "\nlook at these first: b, a (most uncertain)\n" in scores.summary()
    write_scored(tmp_path, "bad")  # as a part of format 3: without uncertainty
    more = write_results(str(tmp_path), IDS, [], config={})
    assert "\nlook at these first: b, a (most uncertain of 2 of 3 cases, as an earlier " in more.summary()
    tables = {path.stem: pd.read_parquet(path) for path in metrics.iterdir()}
    assert tables["uncertainty"]["rank"].tolist() == [2, 1]
    assert len(tables["uncertainty_curves"]) == 2 * 41
    assert tables["ranking"]["n"].tolist() == [2, 0, 0]
    summary = tables["summary"]
    assert summary[summary.convention == "qu-brats"].metric.tolist() == [*QU_BRATS]


def test_the_summary_names_the_rules_by_which_lesions_were_scored(tmp_path: Path) -> None:
    write_scored(tmp_path, "a")
    write_scored(tmp_path, "BraTS-MET-00001-000")
    scores = write_results(str(tmp_path), {"a", "BraTS-MET-00001-000"}, [], config={})
    assert "\nlesions of 2023 by the rules of gli (1 case), met (1 case)\n" in scores.summary()
    lesions = pd.read_parquet(tmp_path / "metrics" / "lesions.parquet")
    assert set(lesions.case_id) == {"a", "BraTS-MET-00001-000"}


def test_cases_scored_before_there_were_scores_by_lesion_stay_in_the_tables_with_nulls(tmp_path: Path) -> None:
    part = part_without_et()
    before = [{name: row[name] for name in list(row)[:15]} for row in part.cases]
    assert "challenge_rules" not in before[0]
    write_part(str(tmp_path), dataclasses.replace(part, cases=before, lesions=[]))
    scores = write_results(str(tmp_path), IDS, [], config={})
    assert "rules" not in scores.summary()
    cases = pd.read_parquet(tmp_path / "metrics" / "cases.parquet").set_index("region")
    assert cases["dice"].to_dict() == pytest.approx({"WT": 0.8, "TC": 2 / 3, "ET": 0})
    assert cases["lesion_dice_2023"].isna().all()
    assert len(pd.read_parquet(tmp_path / "metrics" / "lesions.parquet")) == 0


def test_tables_hold_the_rows_of_every_part_and_every_reject(tmp_path: Path) -> None:
    for case_id in ("b", "a"):
        write_scored(tmp_path, case_id)
    write_part(str(tmp_path), Part(case_id="bad", reject=REJECT))
    found = Reject(case_id="aa", path="x", stage="find", reason="lacks t1")
    scores = write_results(str(tmp_path), IDS, [found], config={"seed": 3})
    assert list(pd.read_parquet(tmp_path / "metrics" / "cases.parquet").case_id.unique()) == ["a", "b"]
    assert list(pd.read_parquet(tmp_path / "rejects.parquet").case_id) == ["aa", "bad"]
    assert scores.n_cases == 2
    assert "rejected bad: bad_t1.nii.gz: the file is empty" in scores.summary()


def test_warnings_of_cases_are_in_their_parts_and_in_the_summary(tmp_path: Path) -> None:
    case = dataclasses.replace(tiny_case("a"), warnings=("a_t1.nii: odd",))
    item = Item(
        case_id="a", patient_id="p", split=None, source=PreparedCase(path="", voxel_hash=""), sources=(), coding=""
    )
    assert case.labels is not None
    write_part(str(tmp_path), score_case(item, case, case.labels))
    write_part(str(tmp_path), Part(case_id="b"))
    lines = write_results(str(tmp_path), IDS, [], config={}).summary().splitlines()
    assert [line for line in lines if line.startswith("  warning")] == ["  warning a: a_t1.nii: odd"]


def test_tables_do_not_depend_on_the_order_in_which_parts_were_written(tmp_path: Path) -> None:
    for folder, order in (("one", ("a", "b")), ("other", ("b", "a"))):
        for case_id in order:
            write_scored(tmp_path / folder, case_id)
        write_results(str(tmp_path / folder), IDS, [], config={})
    for name in KINDS:
        tables = [(tmp_path / folder / "metrics" / f"{name}.parquet").read_bytes() for folder in ("one", "other")]
        assert tables[0] == tables[1]


def test_cases_without_reference_give_empty_tables_and_say_so(tmp_path: Path) -> None:
    write_part(str(tmp_path), Part(case_id="a"))
    scores = write_results(str(tmp_path), IDS, [], config={})
    assert {
        name: len(pd.read_parquet(tmp_path / "metrics" / f"{name}.parquet")) for name in KINDS
    } == dict.fromkeys(KINDS, 0)
    assert "no case with a reference, so no scores" in scores.summary()


def test_rejects_alone_are_a_failure_that_names_the_first(tmp_path: Path) -> None:
    write_part(str(tmp_path), Part(case_id="bad", reject=REJECT))
    with pytest.raises(BratsError, match=r"no usable case; the first of 1 rejected: bad: bad_t1.nii.gz"):
        write_results(str(tmp_path), IDS, [], config={})
