"""One frozen dataclass per job: its configuration and its command line.

`saved_config.py` writes it beside the output.

A field shapes either the *result* (it is fingerprinted: an output folder never mixes two values of it) or only
the *execution* (paths, workers, device: free to change when a job is run again).
"""

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from brats import storage
from brats.errors import ConfigError

Modality = Literal["flair", "t1", "t1ce", "t2"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
LossName = Literal["bce-dice"]
Preset = Literal["auto", "demo", "brats", "t1", "t1-t2-flair"]


def execution(default: Any = dataclasses.MISSING) -> Any:
    """A field that changes how a job runs but not what it produces."""
    return field(default=default, metadata={"execution": True})


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Turn BraTS case folders into a prepared dataset: cropped slices in Parquet and a table of cases.

    Finds every case below --data, reads and crops one case at a time, and splits the patients into train, val
    and test, stratified by tumour volume and presence of enhancing tumour. Run again, it does what is missing.
    """

    data: str = execution()
    """Folder or s3:// prefix with BraTS cases, at any depth, in the naming of any edition since 2018."""
    out: str = execution()
    """Folder or s3:// prefix for the prepared dataset."""
    modalities: tuple[Modality, ...] = MODALITIES
    """Modalities every case must have; others are left out."""
    val_fraction: float = 0.15
    """Fraction of the patients in the validation split."""
    test_fraction: float = 0.15
    """Fraction of the patients in the test split."""
    folds: int = 5
    """Cross-validation folds that the patients outside the test split are dealt into."""
    seed: int = 0
    """Seed of the split."""
    strict: bool = execution(False)
    """Fail when any case is rejected, after the others are done."""
    wait_minutes: float = execution(15.0)
    """Minutes to wait for machines that an autoscaler can bring and for other jobs to make room."""
    debug: bool = execution(False)
    """Show tracebacks instead of one-line errors."""

    def __post_init__(self) -> None:
        _check_modalities(self.modalities)
        _check(
            min(self.val_fraction, self.test_fraction) >= 0 and self.val_fraction + self.test_fraction < 1,
            "--val-fraction and --test-fraction",
            (self.val_fraction, self.test_fraction),
            "neither may be negative and some patients must be left to train on",
        )
        _check(self.wait_minutes >= 0, "--wait-minutes", self.wait_minutes, "not negative")
        _check(self.folds >= 2, "--folds", self.folds, "at least 2")
        _check(self.seed >= 0, "--seed", self.seed, "not negative")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a U-Net on BraTS cases, then predict and score the test split.

    Without any option on one machine: makes a phantom dataset, prepares it, trains on it and scores the test
    cases. On a cluster --data and --out come from the variables BRATS_DATA and BRATS_STORAGE. Run again with the
    same --out, it resumes after the last finished epoch.
    """

    data: str | None = execution(None)
    """Case folders or a prepared dataset (default: $BRATS_DATA, else phantoms made on the spot)."""
    out: str | None = execution(None)
    """Folder or s3:// prefix of the run (default: PRESET below $BRATS_STORAGE or ./runs)."""
    preset: Preset = execution("auto")
    """Starting values of the other options: brats (all modalities), t1, t1-t2-flair, demo (small and quick, for
    phantoms on CPUs); auto is demo when the phantoms are used, else brats."""
    modalities: tuple[Modality, ...] = MODALITIES
    """Input channels of the network, in this order."""
    encoder: str = "resnet34"
    """Any encoder name of segmentation-models-pytorch."""
    encoder_weights: str | None = None
    """Pretrained encoder weights to start from, such as imagenet; needs the network once."""
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    """Channels of the decoder stages, deepest first."""
    loss: LossName = "bce-dice"
    """What training minimises: bce-dice is binary cross-entropy plus soft Dice."""
    epochs: int = execution(30)
    """Epochs in all; a finished run goes on when this is raised."""
    batch_size: int = 16
    """Slices per optimiser step over all workers; fewer workers accumulate gradients."""
    micro_batch_size: int = 8
    """Slices per forward pass of one worker, at most; what fits the GPU."""
    learning_rate: float = 1e-3
    """Highest learning rate of AdamW, after the warm-up."""
    weight_decay: float = 1e-2
    """Weight decay of AdamW."""
    warmup_steps: int = 50
    """Optimiser steps of linear warm-up before the cosine decay."""
    clip_norm: float = 5.0
    """Largest gradient norm; longer gradients are scaled down."""
    tumour_free_ratio: float = 0.25
    """Tumour-free slices per slice with tumour in an epoch, sampled anew each epoch."""
    patience: int = 10
    """Epochs without a better validation Dice before training stops."""
    fold: int | None = None
    """Validate on this cross-validation fold instead of the validation split."""
    seed: int = 0
    """Seed of the weights, the epoch plan, the augmentation and (for raw --data) the split."""
    workers: int = execution(0)
    """Training workers; 0 means one per GPU; on CPUs one per machine, two at most."""
    device: Device = execution("auto")
    """Where to train; auto is cuda where Ray sees GPUs."""
    precision: Precision = execution("auto")
    """Arithmetic of the network; auto is bf16 where the device is good at it, fp16 on other GPUs, else fp32."""
    predict: bool = execution(True)
    """Predict and score the test split into OUT/test at the end; --no-predict leaves that out."""
    nifti: bool = execution(False)
    """Write the predicted masks as .nii.gz too."""
    max_failures: int = execution(3)
    """Restarts after lost workers, without a finished epoch between them, before the job fails."""
    strict: bool = execution(False)
    """Fail when any case is rejected."""
    wait_minutes: float = execution(15.0)
    """Minutes to wait for machines that an autoscaler can bring and for other jobs to make room."""
    debug: bool = execution(False)
    """Show tracebacks instead of one-line errors."""

    def __post_init__(self) -> None:
        _check_modalities(self.modalities)
        for name in ("epochs", "batch_size", "micro_batch_size", "patience"):
            _check(getattr(self, name) >= 1, _option(name), getattr(self, name), "at least 1")
        _check(
            0 <= self.tumour_free_ratio <= 100, "--tumour-free-ratio", self.tumour_free_ratio, "between 0 and 100"
        )
        for name in ("workers", "warmup_steps", "max_failures", "weight_decay", "seed", "wait_minutes"):
            _check(getattr(self, name) >= 0, _option(name), getattr(self, name), "not negative")
        for name in ("learning_rate", "clip_norm"):
            _check(getattr(self, name) > 0, _option(name), getattr(self, name), "above 0")
        _check(
            len(self.decoder_channels) == 5,
            "--decoder-channels",
            self.decoder_channels,
            "five stages, one number each",
        )


PRESETS: dict[str, dict[str, Any]] = {
    "brats": {},
    "t1": {"modalities": ("t1",)},
    "t1-t2-flair": {"modalities": ("t1", "t2", "flair")},
    "demo": {
        "encoder": "resnet18",
        "decoder_channels": (128, 64, 32, 16, 8),
        "epochs": 4,
        "learning_rate": 2e-3,
        "warmup_steps": 20,
    },
}


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Segment cases with a trained model; write masks and, where there are references, metric tables.

    Run again with the same --out, it does only the cases that are missing.
    """

    model: str = execution()
    """A run of train.py or a model bundle (a folder with model.safetensors and model.json)."""
    data: str = execution()
    """Case folders or a prepared dataset."""
    out: str = execution()
    """Folder or s3:// prefix for masks and metric tables."""
    split: Literal["all", "train", "val", "test"] = "all"
    """Which cases, by the split of the run that made the model."""
    nifti: bool = execution(False)
    """Write the masks as .nii.gz too, on the grid of the source images."""
    batch_size: int = execution(16)
    """Slices per forward pass."""
    workers: int = execution(0)
    """Copies of the model at work; 0 means one per GPU, or one per CPU core."""
    device: Device = execution("auto")
    """Where to predict; auto is cuda where Ray sees GPUs."""
    precision: Precision = execution("auto")
    """Arithmetic of the network; auto is bf16 where the device is good at it, fp16 on other GPUs, else fp32."""
    strict: bool = execution(False)
    """Fail when any case is rejected, after the others are done."""
    wait_minutes: float = execution(15.0)
    """Minutes to wait for machines that an autoscaler can bring and for other jobs to make room."""
    debug: bool = execution(False)
    """Show tracebacks instead of one-line errors."""

    def __post_init__(self) -> None:
        _check(self.batch_size >= 1, "--batch-size", self.batch_size, "at least 1")
        _check(self.wait_minutes >= 0, "--wait-minutes", self.wait_minutes, "not negative")
        _check(self.workers >= 0, "--workers", self.workers, "not negative")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Score masks in NIfTI, made by any program, against the references of BraTS cases."""

    predictions: str = execution()
    """Folder with one <case_id>.nii.gz per case, coded and aligned as the case's own segmentation."""
    references: str = execution()
    """Case folders that hold the reference segmentations."""
    out: str = execution()
    """Folder or s3:// prefix for the metric tables."""
    strict: bool = execution(False)
    """Fail when any case is rejected, after the others are done."""
    wait_minutes: float = execution(15.0)
    """Minutes to wait for machines that an autoscaler can bring and for other jobs to make room."""
    debug: bool = execution(False)
    """Show tracebacks instead of one-line errors."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Draw learning curves and test cases from the files of a run."""

    run: str = execution()
    """Folder or s3:// prefix of a run of train.py."""
    out: str | None = execution(None)
    """Folder or s3:// prefix for the pictures (default: RUN/figures)."""
    debug: bool = execution(False)
    """Show tracebacks instead of one-line errors."""


def resolve_train(config: TrainConfig) -> TrainConfig:
    """Fill in the paths from the environment and their defaults.

    With no data named anywhere the phantoms are used: data stays None.
    """
    root = os.environ.get("BRATS_STORAGE") or "runs"
    data = config.data or os.environ.get("BRATS_DATA") or None
    preset: Preset = config.preset if config.preset != "auto" else auto_preset(config.data)
    return dataclasses.replace(
        config,
        preset=preset,
        data=data and storage.absolute(data),
        out=storage.absolute(config.out or storage.join(root, preset)),
    )


def auto_preset(data: str | None) -> Preset:
    return "brats" if data or os.environ.get("BRATS_DATA") else "demo"


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check(good: bool, option: str, value: object, remedy: str) -> None:
    if not good:
        raise ConfigError(f"{option}: {value} is not allowed: {remedy}")


def _check_modalities(modalities: tuple[Modality, ...]) -> None:
    _check(bool(modalities), "--modalities", modalities, "name at least one")
    _check(len(set(modalities)) == len(modalities), "--modalities", modalities, "name each once")
