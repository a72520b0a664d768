"""What BraTS costs on a few GPUs, in hours and money: arithmetic, with every assumption in sight."""

from dataclasses import dataclass

from benchmarks.t4 import AUGMENTATION, EAGER_STEP_S, ENCODERS, SPREAD, T4, Fit, fit_h100, t4_range, training_step

DATASETS = {"BraTS 2020": 369, "BraTS 2021": 1_251, "100,000 cases": 100_000}
GPUS = (2, 8, 64)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs per case and slice, and what is assumed of the machines. One g4dn.xlarge: one T4, four vCPUs.

    prepare_core_s:        one core, a case from .nii.gz to Parquet
    read_score_core_s:     one core, a case read, scored and written
    prepared_mb:           a prepared case
    train_slices_per_case: slices of a case in an epoch
    predict_slices:        slices of a crop
    gpu_gflop:             of one padded slice forward; backward is taken for twice as much
    gpu_tflops:            what a GPU sustains on this network
    cores_per_gpu:         vCPUs beside each GPU
    train_fraction:        of the cases that are trained on
    epochs:                passes over them
    efficiency:            of the cluster against the sum of its parts
    storage_mb_per_s:      from the object store to one machine
    """

    prepare_core_s: float
    read_score_core_s: float
    prepared_mb: float
    train_slices_per_case: float
    predict_slices: float
    gpu_gflop: float
    gpu_tflops: float = 8.1
    cores_per_gpu: int = 4
    train_fraction: float = 0.7
    epochs: int = 30
    efficiency: float = 0.9
    storage_mb_per_s: float = 100.0

    @property
    def train_slices_per_s(self) -> float:
        """Of one GPU: three forward passes' worth of arithmetic a slice."""
        return self.gpu_tflops * 1000 / (3 * self.gpu_gflop)

    @property
    def predict_slices_per_s(self) -> float:
        return self.gpu_tflops * 1000 / self.gpu_gflop


ASSUMPTIONS = (
    "a T4 sustains 8.1 TFLOP/s on this network in fp16: an eighth of the 65 of its data sheet (assumed)",
    "a vCPU of a g4dn.xlarge is as fast as a core of the machine measured here (assumed)",
    "four vCPUs beside each T4, all of them for Ray Data while nothing is trained (g4dn.xlarge)",
    "the object store gives each machine 100 MB/s; training reads its share of the slices each epoch (assumed)",
    "70 % of the cases are trained on, 30 epochs, no early stop (the defaults)",
    "machines reach 90 % of their sum (as preparing on one machine does of plain processes; assumed for more)",
    "validation adds the forward passes of 15 % of the cases to each epoch",
    "a stage takes as long as the slower of its processors and its reading, which overlap",
    "starting machines, installing and spot interruptions are not counted",
)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Hours of a whole run: prepare, train, and predict and score every case."""

    n_cases: int
    gpus: int
    prepare_h: float
    train_h: float
    predict_h: float

    @property
    def hours(self) -> float:
        return self.prepare_h + self.train_h + self.predict_h

    @property
    def gpu_hours(self) -> float:
        """GPUs are paid for from the first minute to the last, also while only cores are at work."""
        return self.hours * self.gpus

    def __str__(self) -> str:
        parts = f"prepare {self.prepare_h:.2f}, train {self.train_h:.2f}, predict {self.predict_h:.2f}"
        return f"{self.hours:.2f} h ({parts}), {self.gpu_hours:.1f} GPU-hours"


VAL_FRACTION = 0.15


def estimate(costs: Costs, n_cases: int, gpus: int) -> Estimate:
    """Hours for so many cases on so many GPUs."""
    cores = gpus * costs.cores_per_gpu
    network_mb_per_s = gpus * costs.storage_mb_per_s
    prepare_s = n_cases * costs.prepare_core_s / cores
    trained = n_cases * costs.train_fraction * costs.train_slices_per_case
    validated = n_cases * VAL_FRACTION * costs.predict_slices
    mb_per_slice = costs.prepared_mb / costs.predict_slices
    epoch_s = max(
        (trained / costs.train_slices_per_s + validated / costs.predict_slices_per_s) / gpus,
        (trained + validated) * mb_per_slice / network_mb_per_s,
    )
    predict_s = max(
        n_cases * costs.predict_slices / costs.predict_slices_per_s / gpus,
        n_cases * costs.read_score_core_s / cores,
        n_cases * costs.prepared_mb / network_mb_per_s,
    )
    hour = 3600 * costs.efficiency
    return Estimate(
        n_cases=n_cases,
        gpus=gpus,
        prepare_h=prepare_s / hour,
        train_h=costs.epochs * epoch_s / hour,
        predict_h=predict_s / hour,
    )


HOP_S = 1e-4  # latency of a message between cards
BASELINE_GBIT_S = 5.0  # of a g4dn.xlarge; what it sends on average, whatever its bursts
BATCHES = (16, 32, 64)
WIRE = {"fp32": 4, "fp16": 2}  # bytes per gradient that is sent
ENOUGH_SPEEDUP = 1.7


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Machines to train on.

    usd_h:  on demand, all of them, in eu-central-1: instances.vantage.sh of 2026-08-26
    gbit_s: in either direction between two of the cards
    """

    name: str
    cards: int
    machines: int
    usd_h: float
    gbit_s: float = float("inf")


