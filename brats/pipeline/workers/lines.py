"""The lines of a training on the console: what is about to be trained, its epochs, progress within a long one."""

from collections.abc import Sequence
from typing import Any

from brats.cluster.placement import Placement
from brats.config import TrainConfig
from brats.console import duration, say, share_of_time
from brats.labels import REGIONS
from brats.model.history import HistoryRow, dice_column
from brats.pipeline.workers.worker import TrainingTask


def announce(task: TrainingTask, placement: Placement, history: Sequence[HistoryRow]) -> None:
    """Report what is about to be trained, on what."""
    config, plan = task.config, task.data.plan
    epoch = f"{plan.slices_per_epoch} slices in {plan.steps_per_epoch} steps"
    resumed = f", resuming after epoch {len(history)}" if history else ""
    network = f"U-Net {config.encoder} on {', '.join(config.modalities)}"
    say("train", f"{network}; {placement}; {amount(config)} of {epoch}{resumed}")


def amount(config: TrainConfig) -> str:
    """How much is trained, worded to be followed by what an epoch holds."""
    if config.minutes is not None:
        return f"{duration(60 * config.minutes)} in epochs"
    return f"{config.steps} steps in epochs" if config.steps is not None else f"{config.epochs} epochs"


def show_done(config: TrainConfig, history: Sequence[HistoryRow]) -> None:
    """Report that there is nothing left to train."""
    done = f"{len(history)} epochs are done"
    if config.steps is not None:
        done = f"{sum(row['n_steps'] for row in history)} steps are done"
    elif config.minutes is not None:
        done = f"{share_of_time(sum(row['elapsed_s'] for row in history), 60 * config.minutes)} are done"
    say("train", f"nothing to do: {done}")
    show_patience(config, history)


def show_patience(config: TrainConfig, history: Sequence[HistoryRow]) -> None:
    """Report that training has ended before its bound, where it has."""
    from brats.model.schedule import out_of_patience

    if out_of_patience(history, config):
        say(
            "train",
            f"no better validation Dice in {config.patience} validations: ended before its time (--patience)",
        )


def show(task: TrainingTask, news: Any) -> None:
    """The line of what a worker reports: a message, a history with a new epoch, or progress within one."""
    from brats.model.schedule import EpochProgress

    if isinstance(news, str):
        say("train", news)
    elif isinstance(news, EpochProgress):
        show_progress(task, news)
    else:
        show_epoch(task, news)


def show_progress(task: TrainingTask, progress: Any) -> None:
    """The line of a long epoch that has come so far."""
    config = task.config
    step = f"step {progress.step}/{task.data.plan.steps_per_epoch}"
    if config.steps is not None:
        step = f"step {progress.run_step}/{config.steps}"
    where = position(config, progress.epoch, progress.elapsed_s)
    say("train", f"{where}  {step}  {progress.slices_per_s:.0f} slices/s{_left(config, progress.left_s)}")


def show_epoch(task: TrainingTask, history: Sequence[HistoryRow]) -> None:
    """The line of the last epoch of a history."""
    from brats.model.schedule import Schedule, moment_of, overhead

    config, row, now = task.config, history[-1], moment_of(history)
    left_s = Schedule.of(config, task.data.plan.steps_per_epoch, history).left_s(now, overhead(history))
    where = position(config, row["epoch"], now.elapsed_s)
    step = f"  step {now.step}" if config.steps is not None else ""  # of how many, the line has no room for
    found = {region: row[dice_column(region)] for region in REGIONS}
    dice = " ".join(f"{region} {value:.3f}" for region, value in found.items() if value is not None)
    say(
        "train",
        f"{where}{step}  loss {row['train_loss']:.3f} val {row['val_loss']:.3f}  Dice {dice}  "
        f"{row['slices_per_s']:.0f} slices/s{_left(config, left_s)}",
    )


def position(config: TrainConfig, epoch: int, elapsed_s: float) -> str:
    """Where a run is: of its epochs, or of its time."""
    if config.minutes is not None:
        return f"epoch {epoch}  {share_of_time(elapsed_s, 60 * config.minutes)}"
    return f"epoch {epoch}" if config.epochs is None else f"epoch {epoch}/{config.epochs}"


def _left(config: TrainConfig, left_s: float) -> str:
    """The time left, where the line does not say it already."""
    return "" if config.minutes is not None else f"  {duration(left_s)} left"
