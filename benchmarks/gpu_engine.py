"""The product's training step without Ray, on generated slices: resident and streamed, augmented and not."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from benchmarks.generated import Generated
from benchmarks.gpu_step import Figures, Pace, Step, Variant, bare_step, bare_variants, step_figures
from benchmarks.gpu_trainer import Form, Trainer, alone, recorder, resident, streamed_from_memory
from benchmarks.harness import LIMIT, Row, compare
from brats.config import Augmentation, Precision, TrainConfig


@dataclass(frozen=True, kw_only=True)
class EngineVariant:
    """How the product's step is run."""

    batch_size: int
    precision: Precision
    form: Form = "graph"
    feeding: str = "resident"
    augmentation: Augmentation = "full"

    def __str__(self) -> str:
        return (
            f"batch {self.batch_size}, {self.precision}, {self.form}, {self.feeding}, augmentation "
            f"{self.augmentation}"
        )

    @property
    def bare(self) -> Variant:
        """The bare step that is its limit."""
        return Variant(batch_size=self.batch_size, precision=self.precision, form=self.form)


def engine_variants(batch_sizes: Sequence[int], precisions: Sequence[Precision]) -> list[EngineVariant]:
    """The product's way at every batch size and precision, and what changes one thing about it."""
    usual = [
        EngineVariant(batch_size=batch_size, precision=precision)
        for batch_size in batch_sizes
        for precision in precisions
    ]
    changes: list[Callable[[EngineVariant], EngineVariant]] = [
        lambda one: dataclasses.replace(one, augmentation="none"),
        lambda one: dataclasses.replace(one, feeding="streamed"),
        lambda one: dataclasses.replace(one, form="eager"),
    ]
    changed = [change(one) for one in usual if one.precision == precisions[0] for change in changes]
    return usual + changed


def engine_step(variant: EngineVariant, generated: Generated, config: TrainConfig, device: torch.device) -> Step:
    """The next step of an endless training, every recording made."""
    config = dataclasses.replace(config, batch_size=variant.batch_size, augmentation=variant.augmentation)
    trainer = Trainer.of(
        generated,
        config,
        alone(device, variant.precision),
        make_feed=resident if variant.feeding == "resident" else streamed_from_memory,
        record=recorder(variant.form, device),
    )
    for _ in range(2 * generated.training_set(config).plan.steps_per_epoch):
        trainer.step()
    return trainer.step


@dataclass(frozen=True, kw_only=True)
class StepFigures:
    """Bare steps and those of the product, as far as they fit into memory.

    too_large: names of those that did not
    """

    bare: Mapping[Variant, Figures]
    engine: Mapping[EngineVariant, Figures]
    too_large: Sequence[str] = ()

    def details(self) -> dict[str, str]:
        found = {f"bare step, {name}": str(figures) for name, figures in self.bare.items()}
        found |= {f"train step, {name}": str(figures) for name, figures in self.engine.items()}
        return {**found, **({"too large for the memory": "; ".join(self.too_large)} if self.too_large else {})}

    def rows(self) -> list[Row]:
        """The product's steps against their limits, the changed ones against the product's way."""
        return [*self._against_bare(), *self._against_others()]

    def _against_bare(self) -> Iterator[Row]:
        for variant, found in self.engine.items():
            if variant.bare in self.bare:
                yield compare(
                    f"train step, {variant}", found.slices_per_s, LIMIT + "bare step, tensors on the device",
                    self.bare[variant.bare].slices_per_s, "slices/s", more_is_better=True,
                )  # fmt: skip

    def _against_others(self) -> Iterator[Row]:
        graphs = {variant: found for variant, found in self.bare.items() if variant.form == "graph"}
        for graph, found in graphs.items():
            for other, figures in self.bare.items():
                if other.batch_size == graph.batch_size and other.precision == graph.precision and other != graph:
                    yield compare(
                        f"bare step, {graph}", found.slices_per_s, str(other), figures.slices_per_s, "slices/s",
                        more_is_better=True,
                    )  # fmt: skip


def measure_steps(
    generated: Generated,
    config: TrainConfig,
    device: torch.device,
    batch_sizes: Sequence[int],
    precisions: Sequence[Precision],
    pace: Pace,
) -> StepFigures:
    """All variants, those of one batch size beside each other."""
    bare: dict[Variant, Figures] = {}
    engine: dict[EngineVariant, Figures] = {}
    too_large: list[str] = []
    size = generated.training_set(config).size
    for batch_size in batch_sizes:
        bares = [one for one in bare_variants(batch_sizes, precisions, device) if one.batch_size == batch_size]
        engines = [one for one in engine_variants(batch_sizes, precisions) if one.batch_size == batch_size]
        makers: dict[Variant | EngineVariant, Callable[[], Step]] = {
            **{one: _bare_maker(one, config, device, size) for one in bares},
            **{one: _engine_maker(one, generated, config, device) for one in engines},
        }
        n_slices = {one: slices_per_step(one, generated, config) for one in makers}
        found, missing = step_figures({one: (n_slices[one], make) for one, make in makers.items()}, device, pace)
        bare |= {one: found[one] for one in bares if one in found}
        engine |= {one: found[one] for one in engines if one in found}
        too_large += [str(one) for one in missing]
    return StepFigures(bare=bare, engine=engine, too_large=too_large)


def slices_per_step(variant: Variant | EngineVariant, generated: Generated, config: TrainConfig) -> float:
    """Slices of a step, in the mean: the batches of an epoch differ by one."""
    if isinstance(variant, Variant):
        return variant.batch_size
    plan = generated.training_set(dataclasses.replace(config, batch_size=variant.batch_size)).plan
    return plan.slices_per_epoch / plan.steps_per_epoch


def _bare_maker(
    variant: Variant, config: TrainConfig, device: torch.device, size: tuple[int, int]
) -> Callable[[], Step]:
    return lambda: bare_step(variant, config, device, size)


def _engine_maker(
    variant: EngineVariant, generated: Generated, config: TrainConfig, device: torch.device
) -> Callable[[], Step]:
    return lambda: engine_step(variant, generated, config, device)
