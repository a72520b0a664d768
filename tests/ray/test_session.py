"""Ray sessions of jobs: what is checked, in which order, and what the block finds."""

from pathlib import Path

import pytest
import ray

from brats import storage
from brats.cluster.session import ready
from brats.errors import BratsError, ConfigError, StorageError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]


def test_the_block_runs_connected_with_an_output_folder_to_write_to(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ready({"--data": str(tmp_path), "--model": None}, str(out), 0):
        assert ray.is_initialized()
        assert list(out.iterdir()) == []


def test_an_output_folder_that_cannot_be_written_ends_the_job_before_ray_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("brats.cluster.session.connected", None)  # calling it would raise a TypeError
    with pytest.raises(StorageError, match="cannot write"), ready({}, str(tmp_path / "file" / "out"), 0):
        raise AssertionError


def test_a_mistyped_input_ends_the_job_before_ray_starts_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brats.cluster.session.connected", None)
    mistyped, out = tmp_path / "casse", tmp_path / "out"
    with (
        pytest.raises(ConfigError, match=f"^--data: {mistyped} does not exist$"),
        ready({"--model": None, "--data": str(mistyped)}, str(out), 0),
    ):
        raise AssertionError
    assert not out.exists()


def test_a_cluster_that_cannot_do_the_job_ends_it_before_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brats.cluster.preflight.CASE_MEMORY_BYTES", 2**50)
    with pytest.raises(BratsError, match="no machine of the cluster has"), ready({}, str(tmp_path), 0):
        raise AssertionError
    assert storage.list_files(str(tmp_path)) == []
