"""Predicting while machines, predictors and drivers are killed: every case once, as if nothing had happened.

A start takes most of the time, so one prediction meets most faults (`struck`), and the tests look at it.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest

from tests.support.bundles import save_undecided_bundle
from tests.support.fault_cluster import (
    POLL_S,
    Job,
    Machines,
    Struck,
    Watcher,
    done_before,
    modified,
    rows,
    wait_for,
)
from tests.support.synthetic import write_case, write_cases

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]  # `struck` counts as its first test

N_CASES = 24
PREDICTOR = "MapWorker(Map(Predictor))"
TABLES = ("cases", "slices", "notebook", "summary")
ALLOWED_BYTES = 1800 * 2**20  # of a predictor, for the player of the kernel: 1,050 for small cases, the giant 2,700


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_undecided_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cases")
    write_cases(root, N_CASES, shape=(96, 96, 48), no_et_every=3)
    return root


def start(bundle: Path, cases: Path, out: Path, cluster: Machines, *options: str) -> Job:
    paths = ["--model", str(bundle), "--data", str(cases), "--out", str(out)]
    return Job("predict", [*paths, "--precision", "fp32", *options], cluster.address)


def await_cases(job: Job, out: Path, more: int) -> None:
    """Wait until so many more cases are done."""
    so_far = len(modified(out / "parts"))
    job.wait_for(lambda: len(modified(out / "parts")) >= so_far + more, f"{more} cases more")


@pytest.fixture(scope="module")
def undisturbed(bundle: Path, cases: Path, cluster: Machines, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    job = start(bundle, cases, out, cluster)
    job.succeed()
    print(f"\nundisturbed: {job.seconds:.1f} s")
    return out


def assert_same_predictions(out: Path, undisturbed: Path) -> None:
    for name in TABLES:
        assert rows(out / "metrics" / f"{name}.parquet").equals(rows(undisturbed / "metrics" / f"{name}.parquet"))
    scored = pd.read_parquet(out / "metrics" / "cases.parquet")
    assert sorted(scored.case_id) == sorted([f"case_{number:02d}" for number in range(N_CASES)] * 3)  # WT, TC, ET
    assert len(pd.read_parquet(out / "rejects.parquet")) == 0
    names = sorted(path.name for path in (undisturbed / "masks").iterdir())
    assert sorted(path.name for path in (out / "masks").iterdir()) == names
    for name in names:
        assert rows(out / "masks" / name).equals(rows(undisturbed / "masks" / name)), name


@pytest.fixture(scope="module")
def watcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watcher]:
    """Opens every table of `struck` as soon as it appears."""
    with Watcher(tmp_path_factory.mktemp("struck")) as watcher:
        yield watcher


@pytest.fixture(scope="module")
def struck(bundle: Path, cases: Path, cluster: Machines, watcher: Watcher) -> Struck:
    """A prediction on which one fault after another struck."""
    run = Struck(watcher.folder / "out")

    def begin(fault: str, *options: str) -> Job:
        run.kept[fault] = modified(run.out / "parts")
        return start(bundle, cases, run.out, cluster, *options)

    job = begin("driver killed")
    await_cases(job, run.out, 2)
    job.kill()
    run.note("driver killed", job, -signal.SIGKILL)

    # Of three predictors one machine has two: on the other one they would take all of its CPUs.
    job = begin("predictor and machine lost", "--workers", "3")
    await_cases(job, run.out, 1)
    cluster.workers(PREDICTOR)[0].kill()
    await_cases(job, run.out, 1)
    cluster.remove(max(cluster.nodes, key=lambda node: len(cluster.workers(PREDICTOR, node))))
    run.note("predictor and machine lost", job, job.end())
    return run


def test_lost_predictor_and_lost_machine_cost_only_their_cases(struck: Struck) -> None:
    said = struck.said["predictor and machine lost"]
    assert struck.status["predictor and machine lost"] == 0, said
    assert "lost the machine" in said


def test_second_start_does_only_the_cases_that_are_missing(struck: Struck) -> None:
    kept = struck.kept["predictor and machine lost"]
    assert 2 <= len(kept) < N_CASES
    assert done_before(struck.said["predictor and machine lost"]) >= len(kept)
    finished = modified(struck.out / "parts")
    assert {name: finished[name] for name in kept} == kept


def test_predictions_are_those_of_an_undisturbed_run(struck: Struck, undisturbed: Path) -> None:
    assert_same_predictions(struck.out, undisturbed)


def test_no_table_is_ever_half_there(struck: Struck, watcher: Watcher) -> None:
    written = {str(path) for path in struck.out.rglob("*.parquet")}
    wait_for(lambda: written <= watcher.opened, f"the tables of {struck.out} to be opened")
    assert watcher.broken == []


def test_no_fault_leaves_a_traceback_on_the_console(struck: Struck) -> None:
    assert struck.tracebacks == []


@contextmanager
def out_of_memory_killer(cluster: Machines) -> Iterator[list[int]]:
    """Kills every predictor that takes more than `ALLOWED_BYTES`, as the kernel of a small machine would."""
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(POLL_S):
            for process in cluster.workers(PREDICTOR):
                with suppress(psutil.NoSuchProcess):
                    if process.pid not in killed and process.memory_info().rss > ALLOWED_BYTES:
                        killed.append(process.pid)
                        process.kill()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def test_case_that_fits_no_memory_is_rejected_while_the_others_finish(
    bundle: Path, cases: Path, undisturbed: Path, cluster: Machines, tmp_path: Path
) -> None:
    cluster.keep(2)
    out = tmp_path / "out"
    data = tmp_path / "data"
    data.mkdir()
    others = {f"case_{number:02d}" for number in range(4)}
    for name in others:
        os.symlink(cases / name, data / name)
    write_case(str(data), "a_giant", shape=(448, 448, 64), radius=20)
    with out_of_memory_killer(cluster) as killed:
        job = start(bundle, data, out, cluster, "--batch-size", "64")
        job.succeed()
    print(f"\n{len(killed)} predictors killed: {job.seconds:.1f} s in all\n{job.said}")
    assert len(killed) >= 3  # one may be struck while Ray hands it the case, which is no attempt yet
    (rejected,) = pd.read_parquet(out / "rejects.parquet").itertuples()
    assert (rejected.case_id, rejected.stage, rejected.transient) == ("a_giant", "predict", True)
    assert rejected.reason == (
        "predicting it killed 3 processes, most likely out of memory; "
        "use machines with more memory, or a smaller --batch-size"
    )
    assert f"rejected a_giant: {rejected.reason}" in job.said
    for name in ("cases", "slices"):
        ours, theirs = (pd.read_parquet(path / "metrics" / f"{name}.parquet") for path in (out, undisturbed))
        assert set(ours.case_id) == others
        pd.testing.assert_frame_equal(ours, theirs[theirs.case_id.isin(others)].reset_index(drop=True))
    start(bundle, data, out, cluster, "--batch-size", "4").succeed()
    assert set(modified(out / "parts")) == {*others, "a_giant"}
    assert len(pd.read_parquet(out / "rejects.parquet")) == 0
    assert (out / "masks" / "a_giant.parquet").exists()
