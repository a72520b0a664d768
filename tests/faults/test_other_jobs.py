"""Training, predicting and evaluating side by side: the head lost and the store away, and the disk full.

The starts take most of the time, so that all three jobs meet a fault at once. However a fault struck, the results
are the same.
"""

import io
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from tests.support.bundles import save_undecided_bundle
from tests.support.fault_cluster import Job, Machines, machines, modified, rows
from tests.support.s3 import FaultyProxy, S3Server
from tests.support.synthetic import write_cases
from tests.support.training import OPTIONS

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

N_CASES = 24
EPOCHS = 3
CPUS = 6  # of a machine: all three jobs find room on one
AWAY_S = 10.0
FOR_GOOD_S = 3600.0
IMPATIENT = {"RAY_gcs_rpc_server_reconnect_timeout_s": "10"}  # for a head to come back: Ray's own 60 are waited for
BUCKET = "other-jobs"
DISK_BYTES = 64 * 2**20

RESULTS = {
    "train": ("run/history.parquet",),
    "predict": ("predicted/metrics/cases.parquet", "predicted/metrics/summary.parquet"),
    "evaluate": ("scores/metrics/cases.parquet", "scores/metrics/slices.parquet"),
}
TIMINGS = (
    "elapsed_s",
    "train_s",
    "slices_per_s",
    "data_wait_s",
    "peak_memory_mb",
)  # columns that tell of the machine
PROGRESS = {"train": "run/checkpoints", "predict": "predicted/parts", "evaluate": "scores/parts"}
LATER = {"train": "checkpoints/epoch_0000{}", "predict": "parts/case_2", "evaluate": "parts/case_2"}
"""What a job uploads only after some progress: a training that is started for the nth time the next epoch."""


