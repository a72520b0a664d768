"""Preparing a dataset while machines, workers and drivers are killed: it ends as if nothing had happened.

A start takes most of the time, so one dataset meets most faults (`struck`), and the tests look at it.
"""

import io
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.support.fault_cluster import (
    Job,
    Machines,
    Struck,
    Watcher,
    done_before,
    machines,
    modified,
    rows,
    wait_for,
)
from tests.support.s3 import FaultyProxy, S3Server
from tests.support.synthetic import write_cases

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800)]  # `struck` counts as its first test

N_CASES = 22
STEP = "Map(prepare_case)"
STOPS = (signal.SIGTERM, signal.SIGINT)
AWAY_S = 10.0


@pytest.fixture(scope="module")
def store(s3_server: S3Server) -> Iterator[FaultyProxy]:
    """The S3 that this module's cluster works with."""
    with FaultyProxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def cluster(s3_server: S3Server, store: FaultyProxy) -> Iterator[Machines]:
    """A cluster of two machines beside a head without CPUs."""
    with machines(2, s3_server.environment(store.endpoint)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cases of a size that takes a few tenths of a second each: time enough to strike."""
    root = tmp_path_factory.mktemp("cases")
    write_cases(root, N_CASES, shape=(96, 96, 48), no_et_every=3)
    return root


def start(cases: Path, out: Path, cluster: Machines) -> Job:
    return Job("prepare", ["--data", str(cases), "--out", str(out)], cluster.address)


def await_cases(job: Job, out: Path, more: int) -> None:
    """Wait until so many more cases are done."""
    so_far = len(modified(out / "slices"))
    job.wait_for(lambda: len(modified(out / "slices")) >= so_far + more, f"{more} cases more")


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
    # hidden ones too: nothing is left over
    assert sorted(path.name for path in (out / "slices").iterdir()) == names
    for name in names:
        assert (out / "slices" / name).read_bytes() == (undisturbed / "slices" / name).read_bytes(), name


@pytest.fixture(scope="module")
def watcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watcher]:
    """Opens every table of `struck` as soon as it appears."""
    with Watcher(tmp_path_factory.mktemp("struck")) as watcher:
        yield watcher


@pytest.fixture(scope="module")
def struck(cases: Path, cluster: Machines, watcher: Watcher) -> Struck:
    """A dataset on which one fault after another struck."""
    run = Struck(watcher.folder / "out")

    def begin(fault: str, where: Machines = cluster) -> Job:
        run.kept[fault] = modified(run.out / "slices")
        return start(cases, run.out, where)

    with machines(1) as first:
        job = begin("head lost", first)
        await_cases(job, run.out, 2)
    run.note("head lost", job, job.end())

    job = begin("driver killed")
    await_cases(job, run.out, 2)
    job.kill()
    run.note("driver killed", job, -signal.SIGKILL)

    for number in STOPS:
        job = begin(number.name)
        await_cases(job, run.out, 1)
        run.note(number.name, job, job.stop(number))

    job = begin("worker and machine lost")
    await_cases(job, run.out, 1)
    job.wait_for(lambda: cluster.workers(STEP), "a case being prepared")[0].kill()
    job.wait_for_line("a process died")
    victim = job.wait_for(lambda: cluster.workers(STEP), "a case being prepared")[0]
    cluster.remove(cluster.node_of(victim))
    run.note("worker and machine lost", job, job.end())
    return run


def test_dataset_is_that_of_an_undisturbed_run(struck: Struck, undisturbed: Path) -> None:
    assert_same_dataset(struck.out, undisturbed)


def test_every_start_does_only_the_cases_that_are_missing(struck: Struck) -> None:
    finished = modified(struck.out / "slices")
    n_kept = [len(kept) for kept in struck.kept.values()]
    assert n_kept == sorted(n_kept)
    assert 0 < n_kept[1] < n_kept[-1] < N_CASES
    for fault, kept in struck.kept.items():
        assert done_before(struck.said[fault]) >= len(kept)
        assert {name: finished[name] for name in kept} == kept


def test_no_table_is_ever_half_there(struck: Struck, watcher: Watcher) -> None:
    wait_for(lambda: len(watcher.opened) == N_CASES + 2, f"the tables of {struck.out} to be opened")
    assert watcher.broken == []


def test_lost_worker_and_lost_machine_cost_only_their_cases(struck: Struck) -> None:
    assert struck.status["worker and machine lost"] == 0
    assert "a process died" in struck.said["worker and machine lost"]
    assert "lost the machine" in struck.said["worker and machine lost"]


@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
def test_job_stopped_while_it_writes_says_so(struck: Struck, number: signal.Signals) -> None:
    """By `ray job stop`, which sends SIGTERM, and by Ctrl-C."""
    assert struck.status[number.name] == 1
    last = struck.said[number.name].splitlines()[-1]
    assert last == "prepare.py: stopped; the same command keeps what is finished and does the rest"


def test_lost_head_ends_the_job_and_another_cluster_goes_on(struck: Struck) -> None:
    assert struck.status["head lost"] != 0
    assert len(struck.kept["driver killed"]) >= 2


def test_no_fault_leaves_a_traceback_on_the_console(struck: Struck) -> None:
    assert struck.tracebacks == []


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of a given size needs root")
def test_disk_that_is_full_lets_the_cases_that_fit_finish_and_the_rest_after_it_is_freed(
    cases: Path, undisturbed: Path, cluster: Machines, tmp_path: Path
) -> None:
    """The disk fills while the job runs: what is known to be too small before is refused at the start."""
    cluster.keep(2)
    small = tmp_path / "small"
    small.mkdir()
    sizes = [path.stat().st_size for path in (undisturbed / "slices").iterdir()]
    sources = sum(path.stat().st_size for path in cases.rglob("*.nii.gz"))
    if os.system(f"mount -t tmpfs -o size={sources + 2 * sum(sizes)} tmpfs {small} 2>/dev/null"):
        pytest.skip("no file system can be mounted here")
    slices = small / "out" / "slices"
    try:
        job = start(cases, small / "out", cluster)
        job.wait_for(lambda: modified(slices), "the first case")
        with (small / "of_others").open("wb") as others:
            os.posix_fallocate(others.fileno(), 0, shutil.disk_usage(small).free - 3 * max(sizes))
        assert job.end() == 1
        last = job.said.splitlines()[-1]
        assert last.startswith("prepare.py: ")
        assert "no space left on the disk; free some and run the same command again" in last
        assert "Traceback" not in job.said
        assert 0 < len(modified(slices)) < N_CASES
        assert not list(small.rglob(".partial-*"))
        (small / "of_others").unlink()
        again = start(cases, small / "out", cluster)
        again.succeed()
        print(f"\ndisk full: {job.seconds:.1f} s until the job gave up, {again.seconds:.1f} s for the second start")
        assert_same_dataset(small / "out", undisturbed)
    finally:
        os.system(f"umount {small}")


def test_store_that_is_away_for_a_while_is_waited_for(
    cases: Path, undisturbed: Path, cluster: Machines, s3_server: S3Server, store: FaultyProxy
) -> None:
    cluster.keep(2)
    out = s3_server.make_bucket("faults") + "/out"
    job = Job("prepare", ["--data", str(cases), "--out", out], cluster.address)
    job.wait_for(lambda: store.count("PUT", "slices") >= 2, "two cases")
    store.be_away(AWAY_S)
    job.succeed()
    print(f"\nstore away for {AWAY_S:.0f} s: {job.seconds:.1f} s in all\n{job.said}")
    assert store.turned_away > 0
    objects = {key.removeprefix("out/"): content for key, content in s3_server.objects("faults").items()}
    slices = {key: content for key, content in objects.items() if key.startswith("slices/")}
    assert slices == {f"slices/{path.name}": path.read_bytes() for path in (undisturbed / "slices").iterdir()}
    assert rows(io.BytesIO(objects["cases.parquet"])).equals(rows(undisturbed / "cases.parquet"))
