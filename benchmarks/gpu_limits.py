"""The limits of a GPU brought about: a memory that is full, and the range of fp16. On a CPU, stand-ins for them."""

import dataclasses
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from benchmarks.generated import Generated
from benchmarks.gpu_trainer import Trainer, alone, recorder, resident
from brats.config import TrainConfig
from brats.data.batches import InputSpec
from brats.model.learner import Learner

LARGEST_FP16 = torch.finfo(torch.float16).max


def step_bytes(trainer: Trainer) -> int:
    """Bytes of the GPU that a step takes at most, beside what the training holds before it; 0 on a CPU."""
    device = trainer.learner.worker.device
    if device.type != "cuda":
        trainer.losses(1)
        return 0
    held = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    trainer.losses(1)
    return torch.cuda.max_memory_allocated(device) - held


@contextmanager
def memory_for(trainer: Trainer, n_bytes: float, n_slices: int) -> Iterator[None]:
    """Inside, a training can take so many bytes more of a GPU; on a CPU its network takes so many slices."""
    device = trainer.learner.worker.device
    if device.type != "cuda":
        with most_slices(trainer, n_slices):
            yield
        return
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    share = (torch.cuda.memory_reserved(device) + n_bytes) / total
    torch.cuda.set_per_process_memory_fraction(min(1.0, share), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


@contextmanager
def most_slices(trainer: Trainer, n_slices: int) -> Iterator[None]:
    """Inside, the network runs out of memory on more slices at a time."""

    def refuse_more(_network: Any, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs[0]) > n_slices:
            raise torch.OutOfMemoryError(f"more than {n_slices} slices")

    hook = trainer.learner.network.register_forward_pre_hook(refuse_more)
    try:
        yield
    finally:
        hook.remove()


def in_fp16(generated: Generated, config: TrainConfig, device: torch.device) -> Trainer:
    """A training in fp16. CPUs take half a minute for a step of it: there, gradients have its range alone."""
    if device.type == "cuda":
        return Trainer.of(generated, config, alone(device, "fp16"), record=recorder("graph", device))
    worker = alone(device, "fp32")
    learner = Learner.of(config, InputSpec.of(config), worker)
    learner = dataclasses.replace(learner, scaler=torch.amp.GradScaler(device.type))
    learner.network.register_forward_hook(_limit_gradient)
    return Trainer.around(learner, resident(generated, config, worker), recorder("graph", device))


def _limit_gradient(_network: Any, _inputs: Any, logits: Tensor) -> None:
    """Make what fp16 cannot hold of the logits' gradient infinite."""
    if logits.requires_grad:
        logits.register_hook(lambda gradient: gradient.masked_fill(gradient.abs() > LARGEST_FP16, torch.inf))
