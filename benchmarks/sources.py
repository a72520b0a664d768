"""The cases that are measured: phantoms, made once and kept below runs/bench, and real ones where there are."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np

from benchmarks.harness import BenchmarkError
from brats.cluster.connect import COMPUTE
from brats.data.cases import CaseFiles, find_cases
from brats.data.phantom.case import case_id, write_phantom

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "runs" / "bench"
SEED = 0
THIN = 8  # slices


@dataclass(frozen=True)
class Source:
    """Cases of one kind: phantoms or real."""

    name: str
    cases: tuple[CaseFiles, ...]


def sources(n_cases: int) -> list[Source]:
    """So many phantoms and, where BRATS_REAL_DATA names a folder of them, so many real labelled cases."""
    found = [Source("phantom", phantoms(n_cases))]
    if folder := os.environ.get("BRATS_REAL_DATA"):
        found.append(
            Source("real", tuple(files for files in find_cases(folder).cases if files.segmentation)[:n_cases])
        )
    return found


def phantoms(n_cases: int) -> tuple[CaseFiles, ...]:
    """The first so many phantoms."""
    root = KEPT / "phantoms"
    for index in range(1, n_cases + 1):
        if not (root / case_id(index)).is_dir():
            # Made beside and moved in, so that a run that broke off leaves no half case.
            with TemporaryDirectory(dir=_made(KEPT)) as beside:
                write_phantom(beside, index, SEED)
                shutil.move(Path(beside) / case_id(index), _made(root) / case_id(index))
    return find_cases(str(root)).cases[:n_cases]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def copies(cases: Sequence[CaseFiles], n_cases: int) -> Iterator[str]:
    """A folder with so many cases, the given ones under other names: links, so the files stay in the cache."""
    with TemporaryDirectory(dir=_made(KEPT)) as root:
        for index in range(n_cases):
            files, name = cases[index % len(cases)], f"BraTS20_Training_{index + 1:05d}"
            folder = _made(Path(root) / name)
            parts = {**files.images, **({"seg": files.segmentation} if files.segmentation else {})}
            for kind, file in parts.items():
                ending = ".nii.gz" if file.name.endswith(".gz") else ".nii"
                (folder / f"{name}_{kind}{ending}").symlink_to(Path(file.path).resolve())
        yield root


def warm(cases: Sequence[CaseFiles]) -> None:
    """Read every file once, so that all sides find it in the cache of the operating system."""
    for files in cases:
        for file in (*files.images.values(), *([files.segmentation] if files.segmentation else [])):
            Path(file.path).read_bytes()


def prepared(n_cases: int) -> Path:
    """A prepared dataset of so many phantoms, made once and kept."""
    out = KEPT / f"prepared-{n_cases}"
    if not (out / "cases.parquet").exists():
        phantoms(n_cases)
        with copies(phantoms(n_cases), n_cases) as data:
            run_job("prepare", "--data", data, "--out", str(out))
    return out


def prepared_copies(n_cases: int) -> Path:
    """A prepared dataset of so many cases, six phantoms under several names: an epoch of some length."""
    out = KEPT / f"prepared-copies-{n_cases}"
    if not (out / "cases.parquet").exists():
        with copies(phantoms(6), n_cases) as data:
            run_job("prepare", "--data", data, "--out", str(out))
    return out


def prepared_thin() -> Path:
    """A prepared dataset of four phantoms cut to a few slices through the tumour: an epoch of a few steps."""
    out = KEPT / "prepared-thin"
    if not (out / "cases.parquet").exists():
        with TemporaryDirectory(dir=_made(KEPT)) as data:
            for files in phantoms(4):
                _write_thin(files, Path(data) / files.case_id)
            run_job("prepare", "--data", data, "--out", str(out))
    return out


def _write_thin(files: CaseFiles, folder: Path) -> None:
    assert files.segmentation is not None
    folder.mkdir()
    labels = np.asarray(nib.load(files.segmentation.path).dataobj)
    middle = int(np.argmax(np.count_nonzero(labels, axis=(0, 1))))
    for file in (*files.images.values(), files.segmentation):
        image = nib.load(file.path)
        kind = next((name for name, found in files.images.items() if found == file), "seg")
        thin = image.slicer[:, :, middle - THIN // 2 : middle + THIN // 2]
        nib.save(thin, folder / f"{files.case_id}_{kind}.nii.gz")


def trained_run(data: Path, preset: str, epochs: int) -> Path:
    """A run of train.py on a prepared dataset, made once and kept: a network that finds most of the tumours."""
    out = KEPT / f"run-{data.name}-{preset}-{epochs}"
    if not (out / "model" / "model.json").exists():
        run_job(
            "train", "--data", str(data), "--out", str(out), "--preset", preset, "--epochs", str(epochs),
            "--no-predict", "--device", "cpu",
        )  # fmt: skip
    return out


def run_job(job: str, *arguments: str) -> str:
    """Run a job as users do, with a Ray of its own; return what it printed. Raises BenchmarkError when it fails."""
    done = subprocess.run(job_command(job, *arguments), capture_output=True, text=True, env=job_environment())
    if done.returncode:
        last = done.stderr.strip().splitlines() or ["no further word"]
        raise BenchmarkError(f"jobs/{job}.py ended with {done.returncode}: {last[-1]}")
    return done.stdout


def job_command(job: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *arguments]


def job_environment() -> dict[str, str]:
    """Without what would lead a job to another Ray, other data or another number of threads."""
    foreign = ("RAY_ADDRESS", "BRATS_DATA", "BRATS_STORAGE", "OMP_NUM_THREADS", *COMPUTE)
    return {name: value for name, value in os.environ.items() if name not in foreign}
