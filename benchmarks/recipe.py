"""Which ingredients of the recipe help: cross-validated on prepared cases, on one GPU or CPU, without Ray.

    python -m benchmarks.recipe screen    --data PREPARED --out DIR   # each ingredient: two folds, one seed
    python -m benchmarks.recipe finals    --data PREPARED --out DIR   # the default and two finalists, three seeds
    python -m benchmarks.recipe opponents --data PREPARED --out DIR   # the default against two programs with MONAI
    python -m benchmarks.recipe report    --out DIR                   # what is there so far

Every network takes --minutes (or --steps). Run again, it does what is missing; an interrupted network goes on. The
patients of the scored fold choose nothing.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch

from benchmarks.generated import generate_dataset
from benchmarks.harness import BenchmarkError, require
from benchmarks.paired import Difference, difference
from benchmarks.recipe_entries import DEFAULT, INGREDIENTS, OPPONENTS, SAME_RECIPE, USERS_SCRIPT, entry_of
from benchmarks.recipe_folds import folds_of, labelled
from benchmarks.recipe_trials import Entry, Site, Trial, read_trials, run_trials
from benchmarks.results import aligned
from brats.config import TrainConfig
from brats.errors import BratsError
from brats.labels import REGIONS
from brats.presets import PRESETS

N_FOLDS, SCREENED_FOLDS = 4, 2
SCREENING_SEED = 0
FINAL_SEEDS = (1, 2, 3)  # others than the one that chose the finalists
N_FINALISTS = 2
MINUTES = 1.0
BY_AT_LEAST = 0.10  # the mean Dice that the recipe is to be above a user's script
QUICK_SHAPE, QUICK_CASES, QUICK_STEPS = (40, 36, 12), 8, 3
QUICK = {
    "encoder": "tu-test_resnet",
    "encoder_weights": "none",
    "decoder_channels": (8, 8, 8, 8, 8),
    "batch_size": 8,
}
HEADINGS = ("entry", *REGIONS, "mean", "less the default [95 % interval]", "verdict", "slices/s", "n")


def trials_of(step: str, entries: Sequence[Entry], n_folds: int) -> list[Trial]:
    """The trials of a step, those first that say something of every entry soonest."""
    seeds = {"screen": (SCREENING_SEED,), "finals": FINAL_SEEDS, "opponents": FINAL_SEEDS[:1]}[step]
    folds = range(min(SCREENED_FOLDS, n_folds) if step == "screen" else n_folds)
    return [Trial(entry, fold, seed) for seed in seeds for fold in folds for entry in entries]


def entries_of(step: str, names: Sequence[str], out: str) -> list[Entry]:
    """The default and what a step compares with it. Raises BenchmarkError for an unknown name."""
    if names:
        return [DEFAULT, *map(entry_of, names)]
    if step == "screen":
        return [DEFAULT, *INGREDIENTS]
    return [DEFAULT, *(OPPONENTS if step == "opponents" else map(entry_of, finalists(read_trials(out))))]


def finalists(trials: pd.DataFrame) -> list[str]:
    """The ingredients whose Dice in the screening is highest above that of the default."""
    screened = trials[trials["seed"] == SCREENING_SEED]
    found = {entry.name: against_default(screened, entry.name) for entry in INGREDIENTS}
    means = {name: each.mean for name, each in found.items() if each}
    if len(means) < N_FINALISTS:
        raise BenchmarkError("fewer than two ingredients are screened; run `screen` first, or name --only")
    return sorted(means, key=lambda name: -means[name])[:N_FINALISTS]


def against_default(trials: pd.DataFrame, name: str) -> Difference | None:
    """An entry less the default, on what both were scored on and the entry is judged by."""
    judging = judged_by(trials, name)
    ours, default = (judging[judging["entry"] == each] for each in (name, DEFAULT.name))
    return difference(ours, default)


def judged_by(trials: pd.DataFrame, name: str) -> pd.DataFrame:
    """The trials of the finals once an entry has any: those of the screening chose it. All until then."""
    finals = trials[trials["seed"].isin(FINAL_SEEDS)]
    return finals if (finals["entry"] == name).any() else trials


def report(trials: pd.DataFrame) -> str:
    """A table of every entry, and what follows from it."""
    names = list(dict.fromkeys(trials["entry"]))
    cells = [_cells(name, trials) for name in names]
    return "\n".join([aligned(HEADINGS, cells), "", *_conclusions(names, trials)])


def _cells(name: str, trials: pd.DataFrame) -> list[str]:
    judging = judged_by(trials, name)
    own = judging[judging["entry"] == name]
    dice = [own.loc[own["region"] == region, "dice"].mean() for region in REGIONS]
    found = against_default(trials, name) if name != DEFAULT.name else None
    n_trials = len(own[["fold", "seed"]].drop_duplicates())
    return [
        name,
        *(f"{value:.3f}" for value in dice),
        f"{sum(dice) / len(dice):.3f}",
        str(found) if found else "",
        verdict(name, found) if found else "",
        f"{own['slices_per_s'].median():.0f}",
        str(n_trials),
    ]


def verdict(name: str, found: Difference) -> str:
    """What the interval says of an ingredient: it is on by default only where it excludes 0."""
    if name in (USERS_SCRIPT, SAME_RECIPE):
        return found.verdict
    if found.n_seeds == 1:
        return f"{found.verdict}, one seed"
    takes_away = entry_of(name).on
    if found.verdict == "not told apart":
        return "not proved"
    return "on by default" if (found.verdict == "worse") == takes_away else "off by default"


def _conclusions(names: Sequence[str], trials: pd.DataFrame) -> list[str]:
    """What the figures are, and a line for each aim that can be judged by now."""
    lines = [
        f"{trials['patient_id'].nunique()} patients; Dice in 3-D over whole cases; n: networks; intervals by "
        "resampling patients and seeds; an entry of the finals is judged by them alone. An entry without what is "
        "on by default proves it where it is worse.",
    ]
    if USERS_SCRIPT in names and (found := against_default(trials, USERS_SCRIPT)):
        is_reached = _reached(-found.mean >= BY_AT_LEAST)
        lines.append(f"{-found.mean:+.3f} over {USERS_SCRIPT} at equal time; aim {BY_AT_LEAST:+.2f}: {is_reached}")
    if SAME_RECIPE in names and (found := against_default(trials, SAME_RECIPE)):
        rates = judged_by(trials, SAME_RECIPE).groupby("entry")["slices_per_s"].median()
        times = float(rates[DEFAULT.name] / rates[SAME_RECIPE])
        lines.append(f"{-found.mean:+.3f} over {SAME_RECIPE} at equal time; aim +0: {_reached(found.mean <= 0)}")
        lines.append(f"{times:.2f} times its slices per second; aim 1: {_reached(times >= 1)}")
    return lines


def _reached(is_reached: bool) -> str:
    return "reached" if is_reached else "NOT reached"


def site_of(arguments: argparse.Namespace, data: str) -> Site:
    """Raises BenchmarkError and BratsError where the data cannot be dealt into folds."""
    bounds = {"steps": arguments.steps, "minutes": None if arguments.steps else arguments.minutes}
    changes = {**PRESETS["brats"].settings, **(QUICK if arguments.quick else {}), **bounds}
    rows = labelled(data)
    return Site(
        data=data,
        out=str(Path(arguments.out).resolve()),
        base=TrainConfig(**changes, data=data, out=arguments.out),
        rows=rows,
        folds=folds_of(rows, arguments.folds),
        device=arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"),
    )


def compare(arguments: argparse.Namespace) -> list[str]:
    """Run what a step lacks; return what failed."""
    if arguments.step == "opponents":
        require("monai")
    entries = entries_of(arguments.step, arguments.only, arguments.out)
    with ExitStack() as stack:
        data = arguments.data
        if arguments.quick:
            data = generate_dataset(Path(stack.enter_context(TemporaryDirectory())), QUICK_CASES, QUICK_SHAPE)
        site = site_of(arguments, data)
        return run_trials(
            trials_of(arguments.step, entries, arguments.folds), site, lambda line: print(line, flush=True)
        )


def parsed(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Ends the program with 2 where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.recipe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("screen", "finals", "opponents", "report"))
    parser.add_argument("--data", help="a prepared dataset; its own split does not matter")
    parser.add_argument("--out", required=True, help="folder for the table of trials")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for each network (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="for each network, in place of --minutes")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="compare these, also joined by +")
    parser.add_argument("--folds", type=int, default=N_FOLDS, help="(default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is a GPU")
    parser.add_argument(
        "--quick", action="store_true", help="three steps of a tiny network on tiny cases, to try it"
    )
    arguments = parser.parse_args(given)
    if arguments.quick:
        arguments.steps = QUICK_STEPS
    elif not arguments.data and arguments.step != "report":
        parser.error("--data: name a prepared dataset, or give --quick")
    return arguments


def main(given: Sequence[str] | None = None) -> None:
    arguments = parsed(given)
    try:
        failed = [] if arguments.step == "report" else compare(arguments)
        print(report(read_trials(arguments.out)))
    except (BenchmarkError, BratsError) as error:
        sys.exit(f"benchmarks.recipe: {error}")
    if failed:
        sys.exit("\n".join(["benchmarks.recipe: failed, tried again by the same command:", *failed]))


if __name__ == "__main__":
    main()
