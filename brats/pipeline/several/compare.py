"""Presets trained on the same cases, split and seeds, one run each, and compared on the test split."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from brats import storage
from brats.cluster.owned import Ownership, owned
from brats.config import BOUNDS, CompareConfig, PresetName, TrainConfig
from brats.console import duration, say, some
from brats.data.dataset import is_prepared, read_case_table, slices_path
from brats.data.run_split import SplitRow, choose_split, freeze_split, test_dir
from brats.errors import BratsError, ConfigError
from brats.pipeline.several.ensemble import freeze_below
from brats.pipeline.several.side_by_side import train_all
from brats.pipeline.several.timing import Timing, timing_of
from brats.pipeline.train import TrainedRun
from brats.presets import PRESETS, train_defaults
from brats.report.comparison import Claim, Facts, console_summary, page
from brats.saved_config import SavedConfig, result_fields
from brats.score.compare import COMPARISON, Cost, ScoredRun, background_scores, compare_runs, shared_cases, unscored
from brats.score.tables import NOTEBOOK, metrics_path, read_case_metrics

LEAST_PATIENTS = 2  # of which differences and an interval can be had
DEFAULT_REFERENCE: PresetName = "brats"
CLAIMS = (  # as published, see docs/presets.md
    Claim(preset="augmented-dropout", baseline="augmented-dropout-baseline", dice_points=10, time_saved=0.3),
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A finished comparison: its folder, its table, and what its page says beside it."""

    out: str
    table: pa.Table
    facts: Facts

    def summary(self) -> str:
        """The scores as a small table, and where everything is, for the console."""
        lines = [console_summary(self.table, self.facts)]
        lines += [f"table    {table_path(self.out)}", f"page     {page_path(self.out)}"]
        return "\n".join(lines)

    def check(self) -> None:
        """Raise BratsError where a training failed."""
        if failed := self.facts.failures:
            raise BratsError(f"trainings that failed: {'; '.join(failed)}; the same command goes on from here")


def compare(config: CompareConfig) -> Comparison:
    """Train what is missing, compare all presets that are trained, and write the table and the page.

    Raises ConfigError where another job is at work in `config.out`, or it holds another comparison; BratsError
    when no training ended.
    """
    with owned(config.out, "compare") as ownership:
        return _compare(config, ownership)


def _compare(config: CompareConfig, ownership: Ownership) -> Comparison:
    saved = SavedConfig.of("compare", config)
    saved.check(config.out)
    twins = twins_of(config)
    presets = [preset for preset in config.presets if preset not in twins]
    if len(presets) < 2:
        raise ConfigError(
            f"--presets: {' and '.join(config.presets)} are the same training; name another preset too"
        )
    split = common_split(config)
    saved.write(config.out)
    freeze_split(config.out, split, config.data)
    trainings = [training_of(config, preset, seed) for seed in range(config.seeds) for preset in presets]
    say("compare", f"{len(trainings)} trainings, each {length(config)}: {', '.join(presets)}")
    for twin, preset in twins.items():
        say("compare", f"{twin} is trained as {preset} is, so {preset} alone is trained")
    for training in trainings:
        freeze_below(training, split, config.data)
    trained: dict[tuple[str, int], TrainedRun] = {}
    failures = {}
    for training, outcome in zip(trainings, train_all(trainings), strict=True):
        if isinstance(outcome, BratsError):
            failures[f"{training.preset}, seed {training.seed}"] = str(outcome)
        else:
            trained[training.preset, training.seed] = outcome
    if not trained:
        name, reason = next(iter(failures.items()))
        raise BratsError(f"no training came to its end; the first of {len(failures)}, {name}: {reason}")
    paths = [slices_path(config.data, row["case_id"]) for row in held_out(split)]
    timing = timing_of(config, first_models(trained), paths)
    runs = [scored_run(preset, seed, run, timing) for (preset, seed), run in trained.items()]
    facts = facts_of(config, split, runs, timing, failures)
    table = compare_runs(runs, facts.reference)
    ownership.check()
    storage.write_table(table_path(config.out), COMPARISON, table, config=asdict(config), timed_on=timing.machine)
    storage.write_bytes(page_path(config.out), page(table, facts).encode())
    return Comparison(out=config.out, table=table, facts=facts)


def common_split(config: CompareConfig) -> list[SplitRow]:
    """The split of all trainings: the one that the comparison was started with, else that of the dataset today.

    Raises ConfigError unless the data is a prepared dataset with all cases of the comparison and enough to test on.
    """
    if not is_prepared(config.data):
        raise ConfigError(f"--data: {config.data} is not a prepared dataset; make one with jobs/prepare.py")
    modalities = read_case_table(config.data)[0]["modalities"]  # a preset that needs others fails by itself
    whole = TrainConfig(data=config.data, out=config.out, modalities=tuple(modalities))
    split = choose_split(whole, config.out, config.data)
    n_patients = len({row["patient_id"] for row in held_out(split)})
    if n_patients < LEAST_PATIENTS:
        raise ConfigError(
            f"--data: the test split of {config.data} holds {n_patients} patient{'' if n_patients == 1 else 's'}, "
            f"and {LEAST_PATIENTS} are needed to compare on; prepare more cases, or with a larger --test-fraction"
        )
    return split


