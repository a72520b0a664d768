"""What cannot be tested without a GPU, verified on one in two minutes, on slices generated on the spot.

`python -m benchmarks.gpu --check [--device cpu]`: one line a check; the exit status is 1 when one fails, and 2
where there is no GPU. On a CPU the same checks run, with stand-ins for what only a GPU has.
"""

import dataclasses
import gc
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.generated import Generated, generate
from benchmarks.gpu_limits import in_fp16, memory_for, step_bytes
from benchmarks.gpu_trainer import (
    Trainer,
    alone,
    group_of_one,
    recorder,
    refuse,
    resident,
    steady_batch,
    streamed,
    uneven_batch,
)
from brats.config import Precision, TrainConfig
from brats.errors import BratsError
from brats.model.engine import WARM_UP_STEPS
from brats.model.graph import Recorder, Recording, Work, recordable
from brats.model.precision import choose_precision
from brats.model.training import fit

# Rounding alone drives two trainings apart. With weights moved by one millionth, the losses of 50 steps of a
# resnet18 on a CPU differed by 0.27 % in the mean in bf16 (0.06 % in fp32), and after 4 steps its weights lay
# 0.03 % of their way apart in fp32 (5 % in bf16). An update left out or taken twice by a recording exceeds both.
SAME_LOSSES = 0.02  # mean relative difference
SAME_WEIGHTS = 0.2  # distance after the first replays, as a part of the way that they have moved the weights
N_REPLAYS = 4  # after which weights are compared: later, rounding has driven them too far apart
SOME_STEPS = 10  # of which the last are replayed
HUGE_SCALE = 2.0**40  # of the fp16 loss: no gradient fits
FREE_SHARE = 0.6  # of what a whole batch takes, left to it where memory is to run out


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where and on what is checked.

    n_steps: that graph and eager are compared over
    """

    generated: Generated
    config: TrainConfig
    device: torch.device
    precision: Precision
    n_steps: int

    def trainer(self, record: Recorder, *, precision: Precision | None = None, **changes: Any) -> Trainer:
        """A training from its start, with changes of the configuration."""
        worker = alone(self.device, precision or self.precision)
        return Trainer.of(self.generated, dataclasses.replace(self.config, **changes), worker, record=record)

    @property
    def graph(self) -> Recorder:
        return recorder("graph", self.device)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found."""

    ok: bool
    figures: str


def graph_against_eager(site: Site) -> Finding:
    """Replayed steps do what steps taken kernel by kernel do."""
    graph, eager = site.trainer(site.graph), site.trainer(refuse)
    difference = mean_difference(graph.losses(site.n_steps), eager.losses(site.n_steps))
    return Finding(
        ok=difference <= SAME_LOSSES and not graph.said,
        figures=f"losses of {site.n_steps} steps in {site.precision} differ by {difference:.2%} (at most "
        f"{SAME_LOSSES:.0%}){quoted(graph.said)}",
    )


def weights_after_replays(site: Site) -> Finding:
    """Replayed updates move the weights as updates taken kernel by kernel do."""
    config = dataclasses.replace(site.config, batch_size=steady_batch(site.generated, site.config, N_REPLAYS))
    graph, eager = (
        Trainer.of(site.generated, config, alone(site.device, "fp32"), record=record)
        for record in (site.graph, refuse)
    )
    for trainer in (graph, eager):
        trainer.losses(WARM_UP_STEPS)
    start = eager.weights()
    for trainer in (graph, eager):
        trainer.losses(N_REPLAYS)
    weights = eager.weights()
    apart = float((graph.weights() - weights).norm() / (weights - start).norm())
    return Finding(
        ok=apart <= SAME_WEIGHTS and not graph.said,
        figures=f"after {N_REPLAYS} replays in fp32 weights lie {apart:.1%} of their way apart (at most "
        f"{SAME_WEIGHTS:.0%}){quoted(graph.said)}",
    )


