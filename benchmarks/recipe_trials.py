"""Trials: a network trained on all folds but one and scored on the whole cases of that one; kept in a table."""

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import torch

from benchmarks.harness import BenchmarkError
from benchmarks.plain import Job, train_here
from benchmarks.recipe_folds import split_of_fold
from brats import storage
from brats.config import TrainConfig
from brats.data.case import Case
from brats.data.dataset import slices_path
from brats.data.run_split import SplitRow, choose_split, freeze_split
from brats.data.slices import open_slices
from brats.errors import BratsError
from brats.labels import Labels
from brats.model.bundle import bundle_dir
from brats.model.inference import BATCH_SIZES, Segmenter
from brats.model.tuning import choose_decoding, tuning_case
from brats.pipeline.train import export_model
from brats.saved_config import result_fields
from brats.score.metrics import count_overlap, region_dice

TRIALS = storage.TableKind(
    name="trials of the recipe",
    schema=pa.schema(
        [
            ("entry", pa.string()),
            ("fold", pa.int64()),
            ("seed", pa.int64()),
            ("case_id", pa.string()),
            ("patient_id", pa.string()),
            ("region", pa.string()),
            ("dice", pa.float64()),
            ("n_steps", pa.int64()),
            ("slices_per_s", pa.float64()),
        ]
    ),
    conventions={
        "entry": "what differs from the default recipe, or another program",
        "fold": "that was scored; nothing was chosen by it",
        "dice": "in 3-D over the whole case; both masks empty 1, one empty 0",
        "slices_per_s": "trained on, over the time of training without validation",
    },
)


@dataclass(frozen=True, kw_only=True)
class Site:
    """What all trials of a folder have in common.

    base:   the default recipe, bounded by steps or minutes
    folds:  of each case
    device: "cpu" or "cuda"
    """

    data: str
    out: str
    base: TrainConfig
    rows: Sequence[SplitRow]
    folds: dict[str, int]
    device: str

    @property
    def settings(self) -> dict[str, Any]:
        """What must not differ between trials that are compared: the default recipe, its bounds, and the cases."""
        options = result_fields(self.base)
        del options["seed"]  # each trial has its own
        return {
            **options,
            "steps": self.base.steps,
            "minutes": self.base.minutes,
            "device": torch.cuda.get_device_name() if self.device == "cuda" else "cpu",
            "folds": self.folds,
            "cases": {row["case_id"]: row["source_hash"] for row in self.rows},
        }


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained network, however it was trained.

    labels: the label map (Z, H, W) of a case that has the modalities
    """

    labels: Callable[[Case], Labels]
    modalities: tuple[str, ...]
    n_steps: int
    slices_per_s: float


Train = Callable[[TrainConfig, Sequence[SplitRow], str], Trained]
"""From a configuration, the rows of its split and a device to a network."""


def train_ours(config: TrainConfig, split: Sequence[SplitRow], device: str) -> Trained:
    """Train and export as `jobs/train.py` does, without Ray. Goes on where it was interrupted."""
    history = train_here(Job.of_split(config, split, device))
    export_model(config, split)
    segmenter = Segmenter.load(bundle_dir(config.out), torch.device(device), config.precision)
    if config.tune:
        segmenter = tuned(segmenter, split, str(config.data))
    return Trained(
        labels=lambda case: segmenter.labels(case, BATCH_SIZES[device]),
        modalities=segmenter.inputs.modalities,
        n_steps=sum(row["n_steps"] for row in history),
        slices_per_s=sum(row["n_slices"] for row in history) / sum(row["train_s"] for row in history),
    )


def tuned(segmenter: Segmenter, split: Sequence[SplitRow], data: str) -> Segmenter:
    """The same network with thresholds and rules chosen on the validation cases, as `jobs/train.py` does."""
    found = [
        tuning_case(segmenter, read_case(segmenter, data, row), BATCH_SIZES[segmenter.device.type])
        for row in split
        if row["split"] == "val"
    ]
    return dataclasses.replace(segmenter, decoding=choose_decoding(found, segmenter.regions))


def read_case(segmenter: Segmenter, data: str, row: SplitRow) -> Case:
    """A prepared case with the modalities of a network."""
    return open_slices(slices_path(data, row["case_id"])).read_case(segmenter.inputs.modalities)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A side of the comparison.

    text:       what it tries
    changes:    of the default recipe
    on:         whether the recipe has by default what it takes away
    train:      how it is trained
    """

    name: str
    text: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    on: bool = False
    train: Train = train_ours


@dataclass(frozen=True)
class Trial:
    """An entry, scored on one fold, with one seed."""

    entry: Entry
    fold: int
    seed: int

    def __str__(self) -> str:
        return f"{self.entry.name}, fold {self.fold}, seed {self.seed}"


