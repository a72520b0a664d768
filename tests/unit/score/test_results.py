"""From parts to the final tables, without Ray."""

from pathlib import Path

import pandas as pd
import pytest

from brats.data.items import Item, PreparedCase
from brats.data.rejects import Reject
from brats.errors import BratsError
from brats.pipeline.predict import score_case
from brats.score.parts import Part, write_part
from brats.score.results import write_tables
from tests.support.prepared import tiny_case

IDS = {"a", "b", "bad"}
REJECT = Reject(case_id="bad", path="bad_t1.nii.gz", stage="read", reason="the file is empty")


def write_scored(out: Path, case_id: str) -> None:
    case = tiny_case(case_id)
    assert case.labels is not None
    source = PreparedCase(path="", voxel_hash="")
    item = Item(case_id=case_id, patient_id="p", split="test", source=source, source_bytes=1)
    write_part(str(out), score_case(item, case, case.labels))


def test_tables_hold_the_rows_of_every_part_and_every_reject(tmp_path: Path) -> None:
    for case_id in ("b", "a"):
        write_scored(tmp_path, case_id)
    write_part(str(tmp_path), Part(case_id="bad", source_bytes=1, reject=REJECT))
    found = Reject(case_id="aa", path="x", stage="find", reason="lacks t1")
    scores = write_tables(str(tmp_path), IDS, [found], config={"seed": 3}, strict=False)
    assert list(pd.read_parquet(tmp_path / "metrics" / "cases.parquet").case_id.unique()) == ["a", "b"]
    assert list(pd.read_parquet(tmp_path / "rejects.parquet").case_id) == ["aa", "bad"]
    assert scores.n_cases == 2
    assert "rejected bad: bad_t1.nii.gz: the file is empty" in scores.summary()


def test_tables_do_not_depend_on_the_order_in_which_parts_were_written(tmp_path: Path) -> None:
    for folder, order in (("one", ("a", "b")), ("other", ("b", "a"))):
        for case_id in order:
            write_scored(tmp_path / folder, case_id)
        write_tables(str(tmp_path / folder), IDS, [], config={}, strict=False)
    for name in ("cases", "slices", "notebook", "summary"):
        tables = [(tmp_path / folder / "metrics" / f"{name}.parquet").read_bytes() for folder in ("one", "other")]
        assert tables[0] == tables[1]


def test_cases_without_reference_give_empty_tables_and_say_so(tmp_path: Path) -> None:
    write_part(str(tmp_path), Part(case_id="a", source_bytes=1))
    scores = write_tables(str(tmp_path), IDS, [], config={}, strict=False)
    assert len(pd.read_parquet(tmp_path / "metrics" / "cases.parquet")) == 0
    assert "no case with a reference, so no scores" in scores.summary()


def test_rejects_alone_are_a_failure_that_names_the_first(tmp_path: Path) -> None:
    write_part(str(tmp_path), Part(case_id="bad", source_bytes=1, reject=REJECT))
    with pytest.raises(BratsError, match=r"no usable case; the first of 1 rejected: bad: bad_t1.nii.gz"):
        write_tables(str(tmp_path), IDS, [], config={}, strict=False)
