"""The checks before a job starts. Those of several machines are in test_two_gpus."""

from pathlib import Path

import pytest
import ray

from brats.cluster import preflight
from brats.cluster.preflight import ask_machines, check_cluster, check_disk, report_machine, wait_for_lost_nodes
from brats.errors import BratsError, ConfigError, StorageError

WRITTEN = ".check-1"


def probe_in(folder: Path) -> str:
    path = folder / WRITTEN
    path.write_text(str(path))
    return str(path)


def test_machine_that_sees_everything_has_no_complaint(tmp_path: Path) -> None:
    assert report_machine(probe_in(tmp_path), {"--data": str(tmp_path)}).complaint == ""
    assert report_machine(probe_in(tmp_path), {}).complaint == ""


def test_machine_that_does_not_see_the_output_folder_says_so(tmp_path: Path) -> None:
    complaint = report_machine(str(tmp_path / "elsewhere" / WRITTEN), {}).complaint
    assert complaint == (
        f"--out: {tmp_path}/elsewhere is not the folder that the job writes to; name a folder that all machines "
        "share, or an s3:// URL"
    )


def test_machine_with_another_folder_of_that_name_says_so(tmp_path: Path) -> None:
    (tmp_path / WRITTEN).write_text("of another job")
    assert (
        "holds something else here than the driver wrote" in report_machine(str(tmp_path / WRITTEN), {}).complaint
    )


def test_machine_that_does_not_see_what_is_to_be_read_says_so(tmp_path: Path) -> None:
    complaint = report_machine(probe_in(tmp_path), {"--model": str(tmp_path / "cases")}).complaint
    assert complaint.startswith(f"--model: {tmp_path}/cases is not there")


def test_full_disk_is_said_with_what_is_free_and_what_is_needed(tmp_path: Path) -> None:
    check_disk(str(tmp_path), 1)
    with pytest.raises(StorageError, match=rf"^{tmp_path}: \S+ GB free on its disk, about 1e\+09 GB are needed"):
        check_disk(str(tmp_path / "not" / "there" / "yet"), 10**18)


def test_remote_folders_have_no_disk_to_look_at() -> None:
    check_disk("s3://bucket/run", 10**18)


@pytest.mark.ray
@pytest.mark.usefixtures("embedded_ray")
def test_cluster_that_is_fit_for_the_job_passes_and_nothing_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "cases").mkdir()
    check_cluster({"--data": str(tmp_path / "cases")}, str(tmp_path / "out"), wait_minutes=0)
    (report,) = ask_machines(probe_in(tmp_path), {"--data": str(tmp_path)})
    assert report.complaint == ""
    wait_for_lost_nodes()
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.ray
@pytest.mark.usefixtures("embedded_ray")
def test_machine_with_a_complaint_ends_the_job_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = [*ray.nodes(), *ray.nodes()]  # a second machine that answers as the first
    monkeypatch.setattr(ray, "nodes", lambda: two)
    with pytest.raises(ConfigError, match=r"^machine \S+: --data: .*/cases is not there; name a folder that all"):
        check_cluster({"--data": str(tmp_path / "cases")}, str(tmp_path / "out"), wait_minutes=0)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.ray
@pytest.mark.usefixtures("embedded_ray")
def test_case_that_is_too_large_for_every_machine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "CASE_MEMORY_BYTES", 2**50)
    with pytest.raises(BratsError, match="no machine of the cluster has the 1048576 GiB that reading a case takes"):
        check_cluster({"--data": None}, str(tmp_path), wait_minutes=0)
