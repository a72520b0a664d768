"""Claim 10: two workers on a network, the exchange of gradients over a limited link, and two T4s on paper.

Two network namespaces of this machine are joined by a link that a token bucket limits; `cost` has the paper.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.command import run_benchmark
from benchmarks.cost import ENOUGH_SPEEDUP, RECOMMENDED, WIRE, paper, speedup
from benchmarks.exchange import BYTES_ALONE, FLAT_16, IN_BUCKETS, Exchanges, Plan
from benchmarks.harness import LIMIT, BenchmarkError, Outcome, Row, Spread, compare
from benchmarks.t4 import ENCODERS, training_step

RATES_GBIT = (0.0, 25.0, 5.0, 1.0)  # 0: not limited; 1 is slower than two cores can send, whatever else they do
BUCKET_S, LEAST_BUCKET = 0.0004, 256_000  # of the rate that passes at once, and at least so many bytes
OURS = "flat, bf16"
PREFIX = "brats-link-"
DEVICE, PORT, HOST = "wire", 29_500, "10.77.0.{}"
ROUNDS = 9
QUICK_WEIGHTS = 100_000
TIMEOUT_S = 600


def why_not() -> str:
    """Why no limited link can be made here, "" where it can."""
    if os.geteuid() != 0:
        return "link: skipped, network namespaces need root"
    missing = [name for name in ("ip", "tc") if shutil.which(name) is None]
    if missing:
        return f"link: skipped, {' and '.join(missing)} of iproute2 not installed"
    try:
        remove_leftovers()
        with limited_link(1.0):
            return ""
    except BenchmarkError as error:
        return f"link: skipped, {error}"


def ip(*arguments: str, program: str = "ip") -> None:
    """Run `ip` or `tc`. Raises BenchmarkError with what it says."""
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"`{program} {' '.join(arguments)}`: {done.stderr.strip()}")


def remove_leftovers() -> None:
    """Namespaces of runs that were killed, which their number, that of a process, shows."""
    done = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        name = line.partition(" ")[0]
        if name.startswith(PREFIX) and not Path("/proc", name.rpartition("-")[2]).exists():
            ip("netns", "delete", name)


@contextmanager
def limited_link(gbit_s: float) -> Iterator[tuple[str, str]]:
    """Two namespaces joined by a link of this rate in either direction, 0 for any; nothing of it remains.

    Raises BenchmarkError where the system refuses.
    """
    names = tuple(f"{PREFIX}{side}-{os.getpid()}" for side in "ab")
    made: list[str] = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ip(
            "link",
            "add",
            "name",
            DEVICE,
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "name",
            DEVICE,
            "netns",
            names[1],
        )
        for number, name in enumerate(names, start=1):
            ip("-n", name, "address", "add", f"{HOST.format(number)}/30", "dev", DEVICE)
            for device in ("lo", DEVICE):
                ip("-n", name, "link", "set", device, "up")
            if gbit_s:
                burst = f"{max(gbit_s * 1e9 / 8 * BUCKET_S, LEAST_BUCKET):.0f}"
                bucket = ("tbf", "rate", f"{gbit_s:g}gbit", "burst", burst, "latency", "50ms")
                ip("-n", name, "qdisc", "add", "dev", DEVICE, "root", *bucket, program="tc")
        yield names[0], names[1]
    finally:
        for name in made:
            with suppress(BenchmarkError):
                ip("netns", "delete", name)


def exchanges(gbit_s: float, weights: Mapping[str, int], rounds: int) -> dict[str, dict[str, Exchanges]]:
    """What rank 0 measured over a link of this rate, by network and way."""
    plan = Plan(address=f"tcp://{HOST.format(1)}:{PORT}", device=DEVICE, weights=weights, rounds=rounds)
    with limited_link(gbit_s) as names, TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        path.write_text(json.dumps(asdict(plan)))
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": DEVICE, "TORCH_CPP_LOG_LEVEL": "ERROR"}
        ends = [
            subprocess.Popen(
                ["ip", "netns", "exec", name, sys.executable, "-m", "benchmarks.exchange", str(path), str(rank)],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank, name in enumerate(names)
        ]
        try:
            answers = [end.communicate(timeout=TIMEOUT_S)[0] for end in ends]
        except subprocess.TimeoutExpired as error:
            raise BenchmarkError(f"two gloo processes did not finish in {TIMEOUT_S} s") from error
        finally:
            for end in ends:
                end.kill()
                end.wait()
    if any(end.returncode for end in ends):
        raise BenchmarkError("a gloo process failed; it has said why")
    return {
        network: {way: Exchanges(**found) for way, found in by_way.items()}
        for network, by_way in json.loads(answers[0]).items()
    }


def rows_of(gbit_s: float, network: str, n_weights: int, found: Mapping[str, Exchanges]) -> Iterator[Row]:
    """The exchange in 16 bits beside DDP's in 32, and beside the link."""
    stage = f"exchange {network}, {_rate(gbit_s)}"
    ours = Spread(tuple(found[OURS].seconds)).scaled(1000)
    today = Spread(tuple(found[IN_BUCKETS].seconds)).scaled(1000)
    yield compare(stage, ours, "DistributedDataParallel's buckets, fp32", today, "ms")
    alone = Spread(tuple(found[BYTES_ALONE].seconds)).scaled(1000)
    yield compare(stage, ours, "the same bytes sent, nothing added", alone, "ms")
    if gbit_s:
        yield compare(stage, ours, LIMIT + "the rate of the link", n_weights * 16 / gbit_s / 1e6, "ms")


