"""Claim 8: training and predicting on a GPU, beside what the bare step and its arithmetic allow.

`python -m benchmarks.gpu --check` verifies instead that the GPU computes what it should.
"""

import argparse
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import gpu_check
from benchmarks.command import run_benchmark
from benchmarks.generated import generate
from benchmarks.gpu_engine import StepFigures, measure_steps
from benchmarks.gpu_jobs import (
    TrainJob,
    job_rows,
    predict_rate,
    predict_rows,
    settled,
    share_between,
    share_waited,
    stage_costs,
)
from benchmarks.gpu_step import Pace, Variant, matrix_tflops, reset_memory
from benchmarks.harness import LIMIT, Outcome, Row, Spread, compare, spreads
from benchmarks.plain import History
from benchmarks.scaling import gflop_per_slice
from benchmarks.sources import phantoms, prepared_copies
from brats.config import Precision, Preset, TrainConfig
from brats.model.graph import recordable
from brats.model.precision import choose_precision

NO_GPU = "gpu: skipped, torch finds no GPU here; run `make bench-gpu` on a machine with one"
NOTHING_CHECKED = "gpu: nothing is checked, torch finds no GPU here; --device cpu runs the checks with stand-ins"
CHECKED_SHAPE = (92, 90, 30)
CHECKED_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class Aims:
    """What is to be reached on one kind of card, None where nothing is asked.

    of_bare:      at batch 16 through jobs/train.py, of the graph-replayed bare step
    slices_per_s: at batch 64 through jobs/train.py
    cases_per_s:  of jobs/predict.py
    """

    of_bare: float | None = None
    slices_per_s: float | None = None
    cases_per_s: float | None = None


def aims(gpu: str, n_cores: int) -> Aims:
    """The aims are stated for one H100, that of predicting with 16 cores."""
    if "H100" not in gpu:
        return Aims()
    return Aims(of_bare=0.85, slices_per_s=3000, cases_per_s=10 if n_cores >= 16 else None)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured.

    shape, n_generated: of the generated cases that bare steps and those of the product take
    batch_sizes:        in ascending order
    n_prepared, epochs: of the runs of `jobs/train.py`
    few, many:          cases of `jobs/predict.py`, whose difference in time counts, in so many rounds
    """

    shape: tuple[int, int, int] = (188, 157, 140)  # of the crop of a BraTS case: slices are padded to 192 x 160
    n_generated: int = 7
    batch_sizes: tuple[int, ...] = (16, 32, 64)
    pace: Pace = Pace(rounds=5, round_s=0.5)
    matrix_side: int = 8192
    preset: Preset = "brats"
    n_prepared: int = 40
    epochs: int = 8
    few: int = 8
    many: int = 88
    rounds: int = 3


QUICK = Scale(n_generated=3, pace=Pace(rounds=2, round_s=0.1), n_prepared=12, epochs=3, many=16, rounds=1)


def train_jobs(scale: Scale, device: torch.device) -> list[TrainJob]:
    """The product's way at every batch size, and what changes one thing about it."""
    first = TrainJob(
        preset=scale.preset,
        batch_size=scale.batch_sizes[0],
        feeding="resident",
        augmentation="full",
        epochs=scale.epochs,
        device="cuda" if device.type == "cuda" else "cpu",
    )
    return [
        *(replace(first, batch_size=batch_size) for batch_size in scale.batch_sizes),
        replace(first, feeding="streamed"),
        replace(first, augmentation="none"),
    ]


def precisions(device: torch.device) -> list[Precision]:
    """The one that the product chooses on this device, and fp16 beside it on a GPU."""
    chosen = choose_precision("auto", device)
    return list(dict.fromkeys([chosen, "fp16"])) if device.type == "cuda" else [chosen]


