"""The whole path with all data in S3: prepare through faults, train, predict; and wrong settings."""

import os
import re
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from brats.data.cases import find_cases
from brats.data.preprocess import read_case
from tests.support import BUSY_MACHINE, ROOT
from tests.support.s3 import SECRET, FaultyProxy, S3Server, aws_environment
from tests.support.synthetic import write_cases
from tests.support.training import OPTIONS

pytestmark = pytest.mark.ray

JOBS = ROOT / "jobs"
N_CASES = 10
N_REAL = 3


@dataclass(frozen=True)
class Jobs:
    """Runs jobs as processes of their own, in an empty folder."""

    cwd: Path
    environment: dict[str, str]

    def run(self, job: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(JOBS / f"{job}.py"), *options],
            cwd=self.cwd,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    def do(self, job: str, *options: str, **environment: str) -> str:
        """Run a job that has to succeed; return what it said."""
        done = self.run(job, *options, **environment)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Case folders on the disk."""
    root = tmp_path_factory.mktemp("cases")
    write_cases(root, N_CASES, shape=(32, 30, 12))
    return root


@pytest.fixture(scope="module")
def bucket(source: Path, s3_server: S3Server) -> str:
    """A bucket with the same case folders under `cases`."""
    name = f"jobs-{uuid.uuid4().hex[:8]}"
    s3_server.make_bucket(name)
    files = [path for path in source.rglob("*") if path.is_file()]
    s3_server.upload(name, {f"cases/{path.relative_to(source)}": path.read_bytes() for path in files})
    return name


@pytest.fixture(scope="module")
def jobs(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "BRATS_", "RAY_"))}
    fixed = {**BUSY_MACHINE, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    return Jobs(tmp_path_factory.mktemp("empty"), {**kept, **fixed, **s3_server.environment()})


@pytest.fixture(scope="module")
def prepared(jobs: Jobs, bucket: str, s3_server: S3Server) -> str:
    """Prepared in S3 from S3, while the store stumbles in every way it can."""
    with FaultyProxy(s3_server.endpoint) as proxy:
        proxy.fail_next(4, status=500, method="GET", key=".nii.gz")
        proxy.cut_next(4, key=".nii.gz")
        proxy.drop_next(4, method="GET", key=".nii.gz")
        proxy.fail_next(3, status=503, method="PUT", key="/slices/")
        proxy.drop_answer_to_next(3, key="/slices/")
        proxy.fail_next(2, status=503, method="PUT", key="cases.parquet")
        jobs.do(
            *("prepare", "--data", f"s3://{bucket}/cases", "--out", f"s3://{bucket}/prepared"),
            AWS_ENDPOINT_URL=proxy.endpoint,
        )
        assert proxy.faults_left == 0
    return f"s3://{bucket}/prepared"


@pytest.fixture(scope="module")
def trained(jobs: Jobs, bucket: str, prepared: str) -> str:
    """Two epochs, then the test split predicted."""
    run = f"s3://{bucket}/run"
    jobs.do("train", "--data", prepared, "--out", run, *OPTIONS, "--epochs", "2")
    return run


@pytest.fixture(scope="module")
def predicted(jobs: Jobs, bucket: str, trained: str) -> str:
    """Every case predicted from the raw images."""
    out = f"s3://{bucket}/predicted"
    jobs.do("predict", "--model", trained, "--data", f"s3://{bucket}/cases", "--out", out, "--nifti")
    return out


def read(url: str, server: S3Server) -> pd.DataFrame:
    """A table as anyone reads it: with plain pandas."""
    values = server.environment()
    options = {
        "endpoint_url": values["AWS_ENDPOINT_URL"],
        "key": values["AWS_ACCESS_KEY_ID"],
        "secret": values["AWS_SECRET_ACCESS_KEY"],
        "skip_instance_cache": True,
    }
    return pd.read_parquet(url, storage_options=options)


def test_prepare_through_faults_gives_what_an_undisturbed_local_run_gives(
    prepared: str, bucket: str, jobs: Jobs, source: Path, s3_server: S3Server, tmp_path: Path
) -> None:
    jobs.do("prepare", "--data", str(source), "--out", str(tmp_path))
    remote = {
        key.removeprefix("prepared/"): content
        for key, content in s3_server.objects(bucket).items()
        if key.startswith("prepared/")
    }
    local = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if path.is_file()}
    assert remote.keys() == local.keys()
    slices = [name for name in local if name.startswith("slices/")]
    assert len(slices) == N_CASES
    for name in slices:
        assert remote[name] == local[name].read_bytes()
    cases = read(f"{prepared}/cases.parquet", s3_server)
    assert cases.case_id.is_unique
    undisturbed = pd.read_parquet(tmp_path / "cases.parquet")
    pd.testing.assert_frame_equal(cases.drop(columns="sources"), undisturbed.drop(columns="sources"))
    for remote_files, local_files in zip(
        cases.sources, undisturbed.sources, strict=True
    ):  # elsewhere, but the same
        assert [file["hash"] for file in remote_files] == [file["hash"] for file in local_files]
    assert read(f"{prepared}/rejects.parquet", s3_server).empty


@pytest.mark.slow
def test_history_in_s3_has_each_epoch_once(trained: str, s3_server: S3Server) -> None:
    assert list(read(f"{trained}/history.parquet", s3_server).epoch) == [1, 2]


@pytest.mark.slow
def test_scores_of_the_test_split_are_in_s3(trained: str, s3_server: S3Server) -> None:
    split = read(f"{trained}/split.parquet", s3_server)
    scores = read(f"{trained}/test/metrics/cases.parquet", s3_server)
    assert sorted(scores.case_id.unique()) == sorted(split.case_id[split.split == "test"])


@pytest.mark.slow
def test_predictions_in_s3_have_each_case_once(predicted: str, bucket: str, s3_server: S3Server) -> None:
    scores = read(f"{predicted}/metrics/cases.parquet", s3_server)
    assert scores.groupby("case_id").size().to_dict() == {f"case_{number:02d}": 3 for number in range(N_CASES)}
    keys = s3_server.objects(bucket).keys()
    assert sum(key.startswith("predicted/masks/") for key in keys) == N_CASES
    assert sum(key.startswith("predicted/nifti/") and key.endswith(".nii.gz") for key in keys) == N_CASES


@pytest.mark.slow
@pytest.mark.usefixtures("predicted")
def test_nothing_was_written_beside_the_store(jobs: Jobs) -> None:
    assert list(jobs.cwd.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("predicted")
def test_no_secret_is_in_anything_that_was_written(bucket: str, s3_server: S3Server, tmp_path: Path) -> None:
    objects = s3_server.objects(bucket)
    written = {key: content for key, content in objects.items() if not key.startswith("cases/")}
    assert len(written) > 4 * N_CASES
    for key, content in written.items():
        assert SECRET.encode() not in content, key
        if key.endswith(".parquet"):  # compressed
            (tmp_path / "x.parquet").write_bytes(content)
            table = pq.read_table(tmp_path / "x.parquet")
            assert SECRET not in str((table.schema.metadata, table.to_pylist())), key
    assert not [key for key in objects if "/.check-" in key]


@pytest.mark.slow
@pytest.mark.real
def test_real_cases_in_s3_are_prepared_as_on_disk_and_no_larger_than_their_sources(
    jobs: Jobs, s3_server: S3Server, real_data_dir: str, tmp_path: Path
) -> None:
    name = f"real-{uuid.uuid4().hex[:8]}"
    s3_server.make_bucket(name)
    (tmp_path / "cases").mkdir()
    for case_id in sorted(os.listdir(real_data_dir))[:N_REAL]:
        (tmp_path / "cases" / case_id).symlink_to(Path(real_data_dir) / case_id)
        files = (Path(real_data_dir) / case_id).glob("*.nii.gz")
        s3_server.upload(name, {f"cases/{case_id}/{path.name}": path.read_bytes() for path in files})
    jobs.do("prepare", "--data", str(tmp_path / "cases"), "--out", str(tmp_path / "out"))
    jobs.do("prepare", "--data", f"s3://{name}/cases", "--out", f"s3://{name}/out")
    objects = s3_server.objects(name)
    slices = list((tmp_path / "out" / "slices").iterdir())
    assert len(slices) == N_REAL
    for path in slices:
        assert objects[f"out/slices/{path.name}"] == path.read_bytes(), path.name
    stored, sources = (
        sum(len(content) for key, content in objects.items() if key.startswith(folder))
        for folder in ("out/", "cases/")
    )
    assert stored <= sources


def test_five_files_of_a_case_are_fetched_at_once(s3_proxy: FaultyProxy, bucket: str) -> None:
    (files,) = find_cases(f"s3://{bucket}/cases/case_00").cases
    s3_proxy.forget()
    s3_proxy.meet_next(5)
    assert read_case(files, tuple(files.images)).labels is not None
    assert s3_proxy.count() == s3_proxy.most_at_once == 5


# Settings that are wrong: one line, and the exit code of a wrong command line


def refused(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line on standard error."""
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert SECRET not in done.stdout + done.stderr
    return done.stderr


