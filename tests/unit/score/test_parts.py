"""The part of a case: written, read, and when it counts as done."""

from pathlib import Path

import pandas as pd

from brats.data.rejects import Reject
from brats.score.parts import Part, is_done, read_parts, write_part

ROW = {"case_id": "a", "region": "WT", "dice": 0.5, "sensitivity": None}


def test_parts_come_back_as_written_in_the_order_of_their_ids(tmp_path: Path) -> None:
    second = Part(case_id="b", source_bytes=7, cases=[ROW], slices=[{"dice": 1.0}], notebook=[{"value": 0.9}])
    reject = Reject(case_id="a", path="a.nii", stage="read", reason="empty", transient=True)
    first = Part(case_id="a", source_bytes=3, reject=reject)
    for part in (second, first):
        write_part(str(tmp_path), part)
    assert list(read_parts(str(tmp_path)).items()) == [
        ("a", Part(case_id="a", source_bytes=3, reject=reject, cases=[], slices=[], notebook=[])),
        ("b", second),
    ]


def test_no_folder_has_no_parts(tmp_path: Path) -> None:
    assert read_parts(str(tmp_path / "nothing")) == {}


def test_unfinished_files_are_not_parts(tmp_path: Path) -> None:
    write_part(str(tmp_path), Part(case_id="a", source_bytes=1))
    (tmp_path / "parts" / ".partial-x.parquet").write_bytes(b"half")
    assert list(read_parts(str(tmp_path))) == ["a"]


def test_pandas_reads_a_part(tmp_path: Path) -> None:
    write_part(str(tmp_path), Part(case_id="a", source_bytes=1, cases=[ROW]))
    assert list(pd.read_parquet(tmp_path / "parts" / "a.parquet").kind) == ["source", "cases"]


def test_case_is_done_unless_its_files_changed_or_its_reject_may_pass() -> None:
    passing = Reject(case_id="a", path="", stage="read", reason="", transient=True)
    staying = Reject(case_id="a", path="", stage="read", reason="")
    assert not is_done(None, 5)
    assert is_done(Part(case_id="a", source_bytes=5), 5)
    assert not is_done(Part(case_id="a", source_bytes=5), 6)
    assert is_done(Part(case_id="a", source_bytes=5, reject=staying), 5)
    assert not is_done(Part(case_id="a", source_bytes=5, reject=passing), 5)
