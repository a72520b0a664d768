"""Seconds per case of several models, measured in turns on one machine: cases in memory, models loaded before."""

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brats import storage
from brats.cluster.datasets import root_cause
from brats.cluster.placement import Placement, place_workers
from brats.cluster.preflight import check_gpus
from brats.config import CompareConfig, Precision
from brats.console import say
from brats.data.slices import SliceFile
from brats.errors import ClusterError

N_TIMED = 5  # cases
# Each case is taken so often, as long as that takes less than so many seconds: the median over many passes leaves
# out the moments in which the machine was busy. A large network on a CPU takes each case once.
ROUNDS, LONGEST_S = 5, 30.0


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Median seconds from a case in memory to its label map, by the name of the model.

    machine: what computed, in words
    """

    machine: str
    seconds: dict[str, float]


def timing_of(config: CompareConfig, models: Mapping[str, str], case_paths: Sequence[str]) -> Timing:
    """The timing of models, by name the folders of their bundles, on some of these prepared cases.

    The one in OUT/timing.json holds as long as it has all of these models as they are.
    """
    path = storage.join(config.out, "timing.json")
    bundles = {name: _state(folder) for name, folder in models.items()}
    try:
        found = storage.read_json(path)
    except FileNotFoundError:
        found = {"bundles": {}}
    if not bundles.items() <= found["bundles"].items():
        placement = place_workers(config.device, 1, cpu_workers=1, wait_minutes=config.wait_minutes)
        check_gpus(placement)
        say("compare", f"seconds per case of {len(models)} models: {placement}")
        machine, seconds = _on_worker(placement, config.precision, models, case_paths[:N_TIMED])
        found = {"machine": machine, "seconds": seconds, "bundles": bundles}
        storage.write_json(path, found)
    return Timing(machine=found["machine"], seconds={name: found["seconds"][name] for name in models})


def time_in_turns(
    placement: Placement, precision: Precision, models: Mapping[str, str], case_paths: Sequence[str]
) -> tuple[str, dict[str, float]]:
    """Ray task: what computed, and the median seconds per case of each model; all of them take each case in turns.

    The first case is taken once before: what is set up then is not counted.
    """
    import torch

    from brats.model.ensemble import load_segmenter
    from brats.model.inference import BATCH_SIZES, halving

    if placement.threads:
        torch.set_num_threads(placement.threads)
    device = torch.device(placement.device)
    segmenters = {name: load_segmenter(folder, device, precision) for name, folder in models.items()}
    batch_sizes = dict.fromkeys(models, BATCH_SIZES[device.type])

    def take(path: str) -> dict[str, float]:
        """Seconds that each model takes for a case."""
        case, seconds = SliceFile(path).read_case(), {}
        for name, segmenter in segmenters.items():
            started = time.perf_counter()
            _, batch_sizes[name] = halving(functools.partial(segmenter.labels, case), batch_sizes[name])
            seconds[name] = time.perf_counter() - started
        return seconds

    take(case_paths[0])
    began, passes = time.perf_counter(), []
    for number in range(ROUNDS):
        if number == 0 or time.perf_counter() - began < LONGEST_S:
            passes += [take(path) for path in case_paths]
    machine = torch.cuda.get_device_name() if placement.use_gpu else f"{torch.get_num_threads()} threads of a CPU"
    return machine, {name: float(np.median([seconds[name] for seconds in passes])) for name in models}


def _on_worker(placement: Placement, *arguments: Any) -> tuple[str, dict[str, float]]:
    """Run `time_in_turns` on a machine that has the room of one worker."""
    import ray

    task = ray.remote(
        num_cpus=placement.cpus,
        num_gpus=1 if placement.use_gpu else 0,
        accelerator_type=placement.accelerator,
    )(time_in_turns)
    try:
        result: tuple[str, dict[str, float]] = ray.get(task.remote(placement, *arguments))
    except ray.exceptions.RayError as error:
        raise ClusterError(f"{root_cause(error)}; the same command goes on from here") from error
    return result


def _state(folder: str) -> str:
    """Sizes and stamps of the files of a bundle: another model, or one trained on, has others."""
    from brats.model.bundle import CARD, WEIGHTS

    files = [file for file in storage.list_files(folder) if file.name in (WEIGHTS, CARD)]
    return "; ".join(f"{file.path.removeprefix(folder)} {file.size} {file.stamp}" for file in files)