def graphs_around_an_exchange(site: Site) -> Finding:
    """Between two workers, gradients are exchanged between two graphs; here the other one is pretended."""
    worker = dataclasses.replace(alone(site.device, site.precision), world_size=2)
    with group_of_one(site.device):
        graph, eager = (
            Trainer.of(site.generated, site.config, worker, record=record) for record in (site.graph, refuse)
        )
        difference = mean_difference(graph.losses(site.n_steps), eager.losses(site.n_steps))
    return Finding(
        ok=difference <= SAME_LOSSES and not graph.said,
        figures=f"losses of {site.n_steps} steps of half the slices differ by {difference:.2%} (at most "
        f"{SAME_LOSSES:.0%}), gradients in {str(graph.learner.gradients.wire.dtype).removeprefix('torch.')}"
        f"{quoted(graph.said)}",
    )


def mean_difference(one: Sequence[float], other: Sequence[float]) -> float:
    """The mean relative difference of two series of losses."""
    return float(np.mean(np.abs(np.array(one) / np.array(other) - 1)))


def quoted(said: Sequence[str]) -> str:
    return "".join(f'; it said: "{line}"' for line in said)


def smaller_batch(site: Site) -> Finding:
    """The last, smaller batches of an epoch get a recording of their own, and no slice is lost."""
    config = dataclasses.replace(site.config, batch_size=uneven_batch(site.generated, site.config))
    sizes: list[int] = []

    def counting(work: Work, tensors: Mapping[str, Tensor]) -> Recording:
        sizes.append(len(tensors["parameters"]))
        return site.graph(work, tensors)

    plan = site.generated.training_set(config).plan
    worker = alone(site.device, site.precision)
    series = []
    for record in (counting, refuse):
        trainer = Trainer.of(site.generated, config, worker, record=record)
        series.append([trainer.sums(plan.steps_per_epoch) for _ in range(3)])
    n_slices = sum(sums.n_slices for sums in series[0][-1])
    difference = mean_difference(*[[sums.loss_sum / sums.n_slices for sums in epochs[-1]] for epochs in series])
    return Finding(
        ok=len(set(sizes)) == len(sizes) == 2 and n_slices == plan.slices_per_epoch and difference <= SAME_LOSSES,
        figures=f"batches of {' and '.join(map(str, sizes))} recorded, {n_slices} slices of "
        f"{plan.slices_per_epoch}, losses of the third epoch differ from eager ones by {difference:.2%}",
    )


def resumed_run(site: Site) -> Finding:
    """A run resumed from its checkpoint ends as one that was never stopped."""
    config = dataclasses.replace(site.config, epochs=2)
    with TemporaryDirectory() as whole, TemporaryDirectory() as cut:
        straight, _ = train(site, config, whole, stop_after=2)
        _, before = train(site, config, cut, stop_after=1)
        resumed, after = train(site, config, cut, stop_after=2)
    return Finding(
        ok=before == after == 1 and mean_difference(resumed, straight) <= SAME_LOSSES,
        figures=f"{before} and then {after} epochs trained; mean losses {rounded(resumed)}, {rounded(straight)} "
        "without the stop",
    )


def rounded(losses: Sequence[float]) -> str:
    return " ".join(f"{loss:.4f}" for loss in losses)


def train(site: Site, config: TrainConfig, run: str, stop_after: int) -> tuple[list[float], int]:
    """Train as the jobs do, from the last checkpoint of a run on, for so many epochs at most.

    Returns the mean losses of all epochs of the run, and how many were trained now.
    """
    asked = itertools.count(1)  # once after each epoch
    worker = alone(site.device, site.precision)
    history = fit(
        config,
        worker,
        data=site.generated.training_set(config),
        feed=resident(site.generated, config, worker),
        val_paths=site.generated.val_paths,
        run=run,
        on_epoch=lambda _history: None,
        on_progress=lambda _progress: None,
        ends_early=lambda: next(asked) >= stop_after,
    )
    return [row["train_loss"] for row in history], next(asked) - 1


def fp16_overflow(site: Site) -> Finding:
    """A gradient that overflows in fp16 halves the scale and moves no weight; then training goes on."""
    trainer = in_fp16(site.generated, site.config, site.device)
    trainer.losses(SOME_STEPS)
    scaler, before = trainer.learner.scaler, trainer.weights()
    scaler.update(HUGE_SCALE)
    skipped = trainer.sums(1)
    halved = scaler.get_scale() == HUGE_SCALE / 2 and bool(torch.equal(before, trainer.weights()))
    while skipped[-1].n_bad and scaler.get_scale() >= 1:
        skipped += trainer.sums(1)
    after = trainer.losses(3)
    moved = not torch.equal(before, trainer.weights())
    n_skipped = sum(sums.n_bad for sums in skipped)
    return Finding(
        ok=skipped[0].n_bad == 1 and halved and moved and bool(np.isfinite(after).all()),
        figures=f"{n_skipped} steps skipped, the first {'without' if halved else 'WITH'} a trace; from a scale of "
        f"{scaler.get_scale():g} on losses are {rounded(after)}",
    )


