"""Claim 8: training and inference on a GPU, beside what its arithmetic allows.

Axes: `B` batch, `C` modality, `R` region, `H W` slice axes.
"""

import functools
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.command import run_benchmark
from benchmarks.harness import LIMIT, Outcome, Row, Spread, check_growth, compare
from benchmarks.plain import History, Job, read_history, train_plainly
from benchmarks.scaling import gflop_per_slice
from benchmarks.scoring import SHIFTS, make_pair, whole_case
from benchmarks.sources import copies, job_command, phantoms, prepared, run_job, trained_run, warm
from benchmarks.training import Task
from benchmarks.watch import watch
from brats.config import MODALITIES, Precision, TrainConfig
from brats.data.preprocess import read_case
from brats.model.bundle import find_bundle
from brats.model.inference import Segmenter
from brats.model.losses import bce_dice_loss, region_targets
from brats.model.precision import DTYPES, autocast, choose_precision
from brats.model.unet import build_unet

SIZE = (192, 160)
OF_COMPUTE, OF_PLAIN, OVERLAP = 0.9, 0.95, 1 / 1.15
MATRIX_SIDE = 8192
NO_GPU = "gpu: skipped, torch finds no GPU here; run `make bench-gpu` on a machine with one"


@dataclass(frozen=True)
class Variant:
    """How the network is run."""

    name: str
    precision: Precision
    channels_last: bool
    compiled: bool


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a variant reaches in training."""

    slices_per_s: Spread
    tflops: float
    memory_mb: float

    def __str__(self) -> str:
        return f"{self.slices_per_s} slices/s, {self.tflops:.1f} TFLOP/s, {self.memory_mb:.0f} MB"


def variants(precision: Precision) -> list[Variant]:
    """The product's way is the last but one."""
    return [
        Variant("eager, fp32, channels first", "fp32", channels_last=False, compiled=False),
        Variant("eager, fp32, channels last", "fp32", channels_last=True, compiled=False),
        Variant(f"eager, {precision}, channels first", precision, channels_last=False, compiled=False),
        Variant(f"eager, {precision}, channels last", precision, channels_last=True, compiled=False),
        Variant(f"compiled, {precision}, channels last", precision, channels_last=True, compiled=True),
    ]


def training_step(
    variant: Variant, config: TrainConfig, device: torch.device, size: tuple[int, int]
) -> Callable[[], None]:
    """One optimiser step as the product takes it, written out so that parts of it can be varied."""
    torch.manual_seed(0)
    network = build_unet(
        encoder=config.encoder, n_channels=len(MODALITIES), decoder_channels=config.decoder_channels
    ).to(device)
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format
    network = network.to(memory_format=layout).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate)
    scaler = torch.amp.GradScaler(device.type, enabled=variant.precision == "fp16")
    inputs = torch.randn(config.batch_size, len(MODALITIES), *size, device=device).contiguous(memory_format=layout)
    targets = region_targets(torch.randint(0, 4, (config.batch_size, *size), device=device))
    model: Callable[[Tensor], Tensor] = torch.compile(network) if variant.compiled else network

    def step() -> None:
        for rows in torch.arange(config.batch_size).split(config.micro_batch_size):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            with autocast(variant.precision, device):
                logits = model(inputs[part])
            loss = bce_dice_loss(logits, targets[part]) * (len(rows) / config.batch_size)
            scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad(set_to_none=True)

    return step


def step_rates(
    device: torch.device, config: TrainConfig, size: tuple[int, int], n_steps: int, rounds: int
) -> dict[str, Figures]:
    """Every variant's rate, one after the other in each round; memory is the most while it runs alone."""
    precision = choose_precision("auto", device)
    gflop = 3 * gflop_per_slice(size)  # backward is twice the arithmetic of forward
    steps: dict[str, Callable[[], None]] = {}
    memory_mb: dict[str, float] = {}
    for variant in variants(precision):
        before_mb = _reset_memory(device)
        steps[variant.name] = training_step(variant, config, device, size)
        for _ in range(3):
            steps[variant.name]()
        memory_mb[variant.name] = _peak_memory_mb(device) - before_mb
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            seconds = _timed(lambda step=step: [step() for _ in range(n_steps)], device)  # type: ignore[misc]
            rates[name].append(n_steps * config.batch_size / seconds)
    return {
        name: Figures(
            slices_per_s=Spread(tuple(found)),
            tflops=Spread(tuple(found)).median * gflop / 1000,
            memory_mb=memory_mb[name],
        )
        for name, found in rates.items()
    }


def matrix_tflops(device: torch.device, precision: Precision, side: int, n_products: int) -> float:
    """The rate of large matrix products, which no network exceeds."""
    left, right = (torch.randn(side, side, device=device, dtype=DTYPES[precision]) for _ in range(2))
    product = torch.empty_like(left)
    torch.mm(left, right, out=product)
    seconds = _timed(lambda: [torch.mm(left, right, out=product) for _ in range(n_products)], device)
    return 2 * side**3 * n_products / seconds / 1e12


def _timed(run: Callable[[], Any], device: torch.device) -> float:
    _finish(device)
    started = time.perf_counter()
    run()
    _finish(device)
    return time.perf_counter() - started


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _reset_memory(device: torch.device) -> float:
    """Start counting anew; return what is in use, in MB."""
    if device.type != "cuda":
        return 0.0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated() / 2**20


