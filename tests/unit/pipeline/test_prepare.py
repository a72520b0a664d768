"""Prepared cases that are no longer found: which they are, and when the folder is taken for another one."""

import pytest

from brats.data.cases import FoundCases
from brats.data.rejects import Reject
from brats.errors import ConfigError
from brats.pipeline.prepare import find_gone
from tests.support.volumes import files_of

REJECT = Reject(case_id="c", path="", stage="find", reason="lacks t1")


def found(*case_ids: str) -> FoundCases:
    """A folder with these cases, and the case c, which cannot be used."""
    return FoundCases(cases=tuple(files_of(["t1"], case_id) for case_id in case_ids), rejects=(REJECT,), unused=())


def test_case_that_is_there_is_not_gone_whether_it_can_be_used_or_not() -> None:
    assert find_gone({"a", "b", "c"}, found("a", "b", "new"), "/data", "/out") == []


def test_up_to_half_of_the_cases_may_be_gone() -> None:
    assert find_gone({"a", "b", "c", "d"}, found("a"), "/data", "/out") == ["b", "d"]


def test_folder_without_most_of_the_cases_is_taken_for_another() -> None:
    with pytest.raises(ConfigError) as refused:
        find_gone({*"abcdefgh"}, found("a"), "/data", "/out")
    assert str(refused.value) == (
        "--data: /data lacks 6 of the 8 cases that /out was made from (b, d, e and 3 more); name the folder that "
        "holds them, or choose another --out"
    )
