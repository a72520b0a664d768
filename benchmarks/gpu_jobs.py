"""Training and predicting on a GPU as users run them: `jobs/train.py` and `jobs/predict.py`, with Ray."""

import functools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.gpu_step import timed
from benchmarks.harness import LIMIT, Row, Spread, check_growth, compare
from benchmarks.plain import History, read_history
from benchmarks.scoring import SHIFTS, make_pair, whole_case
from benchmarks.sources import copies, job_command, phantoms, run_job, warm
from benchmarks.watch import watch
from brats.config import MODALITIES, Augmentation, Device, Preset
from brats.data.cases import CaseFiles
from brats.data.preprocess import read_case
from brats.model.bundle import find_bundle
from brats.model.inference import BATCH_SIZES, Segmenter
from brats.model.levels import segment

MAX_WAIT = 0.01  # of the time that training takes
MAX_BETWEEN = 0.05  # of a run's time: validation, checkpoints and all else between the epochs


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """A run of `jobs/train.py` with one worker."""

    preset: Preset
    batch_size: int
    feeding: str
    augmentation: Augmentation
    epochs: int
    device: Device

    def __str__(self) -> str:
        return f"batch {self.batch_size}, {self.feeding}, augmentation {self.augmentation}"

    def run(self, data: Path, out: Path) -> History:
        """Train on a prepared dataset; return the history. Raises BenchmarkError when the job fails."""
        run_job(
            "train", "--data", str(data.resolve()), "--out", str(out), "--preset", self.preset, "--no-predict",
            "--epochs", str(self.epochs), "--workers", "1", "--device", self.device,
            "--batch-size", str(self.batch_size), "--feeding", self.feeding, "--augmentation", self.augmentation,
        )  # fmt: skip
        return read_history(str(out))


def settled(history: History, column: str) -> Spread:
    """A figure of every epoch but the first, in which kernels are chosen and steps recorded."""
    return Spread(tuple(float(row[column]) for row in history[1:]))


def share_between(history: History) -> float:
    """How much of the time is not training: validation, checkpoints, history. On a GPU not after every epoch."""
    trained, elapsed = (sum(settled(history, column).values) for column in ("train_s", "elapsed_s"))
    return 1 - trained / elapsed


def share_waited(history: History) -> Spread:
    """How much of the training time of each epoch goes to waiting for slices."""
    return Spread(tuple(row["data_wait_s"] / row["train_s"] for row in history[1:]))


def job_rows(job: TrainJob, history: History, limit: Spread | None, target: float | None) -> list[Row]:
    """A run against its limits.

    limit:  slices/s of the bare step, where it was measured
    target: of the rate to that limit, None where it only informs
    """
    stage = f"jobs/train.py, {job}"
    rows = [
        compare(f"{stage}: waiting for data", share_waited(history), LIMIT + "the aim", MAX_WAIT, "of the time",
                target=1),
        compare(f"{stage}: between epochs", share_between(history), LIMIT + "the aim", MAX_BETWEEN, "of the time",
                target=1),
    ]  # fmt: skip
    if limit is not None:
        rate = settled(history, "slices_per_s")
        rows.insert(
            0,
            compare(stage, rate, LIMIT + "the bare step", limit, "slices/s", target=target, more_is_better=True),
        )
    return rows


def stage_costs(run: Path, cases: Sequence[CaseFiles], device: torch.device) -> dict[str, Spread]:
    """Seconds per case of each stage of predicting, the stages on cores spread over all of them."""
    segmenter = Segmenter.load(find_bundle(str(run)), device, "auto")
    warm(cases)
    n_cores = len(os.sched_getaffinity(0))
    seconds: dict[str, list[float]] = {"read": [], "network": [], "score": []}
    for turn, found in enumerate([cases[0], *cases]):  # the first once more, to warm up
        started = time.perf_counter()
        case = read_case(found, MODALITIES)
        read_s = (time.perf_counter() - started) / n_cores
        network_s = timed(functools.partial(segment, segmenter, case, BATCH_SIZES[device.type]), device)
        pair = make_pair(found, SHIFTS[0])
        started = time.perf_counter()
        whole_case(pair)
        score_s = (time.perf_counter() - started) / n_cores
        for name, value in zip(seconds, (read_s, network_s, score_s), strict=True):
            seconds[name] += [value] if turn else []
    return {name: Spread(tuple(values)) for name, values in seconds.items()}


def predict_rate(run: Path, device: Device, few: int, many: int, rounds: int) -> Spread:
    """Cases per second of `jobs/predict.py`, of each case beyond the first few: its start does not count."""
    rates = []
    for _ in range(rounds):
        walls = []
        for n_cases in (few, many):
            with copies(phantoms(4), n_cases) as data, TemporaryDirectory() as out:
                command = job_command(
                    "predict", "--model", str(run), "--data", data, "--out", out, "--device", device
                )
                walls.append(watch(command).wall_s)
        seconds = (walls[1] - walls[0]) / (many - few)
        check_growth("predict on a GPU", seconds)
        rates.append(1 / seconds)
    return Spread(tuple(rates))


def predict_rows(rate: Spread, stages: dict[str, Spread], aim: float | None) -> list[Row]:
    """Predicting against its slowest stage and, where there is one for this hardware, an aim in cases/s."""
    slowest = max(stages, key=lambda name: stages[name].median)
    limit = Spread(tuple(1 / value for value in stages[slowest].values))
    rows = [
        compare("predict on a GPU", rate, f"{LIMIT}slowest stage, {slowest}", limit, "cases/s", more_is_better=True)
    ]
    if aim is not None:
        rows.append(
            compare("predict on a GPU", rate, LIMIT + "the aim", aim, "cases/s", target=1, more_is_better=True)
        )
    return rows
