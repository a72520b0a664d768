"""The table of rejects, and what `--strict` makes of it."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from brats.data.rejects import Reject, check_rejects, read_rejects, write_rejects
from brats.errors import BratsError, CaseError

REJECT = Reject(case_id="a", path="/x/a_t1.nii.gz", stage="read", reason="the file is empty")


def test_rejects_come_back_as_written(tmp_path: Path) -> None:
    write_rejects(str(tmp_path), [REJECT])
    assert read_rejects(str(tmp_path)) == [REJECT]
    assert list(pd.read_parquet(tmp_path / "rejects.parquet").reason) == ["the file is empty"]


def test_no_rejects_leave_an_empty_table(tmp_path: Path) -> None:
    write_rejects(str(tmp_path), [])
    assert len(pd.read_parquet(tmp_path / "rejects.parquet")) == 0


def test_unchanged_rejects_are_not_written_again(tmp_path: Path) -> None:
    write_rejects(str(tmp_path), [REJECT])
    before = (tmp_path / "rejects.parquet").stat().st_mtime_ns
    write_rejects(str(tmp_path), [REJECT])
    assert (tmp_path / "rejects.parquet").stat().st_mtime_ns == before


@dataclass(frozen=True)
class Result:
    """A result of a job."""

    rejects: list[Reject]

    def summary(self) -> str:
        return "all that was found"


def test_strict_names_the_first_reject_after_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    check_rejects(Result([REJECT]), strict=False)
    check_rejects(Result([]), strict=True)
    assert capsys.readouterr().out == ""
    with pytest.raises(BratsError, match=r"1 rejected case.*a: /x/a_t1.nii.gz: the file is empty"):
        check_rejects(Result([REJECT]), strict=True)
    assert capsys.readouterr().out == "all that was found\n"


@pytest.mark.parametrize("transient", [True, False])
def test_a_reject_keeps_all_that_a_case_error_says(transient: bool) -> None:
    reject = Reject.from_error("case_1", "read", CaseError("x.nii", "empty", transient=transient))
    assert reject == Reject(case_id="case_1", path="x.nii", stage="read", reason="empty", transient=transient)


def test_a_reject_names_the_case_then_the_file_then_the_reason() -> None:
    assert str(Reject(case_id="case_1", path="x.nii", stage="read", reason="empty")) == "case_1: x.nii: empty"
    assert str(Reject(case_id="case_1", path="", stage="find", reason="lacks t1")) == "case_1: lacks t1"