def config_of(trial: Trial, site: Site) -> TrainConfig:
    """Raises ConfigError where the changes of the entry do not fit together."""
    folder = f"{trial.entry.name}-fold{trial.fold}-seed{trial.seed}"
    out = str(Path(site.out) / "networks" / folder)
    return dataclasses.replace(site.base, data=site.data, out=out, seed=trial.seed, **trial.entry.changes)


def run_trial(trial: Trial, site: Site) -> list[dict[str, Any]]:
    """Train and score; return the rows of the table."""
    config = config_of(trial, site)
    freeze_split(config.out, split_of_fold(site.rows, site.folds, trial.fold), site.data)
    split = choose_split(config, config.out, site.data)  # which checks that the dataset has what the entry needs
    trained = trial.entry.train(config, split, site.device)
    return [
        {
            "entry": trial.entry.name,
            "fold": trial.fold,
            "seed": trial.seed,
            "case_id": row["case_id"],
            "patient_id": row["patient_id"],
            "region": region,
            "dice": dice,
            "n_steps": trained.n_steps,
            "slices_per_s": trained.slices_per_s,
        }
        for row in split
        if row["split"] == "test"
        for region, dice in score(trained, slices_path(site.data, row["case_id"])).items()
    ]


def score(trained: Trained, path: str) -> dict[str, float]:
    """The 3-D Dice of each region of a prepared case."""
    case = open_slices(path).read_case(trained.modalities)
    return dice_of(case, trained.labels(case))


def dice_of(case: Case, predicted: Labels) -> dict[str, float]:
    """The 3-D Dice of each region, of a label map (Z, H, W) of a labelled case."""
    assert case.labels is not None  # only labelled cases are dealt into folds
    found = count_overlap(case.labels, predicted, case.spacing_zhw_mm, case.n_outside)
    return region_dice(found.counts)


def table_path(out: str) -> str:
    return storage.join(out, "trials.parquet")


def read_trials(out: str) -> pd.DataFrame:
    """What has been scored so far. Raises BenchmarkError where that is nothing."""
    try:
        frame: pd.DataFrame = storage.read_table(table_path(out), TRIALS).to_pandas()
    except FileNotFoundError:
        raise BenchmarkError(f"{out}: no trials.parquet here yet; run `screen` first") from None
    if frame.empty:
        raise BenchmarkError(f"{out}: no trial is done yet; run `screen` again, which goes on")
    return frame


def run_trials(trials: Sequence[Trial], site: Site, say: Callable[[str], None]) -> list[str]:
    """Run the trials that the table lacks, each written as it is done; return what failed, a line each.

    Raises BenchmarkError where the table is of other settings.
    """
    rows = _rows_so_far(site)
    done = {(row["entry"], row["fold"], row["seed"]) for row in rows}
    failed = []
    for number, trial in enumerate(trials, 1):
        if (trial.entry.name, trial.fold, trial.seed) in done:
            continue
        try:
            found = run_trial(trial, site)
        except BratsError as error:
            failed.append(f"{trial}: {error}")
            say(f"{number}/{len(trials)} {failed[-1]}")
            continue
        rows += found
        _write(site, rows)
        storage.remove(config_of(trial, site).out)  # checkpoints of many networks fill a disk
        say(f"{number}/{len(trials)} {trial}: {_in_short(found)}")
        if site.device == "cuda":
            torch.cuda.empty_cache()
    return failed


def _rows_so_far(site: Site) -> list[dict[str, Any]]:
    """Those of the table, which is begun here, so that a network left by a first trial has its settings."""
    path = table_path(site.out)
    if not storage.exists(path):
        _write(site, [])
        return []
    table = storage.read_table(path, TRIALS)
    before = storage.read_metadata(table.schema, path, TRIALS)["settings"]
    now = json.loads(json.dumps(site.settings))
    if differing := differences(before, now):
        raise BenchmarkError(f"{path}: made with other {' and '.join(differing)}; choose another --out")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _write(site: Site, rows: Sequence[Mapping[str, Any]]) -> None:
    storage.write_table(table_path(site.out), TRIALS, TRIALS.table(rows), settings=site.settings)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings that differ, by name."""
    return [name for name in now if before.get(name) != now[name]]


def _in_short(rows: Collection[Mapping[str, Any]]) -> str:
    means = pd.DataFrame(rows).groupby("region", sort=False)["dice"].mean()
    first = next(iter(rows))
    dice = " ".join(f"{region} {value:.3f}" for region, value in means.items())
    return f"{dice} mean {means.mean():.3f}, {first['n_steps']} steps, {first['slices_per_s']:.0f} slices/s"
