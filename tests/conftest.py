"""Fixtures that several test modules share."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def embedded_ray() -> Iterator[None]:
    """One embedded Ray for all tests that need it: starting it takes seconds."""
    from brats.pipeline import cluster

    with cluster.connected():
        yield


@pytest.fixture(scope="session")
def real_data_dir() -> str:
    """Folder of real BraTS cases, from BRATS_REAL_DATA."""
    path = os.environ.get("BRATS_REAL_DATA")
    if not path:
        pytest.skip("BRATS_REAL_DATA does not name a folder of real BraTS cases")
    return path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread for torch: sums in one order, and no waiting for a busy second core in tiny networks."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