def _peak_memory_mb(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else 0.0


def train_on_gpu(task: Task) -> tuple[History, History]:
    """The histories of `python jobs/train.py` with one GPU worker and of the plain loop with slices in memory."""
    with task.config() as config:
        run_job(
            "train", "--data", str(config.data), "--out", config.out, "--preset", task.preset, "--no-predict",
            "--epochs", str(task.epochs), "--workers", "1", "--device", "cuda",
        )  # fmt: skip
        ours = read_history(config.out)
    with task.config() as config:
        return ours, train_plainly(Job.of(config, "cuda"), 1)


def stage_costs(run: Path, n_cases: int) -> dict[str, float]:
    """Seconds per case of each stage of predicting, the stages on cores spread over all of them."""
    device = torch.device("cuda")
    segmenter = Segmenter.load(find_bundle(str(run)), device, "auto")
    files = phantoms(n_cases)
    warm(files)
    seconds = {"read": 0.0, "network": 0.0, "score": 0.0}
    for turn, found in enumerate([files[0], *files]):  # the first once more, to warm up
        started = time.perf_counter()
        case = read_case(found, MODALITIES)
        read_s = time.perf_counter() - started
        network_s = _timed(functools.partial(segmenter.labels, case, 16), device)
        pair = make_pair(found, SHIFTS[0])
        started = time.perf_counter()
        whole_case(pair)
        score_s = time.perf_counter() - started
        if turn:
            for name, value in zip(seconds, (read_s, network_s, score_s), strict=True):
                seconds[name] += value / n_cases
    n_cores = len(os.sched_getaffinity(0))
    return {name: value if name == "network" else value / n_cores for name, value in seconds.items()}


def predict_s_per_case(run: Path, few: int, many: int) -> float:
    """Wall seconds of `jobs/predict.py` per further case: its start does not count."""
    walls = []
    for n_cases in (few, many):
        with copies(phantoms(4), n_cases) as data, TemporaryDirectory() as out:
            command = job_command("predict", "--model", str(run), "--data", data, "--out", out, "--device", "cuda")
            walls.append(watch(command).wall_s)
    seconds = (walls[1] - walls[0]) / (many - few)
    check_growth("predict on a GPU", seconds)
    return seconds


def bottleneck(history: History, of_compute: float, of_matrix: float) -> str:
    """Which resource holds training back."""
    waiting = sum(row["data_wait_s"] for row in history[1:]) / sum(row["train_s"] for row in history[1:])
    if waiting > 0.1:
        return f"reading: the GPU waits for slices {waiting:.0%} of the time"
    if of_compute < OF_COMPUTE:
        return (
            f"the loop around the step: it waits for data {waiting:.0%}, yet reaches {of_compute:.0%} of the step"
        )
    return (
        f"the network's own layers: the GPU is never short of data, and reaches {of_matrix:.0%} of its matrix rate"
    )


def measure(quick: bool) -> Outcome:
    if not torch.cuda.is_available():
        return Outcome(skipped=NO_GPU)
    device = torch.device("cuda")
    config = TrainConfig(out="run")
    precision = choose_precision("auto", device)
    matrix = matrix_tflops(device, precision, MATRIX_SIDE, 20)
    figures = step_rates(device, config, SIZE, n_steps=5 if quick else 30, rounds=2 if quick else 5)
    chosen = variants(precision)[3].name
    task = Task(prepared(6), "brats", 3 if quick else 6)
    ours, plain = train_on_gpu(task)
    rates = [Spread(tuple(row["slices_per_s"] for row in history[1:])) for history in (ours, plain)]
    run = trained_run(prepared(6), "brats", 3)
    stages = stage_costs(run, 2 if quick else 4)
    case_s = predict_s_per_case(run, 8, 16 if quick else 48)
    slowest = max(stages, key=lambda name: stages[name])
    rows = training_rows(figures, chosen, matrix, rates[0], rates[1])
    rows.append(
        compare(
            "predict on a GPU", case_s, f"{LIMIT}slowest stage, {slowest}", stages[slowest], "s", target=OVERLAP
        )
    )
    of_compute = rates[0].median / figures[chosen].slices_per_s.median
    details = {
        **{f"step, {name}": str(found) for name, found in figures.items()},
        "matrix products": f"{matrix:.0f} TFLOP/s in {precision}",
        "through Ray": f"{rates[0]} slices/s, {ours[-1]['peak_memory_mb']:.0f} MB of GPU memory",
        "predict": f"{1 / case_s:.2f} cases/s end to end; stages: {stages}",
        "bottleneck": bottleneck(ours, of_compute, figures[chosen].tflops / matrix),
    }
    return Outcome(rows=rows, details=details)


def training_rows(
    figures: Mapping[str, Figures], chosen: str, matrix: float, ours: Spread, plain: Spread
) -> list[Row]:
    """Training through Ray against its limits, and the product's variant of the step against the others."""
    best = figures[chosen]
    rows = [
        compare(
            "train on a GPU", ours, LIMIT + "the same step, tensors on the GPU", best.slices_per_s, "slices/s",
            target=OF_COMPUTE, more_is_better=True,
        ),
        compare(
            "train on a GPU", ours, LIMIT + "plain loop, slices in memory", plain, "slices/s", target=OF_PLAIN,
            more_is_better=True,
        ),
        compare(
            "arithmetic of the step", best.tflops, LIMIT + "matrix products", matrix, "TFLOP/s", more_is_better=True
        ),
    ]  # fmt: skip
    rows += [
        compare("step on a GPU", best.slices_per_s, name, found.slices_per_s, "slices/s", more_is_better=True)
        for name, found in figures.items()
        if name != chosen
    ]
    return rows


if __name__ == "__main__":
    run_benchmark(measure)
