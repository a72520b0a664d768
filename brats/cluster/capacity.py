"""Capacity of the cluster: its machines, what is free of them, and what its autoscaler can add."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from brats.cluster.ray_internals import bootstrap_config, free_resources

ACCELERATOR = "accelerator_type:"  # Ray's name for a kind of GPU, among the resources of a machine


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine offers to jobs, or what of it is free."""

    cpus: float
    gpus: int = 0
    accelerator: str | None = None


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What the cluster has, what of that is free, and what it has once it has grown as far as it may."""

    machines: Sequence[Machine]
    free: Sequence[Machine]
    grown: Sequence[Machine]


def cluster_capacity() -> Capacity:
    """The capacity of the cluster this process is connected to."""
    import ray

    present = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    free = free_resources()
    machines = [_machine(resources) for resources in present.values()]
    grown = autoscaler_limit() if os.environ.get("RAY_ADDRESS") else []
    larger = sum(machine.cpus for machine in grown) > sum(machine.cpus for machine in machines)
    return Capacity(
        machines=machines,
        free=[_machine(free.get(name, {})) for name in present],
        grown=grown if larger else machines,
    )


def autoscaler_limit() -> list[Machine]:
    """All the workers that the cluster may grow to; [] where no autoscaler is known of."""
    config = bootstrap_config() or {}
    try:
        most = config["max_workers"]
        machines = [
            _machine(kind["resources"])
            for name, kind in config["available_node_types"].items()
            if name != config["head_node_type"]
            for _ in range(min(kind.get("max_workers", most), most))
        ]
    except (LookupError, TypeError, AttributeError):
        return []
    return sorted(machines, key=lambda machine: (machine.gpus, machine.cpus), reverse=True)[:most]


def _machine(resources: dict[str, float]) -> Machine:
    kinds = [name.removeprefix(ACCELERATOR) for name in resources if name.startswith(ACCELERATOR)]
    return Machine(
        cpus=resources.get("CPU", 0.0),
        gpus=int(resources.get("GPU", 0)),
        accelerator=kinds[0] if len(kinds) == 1 else None,
    )
