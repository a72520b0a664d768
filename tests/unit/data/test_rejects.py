"""The table of rejects, and what `--strict` makes of it."""

from pathlib import Path

import pandas as pd
import pytest

from brats.data.rejects import check_rejects, read_rejects, write_rejects
from brats.errors import BratsError, Reject

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


def test_strict_names_the_first_reject() -> None:
    check_rejects([REJECT], strict=False)
    check_rejects([], strict=True)
    with pytest.raises(BratsError, match=r"1 rejected case.*a: /x/a_t1.nii.gz: the file is empty"):
        check_rejects([REJECT], strict=True)
