"""Several runs of `train`: at the same time where the cluster has room, one after the other elsewhere.

Networks that find room beside each other are fitted by child processes. Then every run is gone through in this
process, which finds those networks fitted, and does all the rest, such as predicting, with all machines.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from brats import storage
from brats.cluster.capacity import Capacity, cluster_capacity
from brats.cluster.owned import owned
from brats.cluster.placement import FEEDING_CPUS
from brats.config import TrainConfig
from brats.console import say
from brats.errors import BratsError, NoRoomError
from brats.pipeline.several.children import run_children
from brats.pipeline.several.cross_validate import finish, lay_out
from brats.pipeline.several.ensemble import has_members
from brats.pipeline.train import TrainedRun

T = TypeVar("T")


def train_run(config: TrainConfig) -> TrainedRun:
    """Run the whole job that `TrainConfig` describes, or what is left of it, be it of one network or of several."""
    (outcome,) = train_all([config])
    if isinstance(outcome, BratsError):
        raise outcome
    return outcome


def train_all(configs: Sequence[TrainConfig]) -> list[TrainedRun | BratsError]:
    """Train every run into its own --out, or what is left of it; for one that fails, why, in its place."""
    with ExitStack() as owning:
        laid_out = [attempt(functools.partial(_lay_out, config, owning)) for config in configs]
        networks = [run for runs in laid_out if not isinstance(runs, BratsError) for run in runs]
        failed = train_beside(networks)
        outcomes: list[TrainedRun | BratsError] = []
        for number, (config, runs) in enumerate(zip(configs, laid_out, strict=True), 1):
            if isinstance(runs, BratsError):
                outcomes.append(runs)
                continue
            if len(configs) > 1:
                say("train", f"run {number} of {len(configs)}, in {config.out}")
            outcomes.append(attempt(functools.partial(finish, config, failed)))
    return outcomes


def _lay_out(config: TrainConfig, owning: ExitStack) -> list[TrainConfig]:
    """Lay a run out; one of several networks is owned from here on, as `train` owns one of a single network."""
    if config.cross_validation is not None or has_members(config):
        owning.enter_context(owned(config.out, "train"))
    return lay_out(config)


def attempt(work: Callable[[], T]) -> T | BratsError:
    """What it returns, or the error that ended it."""
    try:
        return work()
    except BratsError as error:
        return error


@dataclass(frozen=True)
class Share:
    """How many networks are trained at a time, and with how many workers each."""

    at_once: int
    workers: int


def share_out(runs: Sequence[TrainConfig], capacity: Capacity) -> Share:
    """As many networks at a time as there are GPUs for, or machines where no GPU is used.

    A network has the workers that are asked for, else its share of them. The CPUs must suffice for all workers and
    for the tasks that feed each network.
    """
    n_gpus = 0 if any(run.device == "cpu" for run in runs) else sum(machine.gpus for machine in capacity.grown)
    room = n_gpus or sum(machine.cpus > 0 for machine in capacity.grown)
    workers = max(run.workers for run in runs) or max(1, room // len(runs))
    n_cpus = sum(machine.cpus for machine in capacity.grown)
    return Share(min(len(runs), room // workers, int(n_cpus / (workers + FEEDING_CPUS))), workers)


def train_beside(runs: Sequence[TrainConfig]) -> dict[str, BratsError]:
    """Train those of these networks that are not trained yet side by side, if there is room for two of them.

    Returns those that failed, by folder, and why. Those that found no room are not among them: machines that were
    counted on may never come, and the one that is there is free for them afterwards.
    """
    left = [run for run in runs if not is_trained(run)]
    if len(left) < 2:
        return {}
    share = share_out(left, cluster_capacity())
    if share.at_once < 2:
        return {}
    workers = f"{share.workers} worker{'s' if share.workers > 1 else ''} each"
    say("train", f"{len(left)} networks, {share.at_once} at a time with {workers}")
    alone = [dataclasses.replace(run, workers=share.workers) for run in left]
    ended = run_children(alone, share.at_once, ray_address())
    failed = {out: error for out, error in ended.items() if not isinstance(error, NoRoomError)}
    if n_without_room := len(ended) - len(failed):
        say(
            "train",
            f"{n_without_room} of {len(left)} networks found no room beside the others; they come after them",
        )
    return failed


def ray_address() -> str:
    """The address of the cluster, also of one that is embedded in this process."""
    import ray

    return os.environ.get("RAY_ADDRESS") or str(ray.get_runtime_context().gcs_address)


def is_trained(run: TrainConfig) -> bool:
    """Whether a run of one network has come to its end."""
    from brats.model.history import HISTORY, history_path
    from brats.model.schedule import bounded, finished

    try:
        history = storage.read_table(history_path(run.out), HISTORY).to_pylist()
    except FileNotFoundError:
        return False
    return bool(history) and finished(history, bounded(run, history[0]["n_steps"]))
