"""Fixtures that several test modules share."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from brats.labels import REGIONS, TISSUE_FULL_NAMES, TISSUES, Region
from tests.support import BUSY_MACHINE
from tests.support.fault_cluster import Machines, machines
from tests.support.s3 import FaultyProxy, S3Server

for name, value in {**BUSY_MACHINE, "RAY_raylet_start_wait_time_s": "120"}.items():  # Ray's own are 30
    os.environ.setdefault(name, value)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests come first: begun last, one would keep a single process busy to the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def embedded_ray() -> Iterator[None]:
    """One embedded Ray for all tests that need it: starting it takes seconds."""
    from brats.cluster import connect as cluster

    with cluster.connected():
        yield


@pytest.fixture(scope="module")
def cluster() -> Iterator[Machines]:
    """A cluster of two machines beside a head without CPUs."""
    with machines() as cluster:
        yield cluster


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=200k tmpfs {folder} 2>/dev/null"):
        pytest.skip("a file system of a given size needs root")
    try:
        yield folder
    finally:
        os.system(f"umount {folder}")


@pytest.fixture
def resection_cavity(monkeypatch: pytest.MonkeyPatch) -> int:
    """A fourth tissue, and a fourth region that is this tissue alone; its label."""
    label = max(TISSUES.values()) + 1
    region = Region(labels=(label,), label=label, full_name="resection cavity", colour="#009E73", marker="D")
    monkeypatch.setitem(TISSUES, "rc", label)
    monkeypatch.setitem(TISSUE_FULL_NAMES, "rc", "resection cavity")
    monkeypatch.setitem(REGIONS, "RC", region)
    return label


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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One S3 server for all tests that need it."""
    with S3Server() as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket in an S3 that the environment, of child processes too, makes everybody's."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server.make_bucket(f"test-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests to S3 are soon made again, for ten seconds at most."""
    from brats.storage import s3

    monkeypatch.setattr(s3, "FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("BRATS_S3_PATIENCE_S", "10")


@pytest.fixture
def s3_proxy(s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy that plays faults before the S3 of `s3_bucket`; the environment points to it."""
    assert s3_bucket
    with FaultyProxy(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture
def long_cases(s3_bucket: str, s3_proxy: FaultyProxy) -> str:
    """A prepared dataset in S3 with two cases, "a" and "b", whose footers are of the size of real ones."""
    import numpy as np

    from brats.data.slices import open_slices
    from tests.support.prepared import write_prepared
    from tests.support.volumes import case_of

    shape = (9, 8, 150)
    for number, case_id in enumerate(("a", "b")):
        voxels = np.random.default_rng(number).integers(1, 500, (4, *shape), np.int16)
        voxels[:, ::8, ::7, ::149] = 0  # the corners, which name the background
        flair, t1, t1ce, t2 = voxels
        labels = np.ones(shape, np.uint8)
        write_prepared(s3_bucket, [case_of(case_id, labels, flair=flair, t1=t1, t1ce=t1ce, t2=t2)])
    s3_proxy.forget()
    open_slices.cache_clear()
    return s3_bucket
