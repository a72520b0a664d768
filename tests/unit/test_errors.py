"""Errors and rejects: what they say, and that they survive the way between processes."""

import pickle

import pytest

from brats.errors import BratsError, CaseError, ConfigError, Reject, StorageError


def test_every_error_of_this_project_is_a_brats_error() -> None:
    assert all(issubclass(kind, BratsError) for kind in (ConfigError, StorageError, CaseError))


def test_a_case_error_names_the_file_and_the_reason() -> None:
    error = CaseError("/data/x.nii.gz", "truncated: 3 of 9 bytes are missing")
    assert str(error) == "/data/x.nii.gz: truncated: 3 of 9 bytes are missing"
    assert not error.transient


def test_a_case_error_about_the_whole_case_is_the_reason_alone() -> None:
    assert str(CaseError("", "no flair")) == "no flair"


def test_a_case_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(CaseError("x", "read error", transient=True)))
    assert (error.path, error.reason, error.transient) == ("x", "read error", True)
    assert str(error) == "x: read error"


@pytest.mark.parametrize("transient", [True, False])
def test_a_reject_keeps_all_that_a_case_error_says(transient: bool) -> None:
    reject = Reject.from_error("case_1", "read", CaseError("x.nii", "empty", transient=transient))
    assert reject == Reject(case_id="case_1", path="x.nii", stage="read", reason="empty", transient=transient)


def test_a_reject_names_the_case_then_the_file_then_the_reason() -> None:
    assert str(Reject(case_id="case_1", path="x.nii", stage="read", reason="empty")) == "case_1: x.nii: empty"
    assert str(Reject(case_id="case_1", path="", stage="find", reason="lacks t1")) == "case_1: lacks t1"
