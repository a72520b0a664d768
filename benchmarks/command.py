"""How a benchmark is run on its own: `python -m benchmarks.reading [--quick]`."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness import BenchmarkError, Outcome, Row
from benchmarks.results import table
from brats.errors import BratsError


def run_benchmark(measure: Callable[[bool], Outcome]) -> None:
    """Measure, print the table and end: 0 done or skipped, 1 when it cannot be measured or the sides disagree.

    measure: takes whether to be quick (fewest repetitions, smallest sizes)
    """
    parser = argparse.ArgumentParser(description=sys.modules[measure.__module__].__doc__)
    parser.add_argument("--quick", action="store_true", help="fewest repetitions and smallest sizes, to try it out")
    parser.add_argument("--json", type=Path, help="write the rows and details to this file as well")
    arguments = parser.parse_args()
    try:
        outcome = measure(arguments.quick)
    except (BenchmarkError, BratsError) as error:
        sys.exit(f"{parser.prog}: {error}")
    print(outcome.skipped or table(outcome.rows), flush=True)
    for name, value in outcome.details.items():
        print(f"  {name}: {value if isinstance(value, str) else json.dumps(value)}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(outcome), allow_nan=False))


def read_outcome(path: Path) -> Outcome:
    """What a benchmark wrote with `--json`."""
    content = json.loads(path.read_text())
    return Outcome(**{**content, "rows": [Row.from_json(row) for row in content["rows"]]})
