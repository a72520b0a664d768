"""What the command line of a job finds around it."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRATS_DATA", raising=False)
    monkeypatch.delenv("BRATS_STORAGE", raising=False)
    monkeypatch.setenv("MPLCONFIGDIR", "/kept")  # set, so that what a job sets is undone
    monkeypatch.setattr(sys, "argv", ["/some/where/job.py"])
