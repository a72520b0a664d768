"""The bare training step on tensors that are already on the device: eager, as one CUDA graph, or compiled.

It is written out here, apart from the product, as the limit that the product is held against.

Axes: `B` batch, `C` modality, `H W` slice axes.
"""

import gc
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from benchmarks.harness import Spread
from brats.config import MODALITIES, Precision, TrainConfig
from brats.model.losses import bce_dice_loss, region_targets
from brats.model.precision import DTYPES
from brats.model.unet import build_unet

WARM_UP = 3  # steps before a capture, in which libraries choose kernels and the optimiser makes its state
Step = Callable[[], Any]
Name = TypeVar("Name", bound=Hashable)  # what a step is called


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How the bare step is run."""

    batch_size: int
    precision: Precision
    form: Literal["eager", "graph", "compiled"]
    channels_last: bool = True

    def __str__(self) -> str:
        layout = "" if self.channels_last else ", channels first"
        return f"batch {self.batch_size}, {self.precision}, {self.form}{layout}"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a step reaches.

    memory_mb: of the GPU, the most while it was made ready alone
    """

    slices_per_s: Spread
    memory_mb: float

    def __str__(self) -> str:
        return f"{self.slices_per_s} slices/s, {self.memory_mb:.0f} MB"


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long is measured: rounds of steps that take so many seconds together, and no fewer than so many steps."""

    rounds: int
    round_s: float
    least_steps: int = 3


def bare_step(variant: Variant, config: TrainConfig, device: torch.device, size: tuple[int, int]) -> Step:
    """One optimiser step as the product takes it, without reading, normalising and augmenting slices."""
    torch.manual_seed(0)
    network = build_unet(
        encoder=config.encoder, n_channels=len(MODALITIES), decoder_channels=config.decoder_channels
    ).to(device)
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format
    network = network.to(memory_format=layout).train()
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, fused=True, capturable=device.type == "cuda"
    )
    scaler = torch.amp.GradScaler(device.type, enabled=variant.precision == "fp16")
    shape = (variant.batch_size, len(MODALITIES), *size)
    inputs = torch.randn(shape, device=device).contiguous(memory_format=layout)
    targets = region_targets(torch.randint(0, 4, (variant.batch_size, *size), device=device))
    model: Callable[[Tensor], Tensor] = torch.compile(network) if variant.form == "compiled" else network
    enabled = variant.precision != "fp32"

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        # Without its cache of weights, which would outlive a capture.
        with torch.autocast(device.type, DTYPES[variant.precision], enabled=enabled, cache_enabled=False):
            logits = model(inputs)
        scaler.scale(bce_dice_loss(logits, targets)).backward()
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
        scaler.step(optimiser)
        scaler.update()

    return captured(step) if variant.form == "graph" else step


def captured(step: Step) -> Step:
    """The step as one CUDA graph: it is run a few times, then recorded; what is returned replays it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # a capture must not be on the default stream, nor must what comes before it
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def step_figures(
    makers: Mapping[Name, tuple[float, Callable[[], Step]]], device: torch.device, pace: Pace
) -> tuple[dict[Name, Figures], list[Name]]:
    """Steps beside each other, in turns; and the names of those that do not fit into memory.

    makers: by name the slices of a step, and what makes it ready
    """
    steps: dict[Name, tuple[float, Step]] = {}
    memory_mb: dict[Name, float] = {}
    too_large: list[Name] = []
    for name, (n_slices, make) in makers.items():
        before_mb = reset_memory(device)
        try:
            step = make()
            for _ in range(WARM_UP):
                step()
        except torch.OutOfMemoryError:
            too_large.append(name)
            continue
        steps[name] = n_slices, step
        memory_mb[name] = peak_memory_mb(device) - before_mb
    rates = step_rates(steps, device, pace)
    return {name: Figures(slices_per_s=rate, memory_mb=memory_mb[name]) for name, rate in rates.items()}, too_large


def step_rates(steps: Mapping[Name, tuple[float, Step]], device: torch.device, pace: Pace) -> dict[Name, Spread]:
    """Slices per second of each step, one after the other in each round."""
    rates: dict[Name, list[float]] = {name: [] for name in steps}
    n_steps = {name: _steps_of_a_round(step, device, pace) for name, (_, step) in steps.items()}
    for _ in range(pace.rounds):
        for name, (n_slices, step) in steps.items():
            seconds = timed(repeated(step, n_steps[name]), device)
            rates[name].append(n_steps[name] * n_slices / seconds)
    return {name: Spread(tuple(values)) for name, values in rates.items()}


def _steps_of_a_round(step: Step, device: torch.device, pace: Pace) -> int:
    seconds = timed(repeated(step, pace.least_steps), device) / pace.least_steps
    return max(pace.least_steps, round(pace.round_s / seconds))


def repeated(step: Step, n_steps: int) -> Step:
    def run() -> None:
        for _ in range(n_steps):
            step()

    return run


def bare_variants(
    batch_sizes: Sequence[int], precisions: Sequence[Precision], device: torch.device
) -> list[Variant]:
    """What is measured beside each other; further forms at the first batch size. Graphs need a GPU."""
    first, precision = batch_sizes[0], precisions[0]
    forms: tuple[Literal["graph", "eager"], ...] = ("graph", "eager") if device.type == "cuda" else ("eager",)
    usual = [
        Variant(batch_size=batch_size, precision=kind, form=form)
        for batch_size in batch_sizes
        for kind in precisions
        for form in forms
    ]
    further = [Variant(batch_size=first, precision=precision, form="eager", channels_last=False)]
    if device.type == "cuda":  # where compiling is worth its minute
        further.append(Variant(batch_size=first, precision=precision, form="compiled"))
        further.append(Variant(batch_size=first, precision="fp32", form="eager"))
    return usual + further


def matrix_tflops(device: torch.device, precision: Precision, side: int, pace: Pace) -> Spread:
    """The rate of large matrix products, which no network exceeds."""
    left, right = (torch.randn(side, side, device=device, dtype=DTYPES[precision]) for _ in range(2))
    product = torch.empty_like(left)
    rate = step_rates({"product": (1, lambda: torch.mm(left, right, out=product))}, device, pace)["product"]
    return rate.scaled(2 * side**3 / 1e12)


def timed(run: Step, device: torch.device) -> float:
    """Seconds until the device is done."""
    finish(device)
    started = time.perf_counter()
    run()
    finish(device)
    return time.perf_counter() - started


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_memory(device: torch.device) -> float:
    """Give back what is unused and start counting anew; return what is in use, in MB."""
    gc.collect()
    if device.type != "cuda":
        return 0.0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device) / 2**20


def peak_memory_mb(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