def job_findings(
    job: TrainJob, history: History, figures: StepFigures, aim: Aims, precision: Precision
) -> tuple[list[Row], dict[str, str]]:
    """A run of `jobs/train.py` against the bare step and the aims."""
    bare = figures.bare.get(Variant(batch_size=job.batch_size, precision=precision, form="graph"))
    full = job.augmentation == "full" and job.feeding == "resident"
    rows = job_rows(
        job,
        history,
        bare.slices_per_s if bare else None,
        aim.of_bare if full and job.batch_size == 16 else None,
    )
    rate = settled(history, "slices_per_s")
    if aim.slices_per_s and full and job.batch_size == 64:
        rows.append(
            compare(
                f"jobs/train.py, {job}", rate, LIMIT + "the aim", aim.slices_per_s, "slices/s", target=1,
                more_is_better=True,
            )
        )  # fmt: skip
    memory_mb = history[-1]["peak_memory_mb"]
    return rows, {
        f"jobs/train.py, {job}": f"{rate} slices/s, {share_waited(history).median:.1%} of it waiting for slices; "
        f"{share_between(history):.1%} of the time between epochs; {memory_mb:.0f} MB"
    }


def arithmetic(figures: StepFigures, matrix: Spread, size: tuple[int, int]) -> Row:
    """The arithmetic of the fastest bare step beside that of matrix products."""
    best = max(figures.bare.values(), key=lambda found: found.slices_per_s.median)
    gflop = 3 * gflop_per_slice(size)  # backward is twice the arithmetic of forward
    return compare(
        "arithmetic of the fastest bare step", best.slices_per_s.scaled(gflop / 1000), LIMIT + "matrix products",
        matrix, "TFLOP/s", more_is_better=True,
    )  # fmt: skip


def measure(quick: bool) -> Outcome:
    """All figures of the GPU of this machine."""
    if not torch.cuda.is_available():
        return Outcome(skipped=NO_GPU)
    device = torch.device("cuda", torch.cuda.current_device())
    aim = aims(torch.cuda.get_device_name(device), len(os.sched_getaffinity(0)))
    return measure_on(device, QUICK if quick else Scale(), TrainConfig(out="run"), aim)


def measure_on(device: torch.device, scale: Scale, config: TrainConfig, aim: Aims) -> Outcome:
    """All figures of a device. config: of the network in the steps without Ray"""
    kinds = precisions(device)
    with TemporaryDirectory() as folder, recordable(device):
        generated = generate(Path(folder), scale.n_generated, scale.shape)
        figures = measure_steps(generated, config, device, scale.batch_sizes, kinds, scale.pace)
        matrix = matrix_tflops(device, kinds[0], scale.matrix_side, scale.pace)
        rows = [*figures.rows(), arithmetic(figures, matrix, generated.training_set(config).size)]
    reset_memory(device)  # which the jobs, other processes, find free
    details: dict[str, Any] = {**figures.details(), "matrix products": f"{matrix} TFLOP/s in {kinds[0]}"}
    jobs = train_jobs(scale, device)
    with TemporaryDirectory() as runs:
        for number, job in enumerate(jobs):
            history = job.run(prepared_copies(scale.n_prepared), Path(runs) / str(number))
            more_rows, more_details = job_findings(job, history, figures, aim, kinds[0])
            rows, details = [*rows, *more_rows], details | more_details
        first = Path(runs) / "0"
        stages = stage_costs(first, phantoms(4), device)
        rate = predict_rate(first, jobs[0].device, scale.few, scale.many, scale.rounds)
    rows += predict_rows(rate, stages, aim.cases_per_s)
    details["predict"] = {"end to end": f"{rate} cases/s", **spreads(stages, "s a case")}
    return Outcome(rows=rows, details=details)


def main() -> None:
    """`--check` alone or the benchmark, whose own options `run_benchmark` reads."""
    if "--check" not in sys.argv[1:]:
        run_benchmark(measure)
        return
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=gpu_check.__doc__)
    parser.add_argument("--check", action="store_true", help="verify the GPU instead of measuring it")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: with stand-ins")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print(NOTHING_CHECKED, file=sys.stderr)
        sys.exit(2)
    device = torch.device("cpu")
    if arguments.device == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    config = TrainConfig(out="run")
    sys.exit(0 if gpu_check.check_all(device, config, CHECKED_SHAPE, CHECKED_STEPS) else 1)


if __name__ == "__main__":
    main()
