"""Training while workers, machines and drivers are killed or stopped: at most one epoch is done twice.

A start takes most of the time of a training, so one run meets most faults (`struck`), and the tests look at it.
"""

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brats.model.checkpoint import load_checkpoint, saved_epochs
from tests.support.fault_cluster import Job, Machines, Struck, machines
from tests.support.synthetic import write_cases
from tests.support.training import OPTIONS, n_planned

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]  # `struck` counts as its first test

EPOCHS = 8
WORKER = "RayTrainWorker"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Machines]:
    """Two machines, each with room for one worker."""
    with machines(2, cpus=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def prepared(cluster: Machines, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_cases(root / "cases", 14, shape=(32, 30, 14), no_et_every=4)
    Job("prepare", ["--data", str(root / "cases"), "--out", str(root / "out")], cluster.address).succeed()
    return root / "out"


def start(prepared: Path, out: Path, cluster: Machines, *options: str) -> Job:
    paths = ["--data", str(prepared), "--out", str(out)]
    fixed = ["--epochs", str(EPOCHS), "--workers", "2", "--wait-minutes", "1", "--no-predict"]
    return Job("train", [*paths, *OPTIONS, *fixed, *options], cluster.address)


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, cluster: Machines, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "undisturbed"
    job = start(prepared, out, cluster)
    job.succeed()
    print(f"\nundisturbed: {job.seconds:.1f} s")
    return out


def epochs_said(said: str) -> list[int]:
    return [int(epoch) for epoch in re.findall(rf"^train +epoch (\d+)/{EPOCHS}  loss ", said, re.M)]


def await_epoch(job: Job) -> None:
    job.wait_for(lambda: epochs_said(job.said), "an epoch")


def resumed_after(said: str) -> int:
    """The epoch after which a start went on at first, 0 where it began anew."""
    found = re.search(r"resuming after epoch (\d+)", said)
    return int(found[1]) if found else 0


@pytest.fixture(scope="module")
def struck(prepared: Path, cluster: Machines, tmp_path_factory: pytest.TempPathFactory) -> Struck:
    out = tmp_path_factory.mktemp("run") / "struck"
    run = Struck(out)
    job = start(prepared, out, cluster, "--max-failures", "1")
    await_epoch(job)
    first = cluster.workers(WORKER)
    first[-1].kill()
    job.wait_for_line("restart 1 of at most 1")
    job.wait_for(lambda: [one for one in cluster.workers(WORKER) if one not in first], "a new worker")[-1].kill()
    run.note("restarts used up", job, job.end())

    job = start(prepared, out, cluster)
    await_epoch(job)
    job.kill()
    run.note("driver killed", job, -signal.SIGKILL)

    job = start(prepared, out, cluster)
    next_epoch = out / "checkpoints" / f"epoch_{max(saved_epochs(str(out))) + 1:05d}"
    job.wait_for(next_epoch.exists, f"{next_epoch.name} to be written")
    run.note("Ctrl-C", job, job.stop(signal.SIGINT))

    job = start(prepared, out, cluster)
    await_epoch(job)
    cluster.workers(WORKER)[-1].kill()
    run.note("worker killed", job, job.end())
    return run


def test_killed_worker_is_replaced_and_the_job_goes_on(struck: Struck) -> None:
    said = struck.said["worker killed"]
    assert struck.status["worker killed"] == 0, said
    assert re.search(r"^train +training worker \d died.*; restart 1 of at most 3", said, re.M)
    assert epochs_said(said)[-1] == EPOCHS
    assert len(epochs_said(said)) <= EPOCHS - resumed_after(said) + 1


def test_job_whose_restarts_are_used_up_fails_in_one_line(struck: Struck) -> None:
    assert struck.status["restarts used up"] == 1
    last = struck.said["restarts used up"].splitlines()[-1]
    assert re.fullmatch(r"train\.py: .*; the same command goes on after the last finished epoch", last), last


def test_job_stopped_while_it_writes_says_so(struck: Struck) -> None:
    """By Ctrl-C, as a checkpoint folder has just appeared."""
    assert struck.status["Ctrl-C"] == 1
    assert (
        struck.said["Ctrl-C"].splitlines()[-1]
        == "train.py: stopped; the same command keeps what is finished and does the rest"
    )


def test_no_fault_leaves_a_traceback_on_the_console(struck: Struck) -> None:
    assert struck.tracebacks == []


def test_every_start_goes_on_after_the_last_epoch_that_was_reported(struck: Struck) -> None:
    reported = 0
    for said in struck.said.values():
        assert resumed_after(said) >= reported
        reported = epochs_said(said)[-1] if epochs_said(said) else reported


def assert_whole_history(run: Path) -> None:
    """Every epoch once, with every slice of its plan."""
    history = pd.read_parquet(run / "history.parquet")
    assert list(history.epoch) == list(range(1, EPOCHS + 1))
    assert list(history.n_slices) == [n_planned(run, epoch) for epoch in history.epoch]


def test_every_epoch_is_whole_and_once_in_the_history(struck: Struck) -> None:
    assert_whole_history(struck.out)


def test_weights_are_those_of_an_undisturbed_run(struck: Struck, undisturbed: Path) -> None:
    ours, theirs = (load_checkpoint(str(path), EPOCHS) for path in (struck.out, undisturbed))
    assert ours is not None
    assert theirs is not None
    for name, weight in theirs.weights.items():
        np.testing.assert_allclose(ours.weights[name].numpy(), weight.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


def test_machine_gone_for_good_leaves_the_other_one_to_finish_with_the_same_batches(
    prepared: Path, cluster: Machines, tmp_path: Path
) -> None:
    cluster.keep(2)
    job = start(prepared, tmp_path / "run", cluster)
    await_epoch(job)
    cluster.remove(cluster.node_of(cluster.workers(WORKER)[-1]))
    struck_at = time.monotonic()
    job.wait_for(lambda: len(epochs_said(job.said)) > 1, "an epoch after it")
    print(f"\nmachine lost: {time.monotonic() - struck_at:.1f} s to the end of an epoch")
    said = job.succeed()
    print(f"{job.seconds:.1f} s in all\n{said}")
    assert "lost the machine" in said
    assert re.search(r"^train +.*; restart 1 of at most 3", said, re.M)
    assert re.search(r"1 CPU worker; .* resuming after epoch", said)
    assert len(epochs_said(said)) <= EPOCHS + 1
    assert_whole_history(tmp_path / "run")
