"""Predicting while machines, predictors and drivers are killed: every case once, as if nothing had happened."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch

from brats.data.batches import InputSpec
from brats.model.bundle import ModelCard, save_bundle
from brats.model.unet import build_unet
from tests.support.fault_cluster import POLL_S, Job, Machines, Watcher, rows
from tests.support.synthetic import write_case, write_cases

pytestmark = pytest.mark.ray

N_CASES = 16
PREDICTOR = "MapWorker(Map(Predictor))"
TABLES = ("cases", "slices", "notebook", "summary")
ALLOWED_BYTES = 1800 * 2**20  # of a predictor, for the player of the kernel: 1,050 for small cases, the giant 2,700


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network whose masks hold every label."""
    folder = tmp_path_factory.mktemp("bundle")
    torch.manual_seed(1)
    network = build_unet(encoder="tu-test_resnet", n_channels=2, decoder_channels=(8,) * 5)
    torch.nn.init.zeros_(network.get_parameter("segmentation_head.0.bias"))
    card = ModelCard(
        encoder="tu-test_resnet",
        decoder_channels=(8,) * 5,
        inputs=InputSpec(modalities=("flair", "t1ce")),
        epoch=1,
        val_dice=0.5,
        trained_on={},
    )
    save_bundle(str(folder), network.state_dict(), card)
    return folder


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cases")
    write_cases(root, N_CASES, shape=(96, 96, 48), no_et_every=3)
    return root


def start(bundle: Path, cases: Path, out: Path, cluster: Machines, *options: str) -> Job:
    paths = ["--model", str(bundle), "--data", str(cases), "--out", str(out)]
    return Job("predict", [*paths, "--precision", "fp32", *options], cluster.address)


def done(out: Path) -> set[str]:
    return {path.stem for path in out.glob("parts/[!.]*.parquet")}


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


def test_machine_lost_while_predicting_loses_nothing(
    bundle: Path, cases: Path, undisturbed: Path, cluster: Machines, tmp_path: Path
) -> None:
    cluster.keep(2)
    out = tmp_path / "out"
    with Watcher(tmp_path) as watcher:
        # Of three predictors one machine has two: on the other one they would take all of its CPUs.
        job = start(bundle, cases, out, cluster, "--workers", "3")
        job.wait_for(lambda: done(out), "a case")
        cluster.remove(max(cluster.nodes, key=lambda node: len(cluster.workers(PREDICTOR, node))))
        n_done = len(done(out))
        job.succeed()
    print(f"\nmachine lost after {n_done} cases: {job.seconds:.1f} s in all\n{job.said}")
    assert "lost the machine" in job.said
    assert watcher.broken == []
    assert_same_predictions(out, undisturbed)


@pytest.mark.slow
def test_predictor_killed_as_the_kernel_kills_costs_only_its_case(
    bundle: Path, cases: Path, undisturbed: Path, cluster: Machines, tmp_path: Path
) -> None:
    cluster.keep(2)
    out = tmp_path / "out"
    with Watcher(tmp_path) as watcher:
        job = start(bundle, cases, out, cluster)
        job.wait_for(lambda: len(done(out)) >= 2, "two cases")
        job.wait_for(lambda: cluster.workers(PREDICTOR), "a predictor")[0].kill()
        n_done = len(done(out))
        job.succeed()
    print(f"\npredictor killed after {n_done} cases: {job.seconds:.1f} s in all\n{job.said}")
    assert "a process died" in job.said
    assert n_done < N_CASES
    assert watcher.broken == []
    assert_same_predictions(out, undisturbed)


@pytest.mark.slow
def test_killed_driver_goes_on_with_the_cases_that_are_missing(
    bundle: Path, cases: Path, undisturbed: Path, cluster: Machines, tmp_path: Path
) -> None:
    cluster.keep(2)
    out = tmp_path / "out"
    with Watcher(tmp_path) as watcher:
        job = start(bundle, cases, out, cluster)
        job.wait_for(lambda: len(done(out)) >= 2, "two cases")
        job.kill()
        kept = {case_id: (out / "parts" / f"{case_id}.parquet").stat().st_mtime_ns for case_id in done(out)}
        assert len(kept) < N_CASES
        said = start(bundle, cases, out, cluster).succeed()
    assert watcher.broken == []
    assert int(said.split(" done before")[0].split()[-1]) >= len(kept)
    assert all((out / "parts" / f"{name}.parquet").stat().st_mtime_ns == time for name, time in kept.items())
    assert_same_predictions(out, undisturbed)


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


@pytest.mark.slow
def test_case_that_fits_no_memory_is_rejected_while_the_others_finish(
    bundle: Path, cases: Path, undisturbed: Path, cluster: Machines, tmp_path: Path
) -> None:
    cluster.keep(2)
    out = tmp_path / "out"
    data = tmp_path / "data"
    data.mkdir()
    for folder in cases.iterdir():
        os.symlink(folder, data / folder.name)
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
        assert rows(out / "metrics" / f"{name}.parquet").equals(rows(undisturbed / "metrics" / f"{name}.parquet"))
    start(bundle, data, out, cluster, "--batch-size", "4").succeed()
    assert len(done(out)) == N_CASES + 1
    assert len(pd.read_parquet(out / "rejects.parquet")) == 0
    assert (out / "masks" / "a_giant.parquet").exists()
