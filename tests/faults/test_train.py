"""Training while workers, machines and drivers are killed or stopped: at most one epoch is done twice."""

import re
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brats.data.epoch import TrainingCase, plan_epoch
from brats.model.checkpoint import load_checkpoint
from tests.support.fault_cluster import Job, Machines, machines
from tests.support.synthetic import write_cases

pytestmark = pytest.mark.ray

EPOCHS = 3
BATCH_SIZE = 8
WORKER = "RayTrainWorker"
OPTIONS = [
    *["--encoder", "tu-test_resnet", "--decoder-channels", *["8"] * 5],
    *["--epochs", str(EPOCHS), "--batch-size", str(BATCH_SIZE), "--micro-batch-size", "4"],
    *["--precision", "fp32", "--learning-rate", "3e-3", "--warmup-steps", "5"],
    *["--workers", "2", "--wait-minutes", "1", "--no-predict"],
]


@pytest.fixture(scope="module")
def prepared(cluster: Machines, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_cases(root / "cases", 14, shape=(32, 30, 14), no_et_every=4)
    Job("prepare", ["--data", str(root / "cases"), "--out", str(root / "out")], cluster.address).succeed()
    return root / "out"


def start(prepared: Path, out: Path, cluster: Machines) -> Job:
    return Job("train", ["--data", str(prepared), "--out", str(out), *OPTIONS], cluster.address)


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, cluster: Machines, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "undisturbed"
    job = start(prepared, out, cluster)
    job.succeed()
    print(f"\nundisturbed: {job.seconds:.1f} s")
    return out


def epochs_said(said: str) -> list[int]:
    return [int(epoch) for epoch in re.findall(rf"^train +epoch (\d+)/{EPOCHS} ", said, re.M)]


def n_planned(run: Path, epoch: int) -> int:
    """Slices that the plan of an epoch names: what the network must have seen of them."""
    split = pd.read_parquet(run / "split.parquet")
    training = split[split.split == "train"]
    batches = plan_epoch(
        [TrainingCase(row.case_id, tuple(row.tumour_per_slice)) for row in training.itertuples()],
        seed=0,
        epoch=epoch,
        batch_size=BATCH_SIZE,
        tumour_free_ratio=0.25,
    )
    return sum(len(batch.slices) for batch in batches)


def assert_whole_history(run: Path) -> None:
    """Every epoch once, with every slice of its plan."""
    history = pd.read_parquet(run / "history.parquet")
    assert list(history.epoch) == list(range(1, EPOCHS + 1))
    assert list(history.n_slices) == [n_planned(run, epoch) for epoch in history.epoch]


def assert_same_weights(run: Path, undisturbed: Path) -> None:
    ours, theirs = (load_checkpoint(str(path), EPOCHS) for path in (run, undisturbed))
    assert ours is not None
    assert theirs is not None
    for name, weight in theirs.weights.items():
        np.testing.assert_allclose(ours.weights[name].numpy(), weight.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_killed_worker_costs_at_most_an_epoch_and_leaves_the_weights_as_they_would_be(
    prepared: Path, undisturbed: Path, cluster: Machines, tmp_path: Path
) -> None:
    cluster.keep(2)
    job = start(prepared, tmp_path / "run", cluster)
    job.wait_for(lambda: epochs_said(job.said), "the first epoch")
    cluster.workers(WORKER)[-1].kill()
    said = job.succeed()
    print(f"\nworker killed: {job.seconds:.1f} s in all\n{said}")
    assert re.search(r"^train +training worker \d died.*; restart 1 of at most 3", said, re.M)
    assert "resuming after epoch" in said
    assert len(epochs_said(said)) <= EPOCHS + 1
    assert_whole_history(tmp_path / "run")
    assert_same_weights(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_machine_gone_for_good_leaves_the_other_one_to_finish_with_the_same_batches(
    prepared: Path, tmp_path: Path
) -> None:
    with machines(2, cpus=1) as cluster:  # each has room for one worker
        job = start(prepared, tmp_path / "run", cluster)
        job.wait_for(lambda: epochs_said(job.said), "the first epoch")
        cluster.remove(cluster.node_of(cluster.workers(WORKER)[-1]))
        struck = time.monotonic()
        job.wait_for(lambda: len(epochs_said(job.said)) > 1, "an epoch after it")
        print(f"\nmachine lost: {time.monotonic() - struck:.1f} s to the end of an epoch")
        said = job.succeed()
    print(f"{job.seconds:.1f} s in all\n{said}")
    assert "lost the machine" in said
    assert re.search(r"^train +.*; restart 1 of at most 3", said, re.M)
    assert re.search(r"1 CPU worker; .* resuming after epoch", said)
    assert len(epochs_said(said)) <= EPOCHS + 1
    assert_whole_history(tmp_path / "run")


@pytest.mark.slow
def test_killed_driver_started_again_ends_with_the_weights_of_an_undisturbed_run(
    prepared: Path, undisturbed: Path, cluster: Machines, tmp_path: Path
) -> None:
    cluster.keep(2)
    job = start(prepared, tmp_path / "run", cluster)
    job.wait_for(lambda: epochs_said(job.said), "the first epoch")
    job.kill()
    again = start(prepared, tmp_path / "run", cluster)
    said = again.succeed()
    print(f"\ndriver killed: {again.seconds:.1f} s for the second start\n{said}")
    assert "resuming after epoch" in said
    assert len(epochs_said(job.said) + epochs_said(said)) <= EPOCHS + 1
    assert_whole_history(tmp_path / "run")
    assert_same_weights(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_job_stopped_while_it_writes_says_so_and_goes_on(
    prepared: Path, undisturbed: Path, cluster: Machines, tmp_path: Path
) -> None:
    """By `ray job stop`, which sends SIGTERM, and by Ctrl-C, each as a checkpoint folder has just appeared."""
    cluster.keep(2)
    run = tmp_path / "run"
    for epoch, number in ((1, signal.SIGTERM), (2, signal.SIGINT)):
        job = start(prepared, run, cluster)
        job.wait_for((run / "checkpoints" / f"epoch_{epoch:05d}").exists, f"the checkpoint of epoch {epoch}")
        assert job.stop(number) == 1
        assert job.said.splitlines()[-1] == "train.py: stopped; the same command goes on from here"
        assert "Traceback" not in job.said
        print(f"\nstopped by {number!r}:\n{job.said}")
    said = start(prepared, run, cluster).succeed()
    assert epochs_said(said)[-1] == EPOCHS
    assert_whole_history(run)
    assert_same_weights(run, undisturbed)