@pytest.fixture(scope="module")
def cluster(s3_server: S3Server) -> Iterator[Machines]:
    """A machine beside a head without CPUs."""
    with machines(1, s3_server.environment(), cpus=CPUS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def inputs(cluster: Machines, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cases, the same prepared, a model, and masks to evaluate: the references themselves."""
    root = tmp_path_factory.mktemp("inputs")
    names = write_cases(root / "cases", N_CASES, shape=(64, 64, 32), no_et_every=4)
    save_undecided_bundle(root / "model")
    (root / "masks").mkdir()
    for name in names:
        shutil.copy(root / "cases" / name / f"{name}_seg.nii.gz", root / "masks" / f"{name}.nii.gz")
    Job("prepare", ["--data", str(root / "cases"), "--out", str(root / "prepared")], cluster.address).succeed()
    return root


def start(job: str, inputs: str, out: str, cluster: Machines, environment: Mapping[str, str] | None = None) -> Job:
    """Start a job on inputs and with outputs that lie on the disk or in S3."""
    options = {
        "train": [
            *["--data", f"{inputs}/prepared", "--out", f"{out}/run", *OPTIONS],
            *["--epochs", str(EPOCHS), "--workers", "1", "--no-predict"],
        ],
        "predict": [
            *["--model", f"{inputs}/model", "--data", f"{inputs}/cases", "--out", f"{out}/predicted"],
            *["--workers", "1", "--precision", "fp32"],
        ],
        "evaluate": [
            *["--predictions", f"{inputs}/masks", "--references", f"{inputs}/cases", "--out", f"{out}/scores"]
        ],
    }
    return Job(job, options[job], cluster.address, environment)


def side_by_side(meet: Callable[[str], None]) -> None:
    """Let every job meet its fault, all at once."""
    with ThreadPoolExecutor(len(RESULTS)) as pool:
        list(pool.map(meet, RESULTS))


def results(file: Callable[[str], Path | io.BytesIO]) -> dict[str, pa.Table]:
    """The tables of all jobs, without what tells of the time that they took."""
    tables = {name: rows(file(name)) for names in RESULTS.values() for name in names}
    return {
        name: table.select([column for column in table.column_names if column not in TIMINGS])
        for name, table in tables.items()
    }


@dataclass(frozen=True)
class Remote:
    """The jobs with all data in S3, each with a proxy of its own before the store."""

    url: str
    proxies: Mapping[str, FaultyProxy]
    environment: Callable[[str], dict[str, str]]
    """Of a job, from the endpoint of its proxy."""

    def start(self, job: str, cluster: Machines, nth: int) -> Job:
        """Start a job for the nth time; it is at work, and cannot end before its proxy lets go."""
        proxy = self.proxies[job]
        proxy.hold(LATER[job].format(nth + 1))
        environment = {**self.environment(proxy.endpoint), **IMPATIENT}
        process = start(job, self.url, f"{self.url}/out", cluster, environment)
        process.wait_for(lambda: proxy.n_held > 0, f"progress of {job}")
        return process


@pytest.fixture(scope="module")
def remote(inputs: Path, s3_server: S3Server) -> Iterator[Remote]:
    url = s3_server.make_bucket(BUCKET)
    files = {str(path.relative_to(inputs)): path.read_bytes() for path in inputs.rglob("*") if path.is_file()}
    s3_server.upload(BUCKET, files)
    with ExitStack() as stack:
        proxies = {job: stack.enter_context(FaultyProxy(s3_server.endpoint)) for job in RESULTS}
        yield Remote(url, proxies, s3_server.environment)


@pytest.fixture(scope="module")
def struck(remote: Remote, cluster: Machines, s3_server: S3Server) -> dict[str, pa.Table]:
    """What the jobs end with that lost their head, went on elsewhere, and there lost sight of the store."""
    said: dict[str, str] = {}
    started: dict[str, Job] = {}

    def begin(job: str) -> None:
        started[job] = remote.start(job, first, 1)

    def end_without_head(job: str) -> None:
        proxy = remote.proxies[job]
        proxy.be_away(FOR_GOOD_S)  # or workers that have not noticed would finish the job
        proxy.let_go()
        assert started[job].end() != 0, started[job].said
        said[job] = started[job].said
        print(f"\n{job}, head lost: {started[job].seconds:.1f} s\n{said[job]}")
        assert "Traceback" not in said[job], said[job]

    def go_on(job: str) -> None:
        process = remote.start(job, cluster, 2)
        remote.proxies[job].be_away(AWAY_S)
        remote.proxies[job].let_go()
        said[job] = process.succeed()
        print(f"\n{job}, store away for {AWAY_S:.0f} s: {process.seconds:.1f} s\n{said[job]}")
        assert remote.proxies[job].turned_away > 0

    with machines(1, {**s3_server.environment(), **IMPATIENT}, cpus=CPUS) as first:
        side_by_side(begin)
        workers = first.workers("")
    side_by_side(end_without_head)
    for worker in workers:  # the last of them notice later than the jobs, and would go on with their work
        with suppress(psutil.NoSuchProcess):
            worker.kill()
    for proxy in remote.proxies.values():
        proxy.be_away(0)
    side_by_side(go_on)
    assert re.search(r"resuming after epoch [12]", said["train"])  # 2 where the upload that was held is let go
    assert "; 0 done before" not in said["predict"]
    objects = s3_server.objects(BUCKET)
    return results(lambda name: io.BytesIO(objects[f"out/{name}"]))


def test_jobs_go_on_after_a_lost_head_and_wait_for_a_store_that_is_away(struck: dict[str, pa.Table]) -> None:
    assert struck["run/history.parquet"]["epoch"].to_pylist() == [1, 2, 3]
    assert len(struck["predicted/metrics/cases.parquet"]) == 3 * N_CASES  # WT, TC, ET
    assert set(struck["scores/metrics/cases.parquet"]["dice"].to_pylist()) == {1.0}


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of a given size needs root")
def test_jobs_whose_disk_is_full_say_so_and_go_on_after_it_is_freed(
    inputs: Path, cluster: Machines, struck: dict[str, pa.Table], tmp_path: Path
) -> None:
    disks = {job: tmp_path / job for job in RESULTS}

    def meet(job: str) -> None:
        small, out = disks[job], disks[job] / "out"
        process = start(job, str(inputs), str(out), cluster)
        process.wait_for(lambda: modified(out / PROGRESS[job]), f"progress of {job}")
        with (small / "of_others").open("wb", buffering=0) as others, suppress(OSError):  # when it is full
            while True:
                others.write(bytes(2**20))
        assert process.end() == 1, process.said
        print(f"\n{job}, disk full: {process.seconds:.1f} s\n{process.said}")
        assert "Traceback" not in process.said
        last = process.said.splitlines()[-1]
        assert last.startswith(f"{job}.py: "), last
        assert "no space left on the disk" in last
        assert not list(small.rglob(".partial-*"))
        (small / "of_others").unlink()
        again = start(job, str(inputs), str(out), cluster)
        again.succeed()
        print(f"\n{job}, second start: {again.seconds:.1f} s\n{again.said}")

    with ExitStack() as stack:
        for folder in disks.values():
            folder.mkdir()
            if os.system(f"mount -t tmpfs -o size={DISK_BYTES} tmpfs {folder} 2>/dev/null"):
                pytest.skip("no file system can be mounted here")
            stack.callback(os.system, f"umount --lazy {folder}")
        side_by_side(meet)
        outputs = {name: disks[job] / "out" / name for job, names in RESULTS.items() for name in names}
        assert results(outputs.__getitem__) == struck
