"""T4s that Ray sees and torch does not: the work of a process is placed on GPUs and computed on CPUs."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from brats.cluster.placement import Placement
from brats.config import PredictConfig
from brats.model.history import HistoryRow
from brats.pipeline import predict
from brats.pipeline.predictor import Predictor, Work
from brats.pipeline.workers import fit
from brats.pipeline.workers.fit import make_trainer
from brats.pipeline.workers.worker import TrainingTask


def pretend() -> None:
    """Let the jobs that this process starts compute on CPUs, wherever they are placed."""
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers find the modules of brats alone
    predict.__dict__.update(Predictor=PredictorOnCpu, check_gpus=pass_any)
    fit.__dict__.update(make_trainer=make_trainer_on_cpus, check_gpus=pass_any)


def on_cpu(placement: Placement) -> Placement:
    return dataclasses.replace(placement, use_gpu=False, threads=1)


class PredictorOnCpu(Predictor):
    def __init__(self, config: PredictConfig, work: Work, placement: Placement, counter: Any) -> None:
        super().__init__(config, work, on_cpu(placement), counter)


def make_trainer_on_cpus(
    task: TrainingTask,
    placement: Placement,
    history: Sequence[HistoryRow],
    loop: Callable[[dict[str, Any]], Any],
    settings: Mapping[str, Any],
) -> Any:
    """A trainer whose workers have GPUs, which they leave alone."""
    own = {**settings, "loop": loop, "placement": on_cpu(placement)}
    return make_trainer(task, placement, history, train_on_cpu, own, backend="gloo")


def train_on_cpu(spec: dict[str, Any]) -> None:
    import ray.train.torch
    import torch

    ray.train.torch.__dict__["get_device"] = lambda: torch.device("cpu")
    spec["loop"](spec)


def pass_any(placement: Placement) -> None:
    """In place of the check that torch can use the GPUs."""
    assert placement.use_gpu
