"""Runs of several networks: each is trained as a run of its own below --out, and their models are averaged."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

from brats import storage
from brats.config import HDF5_CHANNELS, HDF5_SPACING_MM, Plane, ReportConfig, TrainConfig
from brats.console import say
from brats.data.dataset import read_case_table
from brats.data.run_split import (
    SplitRow,
    check_cases,
    choose_split,
    freeze_split,
    read_prepared,
    read_split,
    split_path,
    test_dir,
)
from brats.errors import BratsError, ConfigError
from brats.pipeline.export import write_card
from brats.pipeline.report import report
from brats.pipeline.train import ChooseSplit, TrainedRun, claim, predict_test_split, train

# The order of training. Coronal and sagittal slices must fit in the memory of the workers, which these alone know:
# where they do not, that is reported before the hours that the axial network takes, whose slices can be streamed.
PLANES: tuple[Plane, ...] = ("coronal", "sagittal", "axial")


def has_members(config: TrainConfig) -> bool:
    """Whether a run averages several networks."""
    return config.seeds > 1 or config.triplanar


def members_of(config: TrainConfig, prepared: str) -> list[TrainConfig]:
    """The runs whose models a run averages, each in a folder of its own below it; none for a run of one network."""
    if not has_members(config):
        return []
    return [
        dataclasses.replace(
            below(config, _member_name(config, plane, seed), prepared),
            plane=plane,
            triplanar=False,
            seed=seed,
            seeds=1,
            predict=False,
        )
        for plane in (PLANES if config.triplanar else (config.plane,))
        for seed in range(config.seed, config.seed + config.seeds)
    ]


def _member_name(config: TrainConfig, plane: Plane, seed: int) -> str:
    """What of a member differs from the others: `axial`, `seed_0`, or `axial_seed_0`."""
    parts = [plane] if config.triplanar else []
    return "_".join([*parts, *([f"seed_{seed}"] if config.seeds > 1 else [])])


def below(config: TrainConfig, name: str, prepared: str) -> TrainConfig:
    """A run that is a part of this one, on the same prepared cases, in the folder of this name below it."""
    from brats.model.initial import initial_dir

    out = storage.join(config.out, name)
    init = initial_dir(config.out) if config.init else None  # the copy of the whole run
    return dataclasses.replace(
        config,
        out=out,
        data=prepared,
        coding="auto",
        hdf5_channels=HDF5_CHANNELS,
        hdf5_spacing_mm=HDF5_SPACING_MM,
        cross_validation=None,
        init=init,
    )


def lay_out(config: TrainConfig) -> list[TrainConfig]:
    """Settle which cases the networks of a run see, and return the run of each; that of one network is itself."""
    if not has_members(config):
        return [config]
    prepared, split = begin(config, choose_split)
    members = members_of(config, prepared)
    for member in members:
        freeze_below(member, split, prepared)
    return members


def begin(config: TrainConfig, choose: ChooseSplit) -> tuple[str, list[SplitRow]]:
    """Claim the folder of a run of several networks, all of which its cases suit; return its dataset and split."""
    return claim(config, functools.partial(_choose_for_members, choose))


def _choose_for_members(choose: ChooseSplit, config: TrainConfig, run: str, prepared: str) -> list[SplitRow]:
    split = choose(config, run, prepared)
    cases = {row["case_id"]: row for row in read_case_table(prepared)}
    for member in members_of(config, prepared):  # refused now, not after the others are trained
        check_cases(split, cases, member, run, prepared)
    return split


def freeze_below(run: TrainConfig, split: Sequence[SplitRow], prepared: str) -> None:
    """Give a part of a run its split. Raises ConfigError where its folder holds a run with another one."""
    if storage.exists(split_path(run.out)) and _assigned(read_split(run.out)) != _assigned(split):
        raise ConfigError(
            f"{run.out}: holds a run with another split than it has here; remove it, or choose another --out"
        )
    freeze_split(run.out, split, prepared)


def _assigned(split: Sequence[SplitRow]) -> dict[str, str]:
    return {row["case_id"]: row["split"] for row in split}


def finish(config: TrainConfig, failed: Mapping[str, BratsError]) -> TrainedRun:
    """Train what is left of a run that was laid out, average its networks, and predict its test split.

    failed: the runs of one network, by folder, that are not to be tried again, and why
    """
    if not has_members(config):
        if config.out in failed:
            raise failed[config.out]
        return train(config)
    prepared, split = read_prepared(config.out), read_split(config.out)
    runs = each(members_of(config, prepared), lambda member: finish(member, failed))
    average(config, {name_of(run.out): run.out for run in runs})
    scores = predict_test_split(config, prepared, split) if config.predict else None
    write_card(config.out)
    history = [row for run in runs for row in run.history]
    return TrainedRun(config.out, history, scores, report(ReportConfig(run=config.out)), runs)


def each(runs: Sequence[TrainConfig], finish_one: Callable[[TrainConfig], TrainedRun]) -> list[TrainedRun]:
    """Finish the parts of a run, one after the other.

    Raises BratsError naming those that failed, after the others; ConfigError where each failed by one.
    """
    done, failed = [], list[tuple[str, BratsError]]()
    for number, run in enumerate(runs, 1):
        name = name_of(run.out)
        say("train", f"{name}, {number} of {len(runs)}, in {run.out}")
        try:
            done.append(finish_one(run))
        except BratsError as error:  # a ConfigError, too: another job in one folder is no matter of the others
            say("train", f"{name} failed: {error}")
            failed.append((name, error))
    if failed:
        raise _failure(failed, len(runs))
    return done


def _failure(failed: Sequence[tuple[str, BratsError]], n_runs: int) -> BratsError:
    """One error for all the parts of a run that failed, by name; a reason that several share is given once."""
    names_of: dict[str, list[str]] = {}
    for name, error in failed:
        names_of.setdefault(str(error), []).append(name)
    reasons = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in names_of.items())
    kind = ConfigError if all(isinstance(error, ConfigError) for _, error in failed) else BratsError
    return kind(f"{len(failed)} of {n_runs} runs failed: {reasons}; the same command goes on with them")


def name_of(folder: str) -> str:
    return folder.rpartition("/")[2]


def average(config: TrainConfig, runs: Mapping[str, str]) -> None:
    """Write the ensemble bundle of the models of these runs, by name, to RUN/model, unless it is there.

    What an earlier bundle has predicted of the test split goes.
    """
    from brats.model.bundle import bundle_dir
    from brats.model.ensemble import bundles_of, save_ensemble

    bundles: dict[str, str] = {}
    for name, run in runs.items():
        found = bundles_of(bundle_dir(run))
        several = len(found) > 1  # of an ensemble: its models count one by one, as each has the same weight
        bundles |= {f"{name}/{name_of(folder)}" if several else name: folder for folder in found}
    save_ensemble(bundle_dir(config.out), bundles, outdated=test_dir(config.out))
    say("train", f"{len(bundles)} models averaged in {bundle_dir(config.out)}")
