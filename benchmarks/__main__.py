"""Every benchmark, one after the other, each in a process of its own; then one table and the results.

`python -m benchmarks [--quick] [--only NAME ...]`. Nothing is written when one of them fails.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.command import read_outcome
from benchmarks.harness import BenchmarkError, Outcome, require
from benchmarks.results import table, write_results

NAMES = ("reading", "preparing", "training", "predicting", "scoring", "startup", "stored", "gpu", "scaling")
PEERS = ("monai", "torchio", "medpy", "surface_distance")


def run(name: str, quick: bool) -> Outcome:
    """One benchmark. Raises BenchmarkError when it fails; it has said why."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "outcome.json"
        command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{name}", "--json", str(path)]
        print(f"\n{name}", flush=True)
        if subprocess.run(command + ["--quick"] * quick).returncode:
            raise BenchmarkError(f"{name} failed; no results are written")
        return read_outcome(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="fewest repetitions and smallest sizes; writes nothing"
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="these alone; latest.json stays")
    arguments = parser.parse_args()
    try:
        require(*PEERS)
        outcomes = {name: run(name, arguments.quick) for name in arguments.only}
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
