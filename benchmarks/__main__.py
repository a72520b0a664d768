"""Every benchmark, one after the other, each in a process of its own; then one table and the results.

`python -m benchmarks [--quick] [--only NAME ...] [--resume] [--against FILE [--with FILE]]`. Nothing is written
when one of them fails; with `--resume` the next run keeps what those before it found. With `--against` the results
are compared with earlier ones.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.against import Comparison, Run, read_results
from benchmarks.command import read_outcome
from benchmarks.harness import BenchmarkError, Outcome, require
from benchmarks.results import hardware, table, versions, write_results
from benchmarks.sources import KEPT
from brats.cluster.connect import COMPUTE

NAMES = ("reading", "preparing", "training", "predicting", "scoring", "startup", "stored", "gpu", "scaling", "link")
PEERS = {  # packages that a benchmark measures beside ours
    "reading": ("monai", "torchio"),
    "training": ("monai",),
    "predicting": ("monai",),
    "scoring": ("monai", "medpy", "surface_distance"),
}


def run(name: str, quick: bool, resume: bool) -> Outcome:
    """One benchmark. Raises BenchmarkError when it fails; it has said why."""
    path = KEPT / "outcomes" / f"{name}{'-quick' * quick}.json"
    if not (resume and path.exists()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{name}", "--json", str(path)]
        print(f"\n{name}", flush=True)
        # All sides take memory as in a worker of Ray; malloc looks at the environment when a process starts.
        if subprocess.run(command + ["--quick"] * quick, env={**COMPUTE, **os.environ}).returncode:
            raise BenchmarkError(f"{name} failed; no results are written; --resume keeps those before it")
    return read_outcome(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="fewest repetitions and smallest sizes; writes nothing"
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="these alone; latest.json stays")
    parser.add_argument("--resume", action="store_true", help="keep what a run that broke off has found")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="compare with these results; 1 is returned if a stage is worse"
    )
    parser.add_argument(
        "--with", type=Path, dest="later", metavar="FILE", help="with --against: measure nothing, compare this file"
    )
    arguments = parser.parse_args()
    if arguments.later and not arguments.against:
        parser.error("--with needs --against: the earlier results")
    if arguments.quick and arguments.against:
        parser.error("--quick measures other sizes than the results that --against names")
    before, later = (earlier_run(path) for path in (arguments.against, arguments.later))
    try:
        now = later or measure(arguments)
    except BenchmarkError as error:
        sys.exit(f"benchmarks: {error}")
    if before:
        comparison = Comparison.of(before, now)
        print(f"\n{comparison}")
        sys.exit(1 if comparison.worse else 0)


def earlier_run(path: Path | None) -> Run | None:
    """The run of a file of results, None without one. Ends the program with 2 where it cannot be read."""
    try:
        return read_results(path) if path else None
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        sys.exit(2)


def measure(arguments: argparse.Namespace) -> Run:
    """Run the benchmarks, print the table and write the results. Raises BenchmarkError when one of them fails."""
    require(*dict.fromkeys(peer for name in arguments.only for peer in PEERS.get(name, ())))
    outcomes = {name: run(name, arguments.quick, arguments.resume) for name in arguments.only}
    rows = [row for outcome in outcomes.values() for row in outcome.rows]
    print(f"\n{table(rows)}")
    for outcome in outcomes.values():
        if outcome.skipped:
            print(outcome.skipped)
    if arguments.quick:
        print("nothing is written: --quick is for trying out")
    elif rows:
        whole = set(arguments.only) == set(NAMES)
        details = {name: outcome.details for name, outcome in outcomes.items()}
        path = write_results(rows, details, name="" if whole else "-".join(arguments.only), latest=whole)
        print(f"written to {path}")
    return Run(name="this run", hardware=hardware(), versions=versions(), rows=rows)


if __name__ == "__main__":
    main()