def reference_of(config: CompareConfig) -> PresetName:
    """The preset that the others are tested against, whether or not its trainings come to their end."""
    return DEFAULT_REFERENCE if DEFAULT_REFERENCE in config.presets else config.presets[0]


def twins_of(config: CompareConfig) -> dict[str, str]:
    """Presets that are the same training as another one, with that one; the reference is nobody's twin."""
    known: list[tuple[str, dict[str, Any]]] = []
    twins: dict[str, str] = {}
    for preset in dict.fromkeys((reference_of(config), *config.presets)):
        recipe = result_fields(training_of(config, preset, seed=0))
        same = next((other for other, theirs in known if theirs == recipe), None)
        if same:
            twins[preset] = same
        else:
            known.append((preset, recipe))
    return twins


def training_of(config: CompareConfig, preset: PresetName, seed: int) -> TrainConfig:
    """The run of a preset with a seed."""
    bound = {name: value for name in BOUNDS if (value := getattr(config, name)) is not None}
    common: dict[str, Any] = {
        "data": config.data,
        "out": storage.join(config.out, preset, f"seed_{seed}"),
        "seed": seed,
        "workers": config.workers,
        "device": config.device,
        "precision": config.precision,
        "loggers": config.loggers,
        "wait_minutes": config.wait_minutes,
        "debug": config.debug,
    }
    return TrainConfig(**{**train_defaults(preset, bound), **bound, **common})


def length(config: CompareConfig) -> str:
    """How long each preset is trained, worded to follow "each trained"."""
    if config.minutes is not None:
        return f"for {duration(60 * config.minutes)}"
    if config.steps is not None:
        return f"for {config.steps:,} steps"
    return f"for {config.epochs} epochs" if config.epochs is not None else "as long as it says"


def first_models(trained: Mapping[tuple[str, int], TrainedRun]) -> dict[str, str]:
    """The bundle of the first seed of each preset, by preset: other seeds are as fast."""
    from brats.model.bundle import bundle_dir

    models: dict[str, str] = {}
    for (preset, _), run in trained.items():
        models.setdefault(preset, bundle_dir(run.out))
    return models


def held_out(split: Sequence[SplitRow]) -> list[SplitRow]:
    """The cases of the test split, which no preset has seen."""
    return [row for row in split if row["split"] == "test"]


def scored_run(preset: str, seed: int, run: TrainedRun, timing: Timing) -> ScoredRun:
    """What a run has scored on the test split, and what it took."""
    from brats.model.bundle import bundle_dir, load_bundle
    from brats.model.ensemble import bundles_of

    networks = [load_bundle(folder)[0] for folder in bundles_of(bundle_dir(run.out))]
    predictions = test_dir(run.out)
    return ScoredRun(
        preset=preset,
        seed=seed,
        cases=read_case_metrics(predictions),
        notebook=storage.read_table(metrics_path(predictions, "notebook"), NOTEBOOK).to_pandas(),
        cost=Cost(
            n_parameters=sum(weights.numel() for network in networks for weights in network.parameters()),
            training_minutes=sum(row["elapsed_s"] for row in run.history) / 60,
            seconds_per_case=timing.seconds[preset],
            peak_memory_mb=max(row["peak_memory_mb"] for row in run.history),
        ),
    )


def facts_of(
    config: CompareConfig,
    split: Sequence[SplitRow],
    runs: Sequence[ScoredRun],
    timing: Timing,
    failures: Mapping[str, str],
) -> Facts:
    """What the page says beside the table. Raises BratsError where no case has scores of all runs."""
    tested, shared = [row["case_id"] for row in held_out(split)], shared_cases(runs)
    left_out = unscored(runs, tested)
    cases = {row["case_id"]: row["patient_id"] for row in held_out(split) if row["case_id"] in shared}
    if not cases:
        lacking = "; ".join(f"{name} lacks {some(names)}" for name, names in left_out.items())
        raise BratsError(f"no case of the test split has scores of every preset and seed: {lacking}")
    described = [row for row in read_case_table(config.data) if row["case_id"] in cases]
    return Facts(
        reference=reference_of(config),
        twins=twins_of(config),
        data=config.data,
        n_cases=len(cases),
        n_patients=len(set(cases.values())),
        length=length(config),
        timed_on=timing.machine,
        published={name: preset.published for name, preset in PRESETS.items() if preset.published},
        claims=CLAIMS,
        background=background_scores(described),
        background_of_two=background_scores(described, regions=("WT",)),
        failures=failures,
        left_out=left_out,
    )


def table_path(out: str) -> str:
    return storage.join(out, "comparison.parquet")


def page_path(out: str) -> str:
    return storage.join(out, "comparison.md")
