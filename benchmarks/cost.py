"""What BraTS costs on a few GPUs, in hours: arithmetic from measured costs, with every assumption in sight."""

from dataclasses import dataclass

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