def _rate(gbit_s: float) -> str:
    return f"{gbit_s:g} Gbit/s" if gbit_s else "not limited"


def describe(n_weights: int, found: Mapping[str, Exchanges]) -> dict[str, str]:
    """Each way in one line: milliseconds, what the wire carried, and how fast its gradients went over it."""
    lines = {}
    for way, measured in found.items():
        spread = Spread(tuple(measured.seconds))
        n_bytes = n_weights * (2 if way in (*FLAT_16, BYTES_ALONE) else 4)
        lines[way] = (
            f"{spread.scaled(1000)} ms, best {min(measured.seconds) * 1000:.4g}, "
            f"{measured.sent / 1e6:.1f} MB sent, {n_bytes * 8 / spread.median / 1e9:.2f} Gbit/s, "
            f"{measured.cpu_s * 1000:.0f} ms of CPU at this end"
        )
    return lines


def paper_row() -> Row:
    """The low end of what the second T4 adds in the recommended shape."""
    encoder, batch, shape = RECOMMENDED
    low, _ = speedup(encoder, batch, shape, WIRE["fp16"])
    stage = f"{shape.cards} T4s, {encoder}, batch {batch}, on paper"
    aim = LIMIT + "the aim, times one T4"
    return compare(stage, low, aim, ENOUGH_SPEEDUP, "times", target=1, more_is_better=True)


def measure(quick: bool) -> Outcome:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, at which the namespaces are deleted
    on_paper = paper()
    skipped = why_not()
    if skipped:
        return Outcome(details=on_paper, skipped=skipped)
    weights = {encoder: training_step(encoder, 1).n_weights for encoder in ENCODERS}
    if quick:
        weights = dict.fromkeys(ENCODERS, QUICK_WEIGHTS)
    rows: list[Row] = []
    details: dict[str, object] = {"machine": f"both ends and the link share these {os.cpu_count()} cores"}
    for gbit_s in RATES_GBIT:
        for network, found in exchanges(gbit_s, weights, 2 if quick else ROUNDS).items():
            rows.extend(rows_of(gbit_s, network, weights[network], found))
            details[f"{network}, {_rate(gbit_s)}"] = describe(weights[network], found)
    rows.append(paper_row())
    return Outcome(rows=rows, details={**details, **on_paper})


if __name__ == "__main__":
    run_benchmark(measure)