ONE = Shape(name="g4dn.xlarge", cards=1, machines=1, usd_h=0.658)
TWO = {
    gbit_s: Shape(name=f"2 x g4dn.xlarge, {how}", cards=2, machines=2, usd_h=2 * ONE.usd_h, gbit_s=gbit_s)
    for gbit_s, how in {5: "one flow", 10: "one flow in a placement group", 25: "several flows"}.items()
}
FOUR = Shape(name="g4dn.12xlarge", cards=4, machines=1, usd_h=4.89, gbit_s=48)
SHAPES = (ONE, *TWO.values(), FOUR)
SPOT = 1 / 3  # of the price on demand
RECOMMENDED = ("timm-tf_efficientnet_lite0", 64, TWO[25])


def step_s(fit: Fit, encoder: str, batch: int, shape: Shape, wire: int, *, overlapped: bool = False) -> float:
    """Seconds of a step: each card its share, then one flat exchange, around a ring, of so many bytes a gradient.

    overlapped: the exchange hides behind the arithmetic or the arithmetic behind it, which no program reaches
    """
    step = training_step(encoder, batch // shape.cards)
    compute_s = fit.seconds(step, T4)
    if shape.cards == 1:
        return compute_s
    copies_s = 2 * (4 + wire) * step.n_weights / (T4.n_bytes * fit.fraction)  # to the buffer that is sent, and back
    sent_gbit = 2 * (shape.cards - 1) / shape.cards * step.n_weights * wire * 8e-9
    exchange_s = copies_s + 2 * (shape.cards - 1) * HOP_S + sent_gbit / shape.gbit_s
    least_s = sent_gbit / BASELINE_GBIT_S if shape.machines > 1 else 0.0
    return max(max(compute_s, exchange_s) if overlapped else compute_s + exchange_s, least_s)


def slices_per_s(
    encoder: str, batch: int, shape: Shape, wire: int, *, overlapped: bool = False
) -> tuple[float, float]:
    """Slow and fast."""
    slow, fast = (batch / step_s(fit, encoder, batch, shape, wire, overlapped=overlapped) for fit in t4_range())
    return slow, fast


def speedup(encoder: str, batch: int, shape: Shape, wire: int, *, overlapped: bool = False) -> tuple[float, float]:
    """Low and high, beside one T4 with the same batch. The faster the card, the less the others help."""
    alone = slices_per_s(encoder, batch, ONE, wire)
    together = slices_per_s(encoder, batch, shape, wire, overlapped=overlapped)
    low, high = sorted(both / one for one, both in zip(alone, together, strict=True))
    return low, high


PAPER_ASSUMPTIONS = (
    "a kernel takes the longest of its bytes, each counted once, over 320 GB/s and its operations over 65 TFLOP/s, "
    "8.1 for depthwise convolutions, divided by the fraction; and the time per kernel",
    "fraction and time per kernel are those of a line through four batches on one H100; a T4 reaches that fraction "
    f"give or take {SPREAD:.0%} (assumed: no T4 was measured)",
    f"the step is replayed as CUDA graphs; augmentation takes nothing (fast) to {AUGMENTATION:.0%} (slow)",
    "gradients are exchanged after backward in one flat buffer, and nothing overlaps; on a ring of two each card "
    "sends all of them once, on one of four one and a half times",
    "one flow carries 5 Gbit/s between machines, 10 within a cluster placement group (AWS); several flows the 25 "
    "that a g4dn.xlarge bursts to; on average no more than its baseline of 5",
    "four cards of one machine exchange 48 Gbit/s through its memory (assumed; they have no link of their own)",
    f"a message takes {HOP_S * 1e3:g} ms from card to card (assumed)",
    "reading, validation and checkpoints are not counted",
    "on demand 0.658 USD an hour for a g4dn.xlarge, 4.89 for a g4dn.12xlarge (eu-central-1, instances.vantage.sh, "
    "2026-08-26), on spot a third (assumed); head, disks and addresses are not counted",
)


def paper() -> dict[str, str]:
    """Slices per second, speed-up and cost of every shape, with the model behind them and every assumption."""
    fit = fit_h100()
    model = (
        f"{fit.fraction:.2f} of the H100's bytes and operations and {fit.kernel_s * 1e6:.1f} us per kernel "
        f"(within {fit.deviation:.0%} of what was measured)"
    )
    steps = {f"step of {encoder}": _counted(encoder) for encoder in ENCODERS}
    table = {
        f"{encoder}, batch {batch}, {shape.name}": _priced(encoder, batch, shape)
        for encoder in ENCODERS
        for batch in BATCHES
        for shape in SHAPES
    }
    hidden = {
        f"{encoder}, batch {batch}, {TWO[10].name}, exchange hidden": "fp16 {:.2f} to {:.2f} times one T4".format(
            *speedup(encoder, batch, TWO[10], WIRE["fp16"], overlapped=True)
        )
        for encoder in ENCODERS
        for batch in BATCHES
    }
    assumptions = {f"assumption {number}": text for number, text in enumerate(PAPER_ASSUMPTIONS, 1)}
    return {"model": model, **steps, **table, **hidden, **assumptions}


def _counted(encoder: str) -> str:
    steps = [training_step(encoder, n_slices) for n_slices in (8, 16, 32)]
    parts = [f"{step.n_slices} slices {step.n_bytes / 1e9:.1f} GB, {step.n_flop / 1e9:.0f} GFLOP" for step in steps]
    n_kernels = len(steps[0].kernels)
    eager_ms = " to ".join(f"{seconds * 1e3 * n_kernels / _kernels_of_resnet34():.0f}" for seconds in EAGER_STEP_S)
    return (
        f"{n_kernels} kernels, {steps[0].n_weights / 1e6:.1f} M gradients; {'; '.join(parts)}; "
        f"launched one by one {eager_ms} ms"
    )


def _kernels_of_resnet34() -> int:
    return len(training_step("resnet34", 8).kernels)


def _priced(encoder: str, batch: int, shape: Shape) -> str:
    if shape.cards == 1:
        return _rates(encoder, batch, shape, 0)
    parts = []
    for name, wire in WIRE.items():
        low, high = speedup(encoder, batch, shape, wire)
        parts.append(f"{name} {low:.2f} to {high:.2f} times one T4, {_rates(encoder, batch, shape, wire)}")
    return "; ".join(parts)


def _rates(encoder: str, batch: int, shape: Shape, wire: int) -> str:
    slow, fast = slices_per_s(encoder, batch, shape, wire)
    dear, cheap = (shape.usd_h / 3600 / rate * 1e6 for rate in (slow, fast))
    return (
        f"{slow:.0f} to {fast:.0f} slices/s, {cheap:.2f} to {dear:.2f} USD per million slices "
        f"({cheap * SPOT:.2f} to {dear * SPOT:.2f} on spot)"
    )
