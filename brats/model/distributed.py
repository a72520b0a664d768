"""Distributed training: rank, device and the collectives.

Every function is called on every rank, under an initialised `torch.distributed` group where there are several.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from brats.config import Precision


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A rank of a training, and what it computes on."""

    rank: int
    world_size: int
    device: torch.device
    precision: Precision


def parallel(network: nn.Module, worker: Worker) -> nn.Module:
    """The network as it is trained: alone, or with its gradients averaged over the ranks."""
    if worker.world_size == 1:
        return network
    device_ids = [worker.device] if worker.device.type == "cuda" else None
    # Each rank keeps its own BatchNorm statistics within an epoch; average_buffers joins them at its end.
    return DistributedDataParallel(
        network, device_ids=device_ids, forward_sync_buffers=False, gradient_as_bucket_view=True
    )


def average_buffers(network: nn.Module, worker: Worker) -> None:
    """Make the BatchNorm statistics of all ranks their mean. (SyncBatchNorm does not run on CPUs.)"""
    if worker.world_size == 1:
        return
    for buffer in network.buffers():
        if buffer.is_floating_point():
            torch.distributed.all_reduce(buffer)
            buffer /= worker.world_size


def all_reduce_sum(values: Sequence[float], worker: Worker) -> list[float]:
    """The sums of these values over all ranks."""
    if worker.world_size == 1:
        return list(values)
    dtype = torch.float64
    total = torch.tensor(values, dtype=dtype, device=worker.device)
    torch.distributed.all_reduce(total)
    return list(total.tolist())
