"""Fixtures that several test modules share."""

import os

import pytest


@pytest.fixture(scope="session")
def real_data_dir() -> str:
    """Folder of real BraTS cases, from BRATS_REAL_DATA."""
    path = os.environ.get("BRATS_REAL_DATA")
    if not path:
        pytest.skip("BRATS_REAL_DATA does not name a folder of real BraTS cases")
    return path
