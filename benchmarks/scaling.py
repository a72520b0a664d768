"""Claim 9: beyond one machine, by simulation and on paper.

Sleeping tasks of the measured length, two per core as in `prepare`, on simulated Ray nodes show what Ray itself
costs; `cost` does the arithmetic.
"""

import os
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import psutil

from benchmarks.command import run_benchmark
from benchmarks.cost import ASSUMPTIONS, DATASETS, GPUS, Costs, estimate
from benchmarks.harness import LIMIT, Outcome, Row, compare, cores
from benchmarks.scoring import SHIFTS, make_pair, whole_case
from benchmarks.sources import phantoms, warm
from brats.cluster.connect import QUIET
from brats.cluster.per_case import CASE_CPUS
from brats.cluster.quiet import keep_off_console
from brats.config import MODALITIES, TrainConfig
from brats.data.batches import InputSpec
from brats.data.case import Case
from brats.data.cases import CaseFiles
from brats.data.epoch import TrainingCase, sample_slices
from brats.data.preprocess import read_case
from brats.data.slices import encode_case

NODES = (2, 8, 64)
NODE_MB = 500  # that a simulated node takes: a raylet, its two agents and two workers
TASKS_PER_NODE = 60
ENOUGH = 0.85


def sleep_row(row: dict[str, Any], seconds: float) -> dict[str, Any]:
    """A case's work, as far as the scheduler can tell."""
    time.sleep(seconds)
    return row


def pipeline_s(n_tasks: int, seconds: float) -> float:
    """Seconds of a Ray Data pipeline shaped as `prepare`: a task per case, each with its share of a CPU.

    seconds: that a case would take a CPU for itself
    """
    import ray.data

    rows = [{"id": row} for row in range(n_tasks)]
    dataset = ray.data.from_items(rows, override_num_blocks=n_tasks).map(
        sleep_row, fn_kwargs={"seconds": seconds / CASE_CPUS}, num_cpus=CASE_CPUS
    )
    started = time.monotonic()
    n_done = sum(1 for _ in dataset.iter_rows())
    assert n_done == n_tasks
    return time.monotonic() - started


def efficiency(n_nodes: int, seconds: float, tasks_per_node: int) -> float:
    """The time that sleeping alone would take on so many nodes of one CPU, over the time it took.

    A first round, not counted, starts the worker processes; on a real cluster every machine starts its own.
    """
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(n_nodes):
            cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        keep_off_console("ray", "ray.data")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        pipeline_s(4 * n_nodes, 1.0)
        n_tasks = n_nodes * tasks_per_node
        return n_tasks / n_nodes * seconds / pipeline_s(n_tasks, seconds)
    finally:
        ray.shutdown()
        cluster.shutdown()


def measure_costs(cases: tuple[CaseFiles, ...]) -> Costs:
    """What a case costs here, on one core, and the network's arithmetic."""
    warm(cases)
    with cores(1):
        started = time.perf_counter()
        read = [read_case(files, MODALITIES) for files in cases]
        read_s = time.perf_counter() - started
        prepared = [encode_case(case)[0] for case in read]
        prepare_s = time.perf_counter() - started
        pairs = [make_pair(files, SHIFTS[0]) for files in cases]
        started = time.perf_counter()
        for pair in pairs:
            whole_case(pair)
        score_s = time.perf_counter() - started
    n_cases = len(cases)
    size = InputSpec(modalities=MODALITIES).padded_size([case.box.shape[:2] for case in read])
    return Costs(
        prepare_core_s=prepare_s / n_cases,
        read_score_core_s=(read_s + score_s) / n_cases,
        prepared_mb=sum(map(len, prepared)) / n_cases / 1e6,
        train_slices_per_case=sum(map(_slices_in_epoch, read)) / n_cases,
        predict_slices=sum(len(case.images["flair"]) for case in read) / n_cases,
        gpu_gflop=gflop_per_slice(size),
    )


def _slices_in_epoch(case: Case) -> int:
    assert case.labels is not None
    described = TrainingCase(case.case_id, tuple(np.count_nonzero(case.labels, axis=(1, 2)).tolist()))
    return len(sample_slices(described, TrainConfig(out="run").tumour_free_ratio, np.random.default_rng(0)))


def gflop_per_slice(size: tuple[int, int]) -> float:
    """Floating-point operations of the default network on one slice of this size, forward, in 10^9."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from brats.model.unet import build_unet

    config = TrainConfig(out="run")
    network = build_unet(
        encoder=config.encoder, n_channels=len(MODALITIES), decoder_channels=config.decoder_channels
    ).eval()
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        network(torch.zeros(1, len(MODALITIES), *size))
    return counter.get_total_flops() / 1e9


def measure(quick: bool) -> Outcome:
    os.environ.update(QUIET, RAY_AUTH_MODE="disabled")
    costs = measure_costs(phantoms(1 if quick else 4))
    rows: list[Row] = []
    fitting = [n_nodes for n_nodes in NODES if n_nodes * NODE_MB * 2**20 < psutil.virtual_memory().available]
    for n_nodes in NODES[:1] if quick else fitting:
        reached = efficiency(n_nodes, costs.prepare_core_s, 4 if quick else TASKS_PER_NODE)
        stage = f"{n_nodes} simulated nodes"
        rows.append(
            compare(stage, reached, LIMIT + "sum of the nodes", 1.0, "of it", target=ENOUGH, more_is_better=True)
        )
    paper = {
        f"{name} on {gpus} T4": str(estimate(costs, n_cases, gpus))
        for name, n_cases in DATASETS.items()
        for gpus in GPUS
    }
    details = {
        "simulated": f"tasks of {costs.prepare_core_s:.2f} s of a core, two asleep on each",
        "simulated on": f"these {os.cpu_count()} cores, which all nodes share",
        "not simulated": f"{sorted(set(NODES) - set(fitting))} nodes, which take {NODE_MB} MB of memory each",
        "costs": asdict(costs),
        **paper,
        **{f"assumption {number}": text for number, text in enumerate(ASSUMPTIONS, 1)},
    }
    return Outcome(rows=rows, details=details)


if __name__ == "__main__":
    run_benchmark(measure)
