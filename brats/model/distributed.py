"""Distributed training: rank, device, the gradients of all parameters in one buffer, and the collectives.

Every function is called on every rank, under an initialised `torch.distributed` group where there are several.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.distributed
from torch import Tensor, nn

from brats.config import Precision
from brats.errors import ConfigError
from brats.model.precision import DTYPES

ALIGNMENT = 64  # floats: where a parameter's gradient may begin, for wide loads


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A rank of a training, and what it computes on."""

    rank: int
    world_size: int
    device: torch.device
    precision: Precision


@dataclass(frozen=True, kw_only=True)
class FlatGradients:
    """The gradients of all trained parameters, one behind the other, so that one exchange joins those of all ranks.

    DistributedDataParallel exchanges buckets while the backward pass still runs, in float32. One exchange after it
    can be left out of a captured graph, and half as many bytes are worth more than the overlap where a slow network
    joins fast cards.

    flat: float32; every parameter's `grad` is a view of it
    wire: what is exchanged: `flat` itself, or the same in another type
    """

    flat: Tensor
    wire: Tensor

    @classmethod
    def of(cls, network: nn.Module, device: torch.device, wire_dtype: torch.dtype) -> Self:
        """Give every parameter that is trained a gradient of zeros in a new buffer."""
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        sizes = [math.ceil(parameter.numel() / ALIGNMENT) * ALIGNMENT for parameter in parameters]
        flat = torch.zeros(sum(sizes), device=device)
        for parameter, part in zip(parameters, flat.split(sizes), strict=True):
            # In the parameter's own memory format, which fused optimisers expect.
            parameter.grad = part[: parameter.numel()].as_strided(parameter.size(), parameter.stride())
        return cls(flat=flat, wire=flat.to(wire_dtype))  # float32 is not copied

    def zero(self) -> None:
        self.flat.zero_()

    def pack(self) -> None:
        """Make ready what is exchanged."""
        if self.wire is not self.flat:
            self.wire.copy_(self.flat)

    def exchange(self) -> None:
        """Sum over the ranks."""
        torch.distributed.all_reduce(self.wire)

    def unpack(self) -> None:
        """Take over what came of the exchange."""
        if self.wire is not self.flat:
            self.flat.copy_(self.wire)

    def clip(self, longest: float) -> Tensor:
        """Scale the gradient down to this norm where it is longer; return the norm it had."""
        norm: Tensor = torch.linalg.vector_norm(self.flat)
        self.flat.mul_((longest / (norm + 1e-6)).clamp_(max=1.0))
        return norm


def wire_dtype(worker: Worker) -> torch.dtype:
    """How gradients are exchanged: in 16 bits where the network computes in them, on GPUs.

    On CPUs gloo takes twice as long for adding 16-bit numbers as for sending them (benchmarks/link.py).
    """
    if worker.world_size == 1 or worker.device.type == "cpu":
        return torch.float32
    return DTYPES[worker.precision]


def check_same_precision(worker: Worker) -> None:
    """Raise ConfigError, on every rank, where the ranks would compute in different precisions, and add those up."""
    names = list(DTYPES)
    found = all_reduce_sum([worker.precision == name for name in names], worker)
    several = [name for name, count in zip(names, found, strict=True) if count]
    if len(several) > 1:
        raise ConfigError(
            f"--precision: auto means {' and '.join(several)} on the GPUs of this cluster, whose gradients cannot "
            "be added up; name one that all have, such as fp16"
        )


def share_state(network: nn.Module, worker: Worker) -> None:
    """Give every rank the weights and buffers of rank 0."""
    if worker.world_size > 1:
        for tensor in network.state_dict().values():
            torch.distributed.broadcast(tensor, src=0)


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