def test_wrong_bucket_is_named(jobs: Jobs, bucket: str) -> None:
    said = refused(jobs.run("prepare", "--data", "s3://nobody/cases", "--out", f"s3://{bucket}/x"), 2)
    assert "has no bucket 'nobody'; correct the path, or AWS_ENDPOINT_URL" in said


def test_wrong_secret_is_said(jobs: Jobs, bucket: str, s3_server: S3Server) -> None:
    user = s3_server.make_user("jobs", "s3:*")
    user["AWS_SECRET_ACCESS_KEY"] = SECRET
    with s3_server.checked_credentials():
        said = refused(
            jobs.run("prepare", "--data", f"s3://{bucket}/cases", "--out", f"s3://{bucket}/x", **user), 2
        )
    assert "correct AWS_SECRET_ACCESS_KEY" in said


def test_bucket_that_may_only_be_read_is_said_before_any_work(jobs: Jobs, bucket: str, s3_server: S3Server) -> None:
    user = s3_server.make_user("jobs-reader", "s3:GetObject", "s3:ListBucket")
    with s3_server.checked_credentials():
        said = refused(
            jobs.run("prepare", "--data", f"s3://{bucket}/cases", "--out", f"s3://{bucket}/x", **user), 2
        )
    assert "allow s3:PutObject" in said


def test_endpoint_that_is_down_is_said(jobs: Jobs) -> None:
    environment = {**aws_environment("http://127.0.0.1:9"), "BRATS_S3_PATIENCE_S": "1"}
    said = refused(jobs.run("prepare", "--data", "s3://bucket/cases", "--out", "s3://bucket/x", **environment), 1)
    assert re.search(r"no whole answer from 127\.0\.0\.1:9 \(tried for [1-9] s\)", said)


def test_store_that_damages_uploads_is_refused(jobs: Jobs, bucket: str, s3_server: S3Server) -> None:
    with FaultyProxy(s3_server.endpoint) as proxy:
        proxy.keeps_chunk_framing = True
        said = refused(
            jobs.run(
                *("prepare", "--data", f"s3://{bucket}/cases", "--out", f"s3://{bucket}/x"),
                AWS_ENDPOINT_URL=proxy.endpoint,
            ),
            2,
        )
    assert "set AWS_REQUEST_CHECKSUM_CALCULATION=when_required on every machine" in said
