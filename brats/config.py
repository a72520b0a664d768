"""One frozen dataclass per job: its configuration, its command line and the limits of its options.

`saved_config.py` writes it beside the output.

A field shapes either the *result* (it is fingerprinted: an output folder never mixes two values of it) or only
the *execution* (paths, workers, device: free to change when a job is run again).
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from brats.errors import ConfigError

Modality = Literal["flair", "t1", "t1ce", "t2"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
LossName = Literal["bce-dice"]
LOSS_CONVENTIONS: dict[LossName, str] = {"bce-dice": "binary cross-entropy plus soft Dice loss"}
CodingName = Literal[
    "auto", "brats2018", "brats2023", "brats2023-ped", "brats2024-ped", "brats2024-gli", "brats2025-met"
]
Preset = Literal["auto", "demo", "brats", "t1", "t1-t2-flair"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the value of an option, or of each value where an option takes several.

    n_values: how many values there must be; at least one unless stated
    distinct: no value may be named twice
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    n_values: int | None = None
    distinct: bool = False

    def problem(self, value: Any) -> str:
        """What is wrong with a value, worded to follow the name of its option; "" when nothing is."""
        if isinstance(value, tuple):
            problems = (self._count_problem(value), *(self._value_problem(each) for each in value))
            return next(filter(None, problems), "")
        return self._value_problem(value)

    def _value_problem(self, value: Any) -> str:
        low, high = self.at_least, self.at_most  # compared so that NaN fails
        if self.above is not None and not value > self.above:
            return f"must be above {self.above}, not {value}"
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            return f"must be {f'at least {low}' if high is None else f'between {low} and {high}'}, not {value}"
        return ""

    def _count_problem(self, values: tuple[Any, ...]) -> str:
        if self.n_values is not None and len(values) != self.n_values:
            return f"needs {self.n_values} values, not {len(values)}"
        if not values:
            return "needs at least one value"
        repeated = [value for value in values if values.count(value) > 1]
        return f"names {repeated[0]} twice" if self.distinct and repeated else ""


def result(default: Any, limits: Limits = Limits(), *, earlier: Any = None) -> Any:
    """A field that shapes what a job produces.

    earlier: what jobs did before there was this field, so that their outputs go on; None for a field of always
    """
    added_later = {} if earlier is None else {"earlier": earlier}
    return field(default=default, metadata={"limits": limits, **added_later})


def execution(default: Any, limits: Limits = Limits()) -> Any:
    """A field that changes how a job runs but not what it produces."""
    return field(default=default, metadata={"execution": True, "limits": limits})


def per_case(default: Any) -> Any:
    """A field that shapes cases one by one: a rerun with another value makes those again that it changes."""
    return execution(default)


def path(default: Any = dataclasses.MISSING) -> Any:
    """A folder or s3:// prefix, which shapes no result; `check_options` makes it absolute."""
    return field(default=default, metadata={"execution": True, "path": True})


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Turn BraTS case folders into a prepared dataset: cropped slices in Parquet and a table of cases.

    Finds every case below --data, reads and crops one case at a time, and splits the patients into train, val
    and test, stratified by tumour volume and presence of enhancing tumour. Run again, it does what is missing.
    """

    data: str = path()
    """Folder or s3:// prefix with BraTS cases, at any depth, in the naming of any edition since 2018."""
    out: str = path()
    """Folder or s3:// prefix for the prepared dataset."""
    modalities: tuple[Modality, ...] = result(MODALITIES, Limits(distinct=True))
    """Modalities every case must have; others are left out."""
    coding: CodingName = per_case("auto")
    """How segmentations are coded where names leave it open: brats2018, brats2023, brats2023-ped,
    brats2024-ped, brats2024-gli or brats2025-met; auto refuses BraTS-PED, which has had two."""
    val_fraction: float = result(0.15, Limits(at_least=0))
    """Fraction of the patients in the validation split."""
    test_fraction: float = result(0.15, Limits(at_least=0))
    """Fraction of the patients in the test split."""
    folds: int = result(5, Limits(at_least=2))
    """Cross-validation folds that the patients outside the test split are dealt into."""
    seed: int = result(0, Limits(at_least=0))
    """Seed of the split."""
    strict: bool = execution(False)
    """Fail when any case is rejected, after the others are done."""
    wait_minutes: float = execution(15.0, Limits(at_least=0))
    """Minutes to wait for machines that an autoscaler can bring and for other jobs to make room."""
    debug: bool = execution(False)
    """Show tracebacks instead of one-line errors."""

    def __post_init__(self) -> None:
        check_options(self)
        if not self.val_fraction + self.test_fraction < 1:
            raise ConfigError(
                "--val-fraction and --test-fraction must leave patients to train on: their sum must be below 1, "
                f"not {self.val_fraction + self.test_fraction:g}"
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a U-Net on BraTS cases, then predict and score the test split.

    Without any option on one machine: makes a phantom dataset, prepares it, trains on it and scores the test
    cases. On a cluster --data and --out come from the variables BRATS_DATA and BRATS_STORAGE. Run again with the
    same --out, it resumes after the last finished epoch.
    """

    data: str | None = path(None)
    """Case folders or a prepared dataset; without it $BRATS_DATA, else phantoms made on the spot."""
    out: str = path()
    """Folder or s3:// prefix of the run; without it PRESET below $BRATS_STORAGE or ./runs."""
    preset: Preset = execution("brats")
    """Starting values of the other options: brats (all modalities), t1, t1-t2-flair, demo (small and quick, for
    phantoms on CPUs); auto is demo when the phantoms are used, else brats."""
    modalities: tuple[Modality, ...] = result(MODALITIES, Limits(distinct=True))
    """Input channels of the network, in this order."""
    coding: CodingName = result("auto", earlier="auto")
    """For case folders, how segmentations are coded where names leave it open: brats2018, brats2023, brats2023-ped,
    brats2024-ped, brats2024-gli or brats2025-met; auto refuses BraTS-PED, which has had two."""
    encoder: str = "resnet34"
    """Any encoder name of segmentation-models-pytorch."""
    encoder_weights: str | None = None
    """Pretrained encoder weights to start from, such as imagenet; needs the network once."""
    decoder_channels: tuple[int, ...] = result((256, 128, 64, 32, 16), Limits(n_values=5, at_least=1))
    """Channels of the decoder stages, deepest first."""
    loss: LossName = result("bce-dice", earlier="bce-dice")
    """What training minimises; bce-dice is binary cross entropy plus soft Dice."""
    epochs: int = execution(30, Limits(at_least=1))
    """Epochs in all; a finished run goes on when this is raised."""
    batch_size: int = result(16, Limits(at_least=1))
    """Slices per optimiser step over all workers; fewer workers accumulate gradients."""
    micro_batch_size: int = result(8, Limits(at_least=1))
    """Slices per forward pass of one worker, at most; what fits the GPU."""
    learning_rate: float = result(1e-3, Limits(above=0))
    """Highest learning rate of AdamW, after the warm-up."""
    weight_decay: float = result(1e-2, Limits(at_least=0))
    """Weight decay of AdamW."""
    warmup_steps: int = result(50, Limits(at_least=0))
    """Optimiser steps of linear warm-up before the cosine decay."""
    clip_norm: float = result(5.0, Limits(above=0))
    """Largest gradient norm; longer gradients are scaled down."""
    tumour_free_ratio: float = result(0.25, Limits(at_least=0, at_most=100))
    """Tumour-free slices per slice with tumour in an epoch, sampled anew each epoch."""
    patience: int = result(10, Limits(at_least=1))
    """Epochs without a better validation Dice before training stops."""
    fold: int | None = result(None, Limits(at_least=0))
    """Validate on this cross-validation fold instead of the validation split."""
    seed: int = result(0, Limits(at_least=0))
    """Seed of the weights, the epoch plan, the augmentation and (for raw --data) the split."""
    workers: int = execution(0, Limits(at_least=0))
    """Training workers; 0 means one per GPU; on CPUs one per machine, two at most."""
    device: Device = execution("auto")
    """Where to train; auto is cuda where Ray sees GPUs."""
    precision: Precision = execution("auto")
    """Arithmetic of the network; auto is bf16 where the device is good at it, fp16 on other GPUs, else fp32."""
    predict: bool = execution(True)
    """Predict and score the test split into OUT/test at the end; --no-predict leaves that out."""
    nifti: bool = execution(False)
    """Write the predicted masks as .nii.gz too."""
    max_failures: int = execution(3, Limits(at_least=0))
    """Restarts after lost workers, without a finished epoch between them, before the job fails."""
    strict: bool = execution(False)
    """Fail when any case is rejected."""
    wait_minutes: float = execution(15.0, Limits(at_least=0))
    """Minutes to wait for machines that an autoscaler can bring and for other jobs to make room."""
    debug: bool = execution(False)
    """Show tracebacks instead of one-line errors."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Segment cases with a trained model; write masks and, where there are references, metric tables.

    Run again with the same --out, it does only the cases that are missing.
    """

    model: str = path()
    """A run of train.py or a model bundle (a folder with model.safetensors and model.json)."""
    data: str = path()
    """Case folders or a prepared dataset."""
    out: str = path()
    """Folder or s3:// prefix for masks and metric tables."""
    split: Literal["all", "train", "val", "test"] = "all"
    """Which cases, by the split of the run that made the model."""
    coding: CodingName = result("auto", earlier="auto")
    """For case folders, how segmentations are coded where names leave it open: brats2018, brats2023, brats2023-ped,
    brats2024-ped, brats2024-gli or brats2025-met; auto refuses BraTS-PED, which has had two."""
    nifti: bool = execution(False)
    """Write the masks as .nii.gz too, on the grid of the source images."""
    batch_size: int = execution(16, Limits(at_least=1))
    """Slices per forward pass."""
    workers: int = execution(0, Limits(at_least=0))
    """Copies of the model at work; 0 means one per GPU, or one per CPU core."""
    device: Device = execution("auto")
    """Where to predict; auto is cuda where Ray sees GPUs."""
    precision: Precision = execution("auto")
    """Arithmetic of the network; auto is bf16 where the device is good at it, fp16 on other GPUs, else fp32."""
    strict: bool = execution(False)
    """Fail when any case is rejected, after the others are done."""
    wait_minutes: float = execution(15.0, Limits(at_least=0))
    """Minutes to wait for machines that an autoscaler can bring and for other jobs to make room."""
    debug: bool = execution(False)
    """Show tracebacks instead of one-line errors."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Score masks in NIfTI, made by any program, against the references of BraTS cases."""

    predictions: str = path()
    """Folder with one <case_id>.nii.gz per case, coded and aligned as the case's own segmentation."""
    references: str = path()
    """Case folders that hold the reference segmentations."""
    out: str = path()
    """Folder or s3:// prefix for the metric tables."""
    coding: CodingName = result("auto", earlier="auto")
    """How references are coded where names leave it open: brats2018, brats2023, brats2023-ped,
    brats2024-ped, brats2024-gli or brats2025-met; auto refuses BraTS-PED, which has had two."""
    strict: bool = execution(False)
    """Fail when any case is rejected, after the others are done."""
    wait_minutes: float = execution(15.0, Limits(at_least=0))
    """Minutes to wait for machines that an autoscaler can bring and for other jobs to make room."""
    debug: bool = execution(False)
    """Show tracebacks instead of one-line errors."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Draw learning curves and test cases from the files of a run."""

    run: str = path()
    """Folder or s3:// prefix of a run of train.py."""
    out: str | None = path(None)
    """Folder or s3:// prefix for the pictures; without it RUN/figures."""
    debug: bool = execution(False)
    """Show tracebacks instead of one-line errors."""

    def __post_init__(self) -> None:
        check_options(self)


def option_name(name: str) -> str:
    """The option that sets a field."""
    return "--" + name.replace("_", "-")


def check_options(config: Any) -> None:
    """Make the paths of a configuration absolute, and check each field against the limits that it states.

    Raises ConfigError, one line, for the first value that is outside.
    """
    from brats.storage import absolute  # only now: --help needs none of what it loads

    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.metadata.get("path") and value == "":
            raise ConfigError(f"{option_name(item.name)} must not be empty")
        if item.metadata.get("path") and value is not None:
            object.__setattr__(config, item.name, absolute(value))  # while a frozen object is made
        limits = item.metadata.get("limits")
        if limits and value is not None and (problem := limits.problem(value)):
            raise ConfigError(f"{option_name(item.name)} {problem}")
