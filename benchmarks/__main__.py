"""Every benchmark, one after the other, each in a process of its own; then one table and the results.

`python -m benchmarks [--quick] [--only NAME ...] [--resume]`. Nothing is written when one of them fails; with
`--resume` the next run keeps what those before it found.
"""

import argparse
import os
import subprocess
import sys

from benchmarks.command import read_outcome
from benchmarks.harness import BenchmarkError, Outcome, require
from benchmarks.results import table, write_results
from benchmarks.sources import KEPT
from brats.cluster.connect import MEMORY

NAMES = ("reading", "preparing", "training", "predicting", "scoring", "startup", "stored", "gpu", "scaling", "link")
PEERS = ("monai", "torchio", "medpy", "surface_distance")


def run(name: str, quick: bool, resume: bool) -> Outcome:
    """One benchmark. Raises BenchmarkError when it fails; it has said why."""
    path = KEPT / "outcomes" / f"{name}{'-quick' * quick}.json"
    if not (resume and path.exists()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{name}", "--json", str(path)]
        print(f"\n{name}", flush=True)
        # All sides take memory as in a worker of Ray; malloc looks at the environment when a process starts.
        if subprocess.run(command + ["--quick"] * quick, env={**MEMORY, **os.environ}).returncode:
            raise BenchmarkError(f"{name} failed; no results are written; --resume keeps those before it")
    return read_outcome(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="fewest repetitions and smallest sizes; writes nothing"
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="these alone; latest.json stays")
    parser.add_argument("--resume", action="store_true", help="keep what a run that broke off has found")
    arguments = parser.parse_args()
    try:
        require(*PEERS)
        outcomes = {name: run(name, arguments.quick, arguments.resume) for name in arguments.only}
    except BenchmarkError as error:
        sys.exit(f"benchmarks: {error}")
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


if __name__ == "__main__":
    main()
