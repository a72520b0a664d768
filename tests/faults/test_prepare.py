"""Preparing a dataset while machines, workers and drivers are killed: it ends as if nothing had happened."""

import io
import os
import shutil
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.support.fault_cluster import Job, Machines, Watcher, machines, rows
from tests.support.s3 import FaultyProxy, S3Server
from tests.support.synthetic import write_cases

pytestmark = pytest.mark.ray

N_CASES = 24
STEP = "Map(prepare_case)"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cases of a size that takes a few tenths of a second each: time enough to strike."""
    root = tmp_path_factory.mktemp("cases")
    write_cases(root, N_CASES, shape=(96, 96, 48), no_et_every=3)
    return root


def start(cases: Path, out: Path, cluster: Machines) -> Job:
    return Job("prepare", ["--data", str(cases), "--out", str(out)], cluster.address)


def n_prepared(out: Path) -> int:
    return len(list(out.glob("slices/[!.]*.parquet")))


@pytest.fixture(scope="module")
def undisturbed(cases: Path, cluster: Machines, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    job = start(cases, out, cluster)
    job.succeed()
    print(f"\nundisturbed: {job.seconds:.1f} s")
    return out


def assert_same_dataset(out: Path, undisturbed: Path) -> None:
    assert rows(out / "cases.parquet").equals(rows(undisturbed / "cases.parquet"))
    assert len(pd.read_parquet(out / "rejects.parquet")) == 0
    names = sorted(path.name for path in (undisturbed / "slices").iterdir())
    assert len(names) == N_CASES
    assert (
        sorted(path.name for path in (out / "slices").iterdir()) == names
    )  # hidden ones too: nothing is left over
    for name in names:
        assert (out / "slices" / name).read_bytes() == (undisturbed / "slices" / name).read_bytes(), name


def test_machine_lost_while_preparing_loses_nothing(
    cases: Path, undisturbed: Path, cluster: Machines, tmp_path: Path
) -> None:
    cluster.keep(2)
    with Watcher(tmp_path) as watcher:
        job = start(cases, tmp_path / "out", cluster)
        job.wait_for(lambda: n_prepared(tmp_path / "out") >= 2, "two cases")
        victim = job.wait_for(lambda: cluster.workers(STEP), "a case being prepared")[0]
        cluster.remove(cluster.node_of(victim))
        struck = time.monotonic()
        job.succeed()
    print(f"\nmachine lost: {job.seconds:.1f} s in all, {time.monotonic() - struck:.1f} s after it")
    print(job.said)
    assert "lost the machine" in job.said
    assert watcher.broken == []
    assert len(watcher.opened) == N_CASES + 2
    assert_same_dataset(tmp_path / "out", undisturbed)


def test_killed_worker_costs_only_its_case(
    cases: Path, undisturbed: Path, cluster: Machines, tmp_path: Path
) -> None:
    cluster.keep(2)
    with Watcher(tmp_path) as watcher:
        job = start(cases, tmp_path / "out", cluster)
        job.wait_for(lambda: n_prepared(tmp_path / "out") >= 2, "two cases")
        job.wait_for(lambda: cluster.workers(STEP), "a case being prepared")[0].kill()
        job.succeed()
    print(f"\nworker killed: {job.seconds:.1f} s in all")
    print(job.said)
    assert "a process died" in job.said
    assert watcher.broken == []
    assert_same_dataset(tmp_path / "out", undisturbed)


def test_killed_driver_goes_on_with_the_cases_that_are_missing(
    cases: Path, undisturbed: Path, cluster: Machines, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with Watcher(tmp_path) as watcher:
        job = start(cases, out, cluster)
        job.wait_for(lambda: n_prepared(out) >= 2, "two cases")
        job.kill()
        kept = {path.name: path.stat().st_mtime_ns for path in out.glob("slices/[!.]*.parquet")}
        assert len(kept) < N_CASES
        said = start(cases, out, cluster).succeed()
    assert watcher.broken == []
    done_before = int(said.split(" done before")[0].split()[-1])
    assert done_before >= len(kept)
    assert all((out / "slices" / name).stat().st_mtime_ns == time for name, time in kept.items())
    assert_same_dataset(out, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_job_stopped_while_it_writes_says_so_and_goes_on(
    number: int, cases: Path, undisturbed: Path, cluster: Machines, tmp_path: Path
) -> None:
    """By `ray job stop`, which sends SIGTERM, and by Ctrl-C."""
    out = tmp_path / "out"
    with Watcher(tmp_path) as watcher:
        job = start(cases, out, cluster)
        job.wait_for(lambda: n_prepared(out), "a case")
        assert job.stop(number) == 1
        assert job.said.splitlines()[-1] == "prepare.py: stopped; the same command goes on from here"
        assert "Traceback" not in job.said
        start(cases, out, cluster).succeed()
    assert watcher.broken == []
    assert_same_dataset(out, undisturbed)


def test_head_lost_between_two_jobs_does_not_matter(cases: Path, undisturbed: Path, tmp_path: Path) -> None:
    """The first cluster vanishes with the job on it; another one, with another head, finishes the dataset."""
    out = tmp_path / "out"
    with machines(1) as first:
        job = start(cases, out, first)
        job.wait_for(lambda: n_prepared(out) >= 2, "two cases")
    gone = time.monotonic()
    assert job.end() != 0
    print(f"\nhead lost: the job ended {time.monotonic() - gone:.1f} s later and said:\n{job.said}")
    assert "Traceback" not in job.said
    assert n_prepared(out) < N_CASES
    with machines(1) as second:
        again = start(cases, out, second)
        again.succeed()
    print(f"{again.seconds:.1f} s for the second start, on another cluster")
    assert_same_dataset(out, undisturbed)


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of a given size needs root")
def test_disk_that_is_full_lets_the_cases_that_fit_finish_and_the_rest_after_it_is_freed(
    cases: Path, undisturbed: Path, cluster: Machines, tmp_path: Path
) -> None:
    """The disk fills while the job runs: what is known to be too small before is refused at the start."""
    small = tmp_path / "small"
    small.mkdir()
    sizes = [path.stat().st_size for path in (undisturbed / "slices").iterdir()]
    sources = sum(path.stat().st_size for path in cases.rglob("*.nii.gz"))
    if os.system(f"mount -t tmpfs -o size={sources + 2 * sum(sizes)} tmpfs {small} 2>/dev/null"):
        pytest.skip("no file system can be mounted here")
    try:
        job = start(cases, small / "out", cluster)
        job.wait_for(lambda: n_prepared(small / "out"), "the first case")
        with (small / "of_others").open("wb") as others:
            os.posix_fallocate(others.fileno(), 0, shutil.disk_usage(small).free - 3 * max(sizes))
        assert job.end() == 1
        last = job.said.splitlines()[-1]
        assert last.startswith("prepare.py: ")
        assert "no space left on the disk; free some and run the same command again" in last
        assert "Traceback" not in job.said
        assert 0 < n_prepared(small / "out") < N_CASES
        assert not list(small.rglob(".partial-*"))
        (small / "of_others").unlink()
        again = start(cases, small / "out", cluster)
        again.succeed()
        print(f"\ndisk full: {job.seconds:.1f} s until the job gave up, {again.seconds:.1f} s for the second start")
        assert_same_dataset(small / "out", undisturbed)
    finally:
        os.system(f"umount {small}")


@pytest.mark.slow
def test_store_that_is_away_for_half_a_minute_is_waited_for(cases: Path, undisturbed: Path) -> None:
    away_s = 30.0
    with S3Server() as server, FaultyProxy(server.endpoint) as proxy:
        out = server.make_bucket("faults") + "/out"
        with machines(2, server.environment(proxy.endpoint)) as cluster:
            job = Job("prepare", ["--data", str(cases), "--out", out], cluster.address)
            job.wait_for(lambda: proxy.count("PUT", "slices") >= 2, "two cases")
            proxy.be_away(away_s)
            job.succeed()
        print(f"\nstore away for {away_s:.0f} s: {job.seconds:.1f} s in all\n{job.said}")
        assert job.seconds > away_s
        objects = {key.removeprefix("out/"): content for key, content in server.objects("faults").items()}
    slices = {key: content for key, content in objects.items() if key.startswith("slices/")}
    assert slices == {f"slices/{path.name}": path.read_bytes() for path in (undisturbed / "slices").iterdir()}
    assert rows(io.BytesIO(objects["cases.parquet"])).equals(rows(undisturbed / "cases.parquet"))
