"""Claim 2: a dataset prepared through Ray Data, beside the same function in a plain loop; memory and time."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.command import run_benchmark
from benchmarks.harness import LIMIT, BenchmarkError, Outcome, Spread, check_growth, compare, cores
from benchmarks.sources import copies, job_command, phantoms, warm
from benchmarks.watch import Usage, watch
from brats import storage
from brats.config import MODALITIES
from brats.data.cases import CaseFiles, find_cases
from brats.data.dataset import slices_path
from brats.data.preprocess import read_case
from brats.data.slices import encode_case

OF_PLAIN = 0.85
ROUNDS = 3  # in which the sides take turns
FLAT = 0.9  # memory with the fewest cases over memory with the most
START_RAY = "from brats.cluster.connect import connected\nwith connected(): pass"


def prepare_plainly(cases: Sequence[CaseFiles], out: str) -> None:
    """What the Ray step does with a case, in a loop."""
    for files in cases:
        content, _ = encode_case(read_case(files, MODALITIES))
        storage.write_bytes(slices_path(out, files.case_id), content)


def loop_s_per_case(cases: Sequence[CaseFiles]) -> float:
    """Seconds per case of the plain loop on one core."""
    return _timed(cases, prepare_plainly) / len(cases)


def parallel_s_per_case(cases: Sequence[CaseFiles], n_processes: int) -> float:
    """Seconds per case of the plain loop in several processes at once: what the machine allows without Ray."""
    one_thread = patch.dict(os.environ, OMP_NUM_THREADS="1")  # as Ray has it for tasks of up to one CPU
    with one_thread, ProcessPoolExecutor(n_processes, mp_context=get_context("spawn")) as pool:

        def spread_out(cases: Sequence[CaseFiles], out: str) -> None:
            list(pool.map(prepare_plainly, [[files] for files in cases], [out] * len(cases)))

        _timed(cases[:n_processes], spread_out)  # starts the processes
        return _timed(cases, spread_out) / len(cases)


def _timed(cases: Sequence[CaseFiles], run: Callable[[Sequence[CaseFiles], str], Any]) -> float:
    with TemporaryDirectory() as out:
        started = time.perf_counter()
        run(cases, out)
        return time.perf_counter() - started


def prepare_through_ray(cases: Sequence[CaseFiles], n_cases: int) -> Usage:
    """`python jobs/prepare.py` on so many cases; checks that every case came out as the plain loop makes it."""
    with copies(cases, n_cases) as data, TemporaryDirectory() as out:
        usage = watch(job_command("prepare", "--data", data, "--out", out))
        written = sorted((Path(out) / "slices").glob("*.parquet"))
        if len(written) != n_cases:
            raise BenchmarkError(f"{len(written)} of {n_cases} cases were prepared; nothing is written")
        _check_same_file(data, written[0])
    return usage


def _check_same_file(data: str, path: Path) -> None:
    files = next(files for files in find_cases(data).cases if files.case_id == path.stem)
    with TemporaryDirectory() as plain:
        prepare_plainly([files], plain)
        if (Path(plain) / "slices" / path.name).read_bytes() != path.read_bytes():
            raise BenchmarkError(f"{path.stem}: Ray and the plain loop wrote different files; nothing is written")


def fit_line(n_cases: Sequence[float], seconds: Sequence[float]) -> tuple[float, float, float]:
    """Seconds per case, seconds for none, and the largest deviation from this line as a share of the time."""
    slope, intercept = np.polyfit(n_cases, seconds, 1).tolist()
    deviations = np.abs(np.polyval([slope, intercept], n_cases) / np.array(seconds) - 1)
    return slope, intercept, float(deviations.max())


def measure(quick: bool) -> Outcome:
    sizes = (2, 6, 12) if quick else (12, 36, 120)
    cases = phantoms(2 if quick else 12)
    warm(cases)
    n_cores = len(os.sched_getaffinity(0))
    loops, pools = [], []
    usages: dict[int, list[Usage]] = {n_cases: [] for n_cases in sizes}
    for _ in range(1 if quick else ROUNDS):
        with cores(1):
            loops.append(loop_s_per_case(cases))
        pools.append(parallel_s_per_case([*cases] * 2, n_cores))
        for n_cases, found in usages.items():
            found.append(prepare_through_ray(cases, n_cases))
    loop, parallel = Spread(tuple(loops)), Spread(tuple(pools))
    wall_s = {n_cases: Spread(tuple(usage.wall_s for usage in found)) for n_cases, found in usages.items()}
    memory_mb = {n_cases: Spread(tuple(u.peak_memory_mb for u in found)) for n_cases, found in usages.items()}
    ray_alone = watch([sys.executable, "-c", START_RAY])
    slope, intercept, deviation = fit_line(sizes, [spread.median for spread in wall_s.values()])
    check_growth("prepare", slope)
    rows = [
        compare(
            "prepare", 1 / slope, f"{LIMIT}{n_cores} x a plain loop on one core", n_cores / loop.median, "cases/s",
            target=OF_PLAIN, more_is_better=True,
        ),
        compare(
            "prepare", 1 / slope, f"{LIMIT}{n_cores} plain processes", 1 / parallel.median, "cases/s",
            more_is_better=True,
        ),
        compare(
            f"memory, {sizes[-1]} cases", memory_mb[sizes[-1]], f"ours, {sizes[0]} cases", memory_mb[sizes[0]],
            "MB", target=FLAT,
        ),
    ]  # fmt: skip
    details = {
        "time by cases": {str(n_cases): f"{spread} s" for n_cases, spread in wall_s.items()},
        "memory by cases": {str(n_cases): f"{spread} MB" for n_cases, spread in memory_mb.items()},
        "line": f"{slope:.3f} s a case + {intercept:.1f} s; the times deviate by {deviation:.1%} at most",
        "intercept": f"{intercept:.1f} s, of which starting and ending Ray alone takes {ray_alone.wall_s:.1f} s",
        "plain loop": f"{loop} s a case on one core, {parallel} s a case in {n_cores} processes",
    }
    return Outcome(rows=rows, details=details)


if __name__ == "__main__":
    run_benchmark(measure)