def resident_against_streamed(site: Site) -> Finding:
    """Slices that stay on the device and those of a stream give the same training."""
    worker = alone(site.device, site.precision)
    n_steps = site.generated.training_set(site.config).plan.steps_per_epoch
    losses = [
        Trainer.of(site.generated, site.config, worker, make_feed=feed, record=site.graph).losses(n_steps)
        for feed in (resident, streamed)
    ]
    difference = mean_difference(*losses)
    return Finding(
        ok=difference <= SAME_LOSSES,
        figures=f"losses of {n_steps} steps differ by {difference:.2%} (at most {SAME_LOSSES:.0%})",
    )


def full_memory(site: Site) -> Finding:
    """Where a whole batch does not fit into memory, smaller micro-batches are found, and said."""
    large = 4 * site.config.batch_size
    needed = step_bytes(site.trainer(refuse, batch_size=large))
    trainer = site.trainer(site.graph, batch_size=large)
    with memory_for(trainer, FREE_SHARE * needed, large // 2):
        losses = trainer.losses(5)
    return Finding(
        ok=any("at a time" in line for line in trainer.said) and bool(np.isfinite(losses).all()),
        figures=f"losses in a memory for {FREE_SHARE:.0%} of a step of {large} slices: {rounded(losses)}"
        f"{quoted(trainer.said)}",
    )


def uncapturable_encoder(site: Site) -> Finding:
    """A network that decides by what is on the device cannot be recorded, and trains all the same."""
    # Without graphs nothing would refuse it.
    trainer = site.trainer(site.graph if site.device.type == "cuda" else refuse)

    def decide(_network: Any, inputs: tuple[Tensor, ...]) -> None:
        if not torch.isfinite(inputs[0].sum()):
            raise BratsError("the input is not finite")

    trainer.learner.network.register_forward_pre_hook(decide)
    losses = trainer.losses(SOME_STEPS)
    if site.device.type == "cuda":
        torch.cuda.empty_cache()  # which torch refuses where a recording was broken off
    return Finding(
        ok=len(trainer.said) == 1 and bool(np.isfinite(losses).all()),
        figures=f"losses {rounded(losses[-3:])}{quoted(trainer.said)}",
    )


CHECKS: dict[str, Callable[[Site], Finding]] = {
    "graph against eager": graph_against_eager,
    "weights of graph and eager": weights_after_replays,
    "graphs around an exchange": graphs_around_an_exchange,
    "smaller last batches": smaller_batch,
    "resume": resumed_run,
    "fp16 overflow": fp16_overflow,
    "resident against streamed": resident_against_streamed,
    "full memory": full_memory,
    "encoder that cannot be captured": uncapturable_encoder,
}


def check_all(device: torch.device, config: TrainConfig, shape: tuple[int, int, int], n_steps: int) -> bool:
    """Run every check, print its line; whether all are well."""
    precision = choose_precision("auto", device)
    print(f"checking {device} ({precision}) on generated slices of {shape[0]} x {shape[1]}", flush=True)
    all_ok = True
    with TemporaryDirectory() as folder, recordable(device):
        generated = generate(Path(folder), 7, shape, config.modalities)
        site = Site(generated=generated, config=config, device=device, precision=precision, n_steps=n_steps)
        for name, check in CHECKS.items():
            started = time.monotonic()
            found = attempt(check, site)
            all_ok &= found.ok
            outcome = "ok" if found.ok else "FAILED"
            print(f"{name}: {outcome}, {time.monotonic() - started:.1f} s: {found.figures}", flush=True)
            gc.collect()
    return all_ok


def attempt(check: Callable[[Site], Finding], site: Site) -> Finding:
    """What a check finds; where it breaks off, why: the checks after it are made all the same."""
    try:
        return check(site)
    except (BratsError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        return Finding(ok=False, figures=f"{type(error).__name__}: {reason}")
