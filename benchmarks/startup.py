"""Claim 6: how long a job takes to show its help, and to its first training step on the embedded Ray."""

import subprocess
import sys
from tempfile import TemporaryDirectory

from benchmarks.command import run_benchmark
from benchmarks.harness import LIMIT, BenchmarkError, Outcome, Spread, compare, interleaved, spreads
from benchmarks.plain import read_history
from benchmarks.sources import job_command, prepared_thin
from benchmarks.watch import watch

HELP_LIMIT_S, FIRST_STEP_LIMIT_S = 1.0, 25.0


def show_help() -> None:
    subprocess.run(job_command("train", "--help"), capture_output=True, check=True)


def bare_python() -> None:
    subprocess.run([sys.executable, "-c", "pass"], check=True)


def first_step() -> dict[str, float]:
    """Seconds from the command to what happens on the way to the first optimiser step, in order.

    One epoch of one step, on a prepared dataset of a few slices: when the line of the epoch appears, the history
    says how long ago that epoch began and for how long it waited for data and trained.
    """
    with TemporaryDirectory() as out:
        lines: list[tuple[float, str]] = []
        command = job_command(
            "train", "--data", str(prepared_thin().resolve()), "--out", out, "--preset", "brats", "--epochs", "1",
            "--batch-size", "1000", "--no-predict", "--device", "cpu",
        )  # fmt: skip
        watch(command, on_line=lambda seconds, line: lines.append((seconds, line)))
        (row,) = read_history(out)
    announced = _time_of(lines, "U-Net")
    told = _time_of(lines, "epoch 1/1")
    began = told - row["elapsed_s"]
    return {
        "Ray is up, the plan is made": announced,
        "the workers have torch and their network": began,
        "the first batch is there": began + row["data_wait_s"],
        "the first step is done": began + row["train_s"],
    }


def _time_of(lines: list[tuple[float, str]], word: str) -> float:
    for seconds, line in lines:
        if line.startswith("train") and word in line:
            return seconds
    raise BenchmarkError(f"jobs/train.py printed no line with {word!r}: {[line for _, line in lines]}")


def measure(quick: bool) -> Outcome:
    helps = interleaved({"train.py --help": show_help, "bare Python": bare_python}, 2 if quick else 7)
    prepared_thin()
    runs = [first_step() for _ in range(1 if quick else 2)]
    stages = {name: Spread(tuple(run[name] for run in runs)) for name in runs[0]}
    done = stages["the first step is done"]
    rows = [
        compare("train.py --help", helps["train.py --help"], LIMIT + "the aim", HELP_LIMIT_S, "s", target=1),
        compare("train.py --help", helps["train.py --help"], "bare Python", helps["bare Python"], "s"),
        compare("command to first step", done, LIMIT + "the aim", FIRST_STEP_LIMIT_S, "s", target=1),
    ]
    return Outcome(rows=rows, details={"help": spreads(helps, "s"), "to the first step": spreads(stages, "s")})


if __name__ == "__main__":
    run_benchmark(measure)
