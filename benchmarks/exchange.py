"""One end of a link: it exchanges gradients with the other end, in several ways, and times them.

`python -m benchmarks.exchange PLAN RANK`; PLAN is a JSON file of a Plan, the answers of rank 0 come on its output.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

MIB = 2**20
BUCKETS = (1 * MIB, 25 * MIB)  # torch's DistributedDataParallel: the first bucket, and the others
IN_BUCKETS, FLAT = "buckets, fp32", "flat, fp32"
FLAT_16 = {"flat, fp16": torch.float16, "flat, bf16": torch.bfloat16}
BYTES_ALONE = "16-bit, nothing added"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What both ends do.

    address: tcp://host:port of rank 0
    device:  name of the interface, in its namespace
    weights: of each network, by name
    """

    address: str
    device: str
    weights: Mapping[str, int]
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Exchanges:
    """One way to exchange the gradients of one network.

    seconds: of every exchange
    sent:    bytes that left the interface for one exchange, headers included
    cpu_s:   of this end's process for one exchange
    """

    seconds: list[float]
    sent: float
    cpu_s: float


def ways(gradients: Tensor) -> dict[str, Callable[[], None]]:
    """Each sums the gradients, flat and float32, of both ranks in place; the last one only sends and receives."""
    other, received = 1 - dist.get_rank(), torch.empty(len(gradients), dtype=torch.bfloat16)
    sixteen = torch.zeros(len(gradients), dtype=torch.bfloat16)

    def in_buckets() -> None:
        first, rest = (size // gradients.itemsize for size in BUCKETS)
        parts = [gradients[:first], *gradients[first:].split(rest)]
        for work in [dist.all_reduce(part, async_op=True) for part in parts if len(part)]:
            work.wait()

    def flat() -> None:
        dist.all_reduce(gradients)

    def flat_16(dtype: torch.dtype) -> Callable[[], None]:
        def exchange() -> None:
            on_wire = gradients.to(dtype)
            dist.all_reduce(on_wire)
            gradients.copy_(on_wire)

        return exchange

    def bytes_alone() -> None:
        both = [dist.P2POp(dist.isend, sixteen, other), dist.P2POp(dist.irecv, received, other)]
        for work in dist.batch_isend_irecv(both):
            work.wait()

    return {
        IN_BUCKETS: in_buckets,
        FLAT: flat,
        **{name: flat_16(dtype) for name, dtype in FLAT_16.items()},
        BYTES_ALONE: bytes_alone,
    }


def check_sums(gradients: Tensor) -> None:
    """Every way that adds gives both ranks the sum of theirs."""
    for name, exchange in ways(gradients).items():
        gradients.fill_(dist.get_rank() + 1.0)
        exchange()
        assert name == BYTES_ALONE or gradients[[0, -1]].tolist() == [3.0, 3.0], name


def measure_ways(n_weights: int, rounds: int, device: str) -> dict[str, Exchanges]:
    """All ways in turn, in every round; the ranks begin each exchange together."""
    gradients = torch.zeros(n_weights)
    check_sums(gradients)
    gradients.zero_()
    counter = Path("/sys/class/net") / device / "statistics/tx_bytes"
    found: dict[str, list[tuple[float, int, float]]] = {}
    for _ in range(rounds):
        for name, exchange in ways(gradients).items():
            dist.barrier()
            before, cpu_s, started = int(counter.read_text()), time.process_time(), time.perf_counter()
            exchange()
            seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
            dist.barrier()  # comes after all that was sent
            found.setdefault(name, []).append((seconds, int(counter.read_text()) - before, cpu_s))
    return {
        name: Exchanges(
            seconds=[seconds for seconds, _, _ in measured],
            sent=sum(sent for _, sent, _ in measured) / rounds,
            cpu_s=sum(cpu_s for _, _, cpu_s in measured) / rounds,
        )
        for name, measured in found.items()
    }


def main() -> None:
    plan, rank = Plan(**json.loads(Path(sys.argv[1]).read_text())), int(sys.argv[2])
    torch.set_num_threads(1)  # both ends and the link share this machine's cores
    dist.init_process_group("gloo", init_method=plan.address, rank=rank, world_size=2)
    answers = {name: measure_ways(count, plan.rounds, plan.device) for name, count in plan.weights.items()}
    dist.barrier()
    dist.destroy_process_group()
    if rank == 0:
        ways_of = {name: {way: vars(found) for way, found in answer.items()} for name, answer in answers.items()}
        print(json.dumps(ways_of))


if __name__ == "__main__":
    main()
