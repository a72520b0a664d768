"""Configurations of `train`, and of `compare`, which trains presets: what is trained, and for how long."""

from dataclasses import dataclass
from typing import Literal

from brats.config.values import (
    COMPARED_PRESETS,
    HDF5_CHANNELS,
    HDF5_SPACING_MM,
    MODALITIES,
    CodingName,
    Device,
    LoggerName,
    Modality,
    Precision,
    Preset,
    PresetName,
    RulesName,
)
from brats.errors import ConfigError
from brats.fields import Limits, check_options, constant, execution, option_name, path, result

OutputKind = Literal["regions", "classes", "whole-tumour"]
LossName = Literal["bce-dice", "dice", "cross-entropy"]
LOSS_CONVENTIONS: dict[LossName, str] = {
    "bce-dice": "binary cross-entropy plus soft Dice loss",
    "dice": "soft Dice loss",
    "cross-entropy": "cross-entropy of exclusive classes",
}
OptimiserName = Literal["adamw", "adam"]
DECAY_OF_ADAMW = 1e-2
CLASSIC_UNET = "classic-unet"  # stands for an encoder: a network of its own
Augmentation = Literal["none", "flips", "full"]
Feeding = Literal["auto", "resident", "streamed"]
Plane = Literal["axial", "coronal", "sagittal"]
ExtraChannel = Literal["foreground", "t1ce-t1"]
EXTRA_CHANNELS: dict[ExtraChannel, tuple[Modality, ...]] = {"foreground": (), "t1ce-t1": ("t1ce", "t1")}
"""Channels computed from others, with the modalities that each needs."""
MAX_CONTEXT = 2
# Of the length of a run that nothing bounds. The steps are those that 12 patients were trained for when the recipe
# was chosen: 145 of their epochs. For 300 patients 30 epochs are more, 25,000 steps.
DEFAULT_EPOCHS, DEFAULT_STEPS = 30, 4500
BOUNDS = ("epochs", "steps", "minutes")  # of the length of a run; they exclude each other
RECIPE = 2  # raised when what is trained changes otherwise than by an option
LITE0_ENCODER = "tu-tf_efficientnet_lite0"
LITE0_WEIGHTS = "efficientnet-lite0"  # installed with the extra `pretrained`


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
    """Starting values of the other options, one of those below; auto is demo where no data is named, else brats."""
    modalities: tuple[Modality, ...] = result(MODALITIES, Limits(distinct=True))
    """Input channels of the network, in this order."""
    plane: Plane = result("axial", earlier="axial")
    """Plane of the slices that the network sees. Slices of other planes than axial are cut from whole cases, which
    must fit in memory. Masks are written on the grid of the source whatever the plane."""
    triplanar: bool = result(False, earlier=False)
    """Train three networks in place of one, which see axial, coronal and sagittal slices, and average their
    probabilities in the volume."""
    context: int = result(0, Limits(at_least=0, at_most=MAX_CONTEXT), earlier=0)
    """Neighbours of each slice, on either side, that are channels of their own beside it."""
    extra_channels: tuple[ExtraChannel, ...] = result((), Limits(distinct=True, may_be_none=True), earlier=())
    """Channels computed from others: foreground (1 where any modality is not background), t1ce-t1 (the difference
    of the normalised images)."""
    coding: CodingName = result("auto", earlier="auto")
    """For cases not prepared, how segmentations are coded where names leave it open: {choices}; auto refuses names
    that have had two, such as BraTS-PED, and those that say nothing of it."""
    hdf5_channels: tuple[Modality, ...] = result(
        HDF5_CHANNELS, Limits(n_values=4, distinct=True), earlier=HDF5_CHANNELS
    )
    """For cases in HDF5 slices, the modality of each channel, which their files do not say."""
    hdf5_spacing_mm: tuple[float, ...] = result(
        HDF5_SPACING_MM, Limits(n_values=3, above=0), earlier=HDF5_SPACING_MM
    )
    """For cases in HDF5 slices, the size of their voxels in mm along both axes of a slice and across them."""
    outputs: OutputKind = result("regions", earlier="regions")
    """What the network gives: regions (WT, TC and ET, a sigmoid each), classes (background, NCR, ED and ET, which
    exclude each other, by one softmax) or whole-tumour (WT alone; TC and ET are null in every table)."""
    encoder: str = LITE0_ENCODER
    """Any encoder name of segmentation-models-pytorch; or classic-unet, the plain U-Net of 2015 as a whole, whose
    five levels have --decoder-channels."""
    encoder_weights: str | None = "auto"
    """Pretrained weights that the encoder starts from: efficientnet-lite0 (of tu-tf_efficientnet_lite0, installed
    with the extra pretrained), those that segmentation-models-pytorch downloads once, such as imagenet, or none for
    random ones; auto is efficientnet-lite0 for its encoder, none for others."""
    init: str | None = path(None)
    """A run of train.py or a model bundle whose weights the network starts from, in place of --encoder-weights: of
    the same encoder, decoder, inputs and outputs. The run keeps a copy, and never mixes two."""
    decoder_channels: tuple[int, ...] = result((256, 128, 64, 32, 16), Limits(n_values=5, at_least=1))
    """Channels of the decoder stages, deepest first."""
    dropout: float = result(0.0, Limits(at_least=0, at_most=0.9), earlier=0.0)
    """Share of the deepest features that a training step leaves out, between encoder and decoder."""
    loss: LossName = result("bce-dice", earlier="bce-dice")
    """What training minimises: bce-dice (binary cross-entropy plus soft Dice) or dice (soft Dice alone); of
    --outputs classes cross-entropy."""
    optimiser: OptimiserName = result("adamw", earlier="adamw")
    """How weights follow their gradients: adamw, or adam."""
    epochs: int | None = execution(
        None, Limits(at_least=1), stands_for=f"{DEFAULT_EPOCHS}, or {DEFAULT_STEPS} steps if those are more"
    )
    """Epochs in all, unless --steps or --minutes is given; a finished run goes on when this is raised."""
    steps: int | None = execution(None, Limits(at_least=1))
    """Optimiser steps in all, in place of --epochs. A finished run goes on when this is raised, at the learning
    rates of the longer run."""
    minutes: float | None = execution(None, Limits(at_least=0.01, at_most=100_000))
    """Minutes to train in all, in place of --epochs. Validation counts, but not the start of Ray, nor the
    prediction of the test split."""
    batch_size: int = result(32, Limits(at_least=1))
    """Slices per optimiser step over all workers; fewer workers accumulate gradients."""
    micro_batch_size: int | None = result(None, Limits(at_least=1))
    """Slices per forward pass of one worker, at most; without it all of its share, or what fits the GPU."""
    learning_rate: float = result(1e-3, Limits(above=0))
    """Highest learning rate, after the warm-up."""
    weight_decay: float | None = result(None, Limits(at_least=0))
    """Weight decay: apart from the gradient with adamw, as part of it with adam. Without a number 0.01 with adamw,
    none with adam."""
    warmup_steps: int = result(50, Limits(at_least=0))
    """Optimiser steps of linear warm-up before the cosine decay."""
    clip_norm: float = result(5.0, Limits(above=0))
    """Largest gradient norm; longer gradients are scaled down."""
    ema: float = result(0.998, Limits(at_least=0, at_most=1), earlier=0.0)
    """Decay of the exponential moving average of the weights, which is validated and exported in their place; 0
    keeps none. It is shorter in the first steps."""
    tumour_free_ratio: float = result(0.25, Limits(at_least=0, at_most=100))
    """Tumour-free slices per slice with tumour in an epoch, sampled anew each epoch."""
    et_ratio: float = result(0.0, Limits(at_least=0, at_most=0.9), earlier=0.0)
    """Share of the slices with tumour that show ET, at least: where fewer do, slices with ET come again in the same
    epoch, each four times at most."""
    augmentation: Augmentation = result("full", earlier="flips")
    """How slices are changed at random in training: none, flips, or full (flips, rotation, scaling, shift, elastic
    warp, then contrast, brightness, gamma, bias field, blur, resolution and noise of each modality)."""
    modality_dropout: float = result(0.0, Limits(at_least=0, at_most=1), earlier=0.0)
    """Probability with which each modality of a training slice is set to 0, as one that a case lacks would be; at
    least one is always kept."""
    patience: int | None = result(None, Limits(at_least=1))
    """Stop after so many validations without a better Dice. Only those in about the last third count, where the
    learning rate is at most a quarter of its highest. Without it training runs to its end."""
    fold: int | None = result(None, Limits(at_least=0))
    """Validate on this cross-validation fold instead of the validation split."""
    cross_validation: int | None = result(None, Limits(at_least=2))
    """Train so many models, in OUT/fold_0 and on: all labelled patients, those of the test split too, are dealt
    into as many folds, and each model is tested on a fold that it has not seen. OUT/metrics has the scores of all
    patients, OUT/model the average of the models."""
    seeds: int = result(1, Limits(at_least=1), earlier=1)
    """Networks to train in place of one, from --seed and the seeds that follow it; their probabilities are
    averaged."""
    feeding: Feeding = execution("auto")
    """Where training slices lie: resident (read once, kept in the memory of each worker's device) or streamed
    (read for every step); auto is resident where they fit. The batches are the same."""
    recipe: int = constant(RECIPE, earlier=1)
    """Version of what is trained, beside the options: a run never mixes two."""
    seed: int = result(0, Limits(at_least=0))
    """Seed of the weights, the epoch plan, the augmentation, the folds of --cross-validation with the patients that
    each validates on, and (for raw --data) the split."""
    workers: int = execution(0, Limits(at_least=0))
    """Training workers; 0 means one per GPU; on CPUs one per machine, two at most."""
    device: Device = execution("auto")
    """Where to train; auto is cuda where Ray sees GPUs."""
    precision: Precision = execution("auto")
    """Arithmetic of the network; auto is bf16 where the device is good at it, fp16 on other GPUs, else fp32."""
    tune: bool = result(True, earlier=False)
    """With --no-tune, masks are made with thresholds of .5 and no rule for small regions, instead of those chosen
    on the validation cases at the end."""
    predict: bool = execution(True)
    """With --no-predict, the test split is not predicted and scored into OUT/test at the end."""
    nifti: bool = execution(False)
    """Write the predicted masks as .nii.gz too; as .mha for cases of .mha files."""
    challenge_rules: RulesName = execution("gli")
    """Rules of BraTS 2023 by which lesions are scored where the id of a case names no challenge that has some:
    {choices}."""
    loggers: tuple[LoggerName, ...] = execution((), Limits(distinct=True, may_be_none=True))
    """Where epochs are logged beside the files for TensorBoard, which are always written: mlflow, wandb (Weights &
    Biases), or both, installed with the extra loggers. What they log stays in OUT unless their own environment
    variables, such as MLFLOW_TRACKING_URI and WANDB_MODE, say otherwise."""
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
        _check_length(self)
        if self.cross_validation is not None and self.fold is not None:
            raise ConfigError(
                "--cross-validation and --fold exclude each other; the first deals all patients into its own folds"
            )
        _check_inputs(self)
        if (self.loss == "cross-entropy") != (self.outputs == "classes"):
            fitting = "cross-entropy" if self.outputs == "classes" else "bce-dice or dice"
            raise ConfigError(f"--loss: {self.loss} does not fit --outputs {self.outputs}; give {fitting}")
        if self.weight_decay is None:
            object.__setattr__(self, "weight_decay", DECAY_OF_ADAMW if self.optimiser == "adamw" else 0.0)
        if self.encoder_weights == "auto":
            own = LITE0_WEIGHTS if self.encoder == LITE0_ENCODER and not self.init else None
            object.__setattr__(self, "encoder_weights", own)  # while a frozen object is made
        elif self.encoder_weights in ("none", "None"):  # the second as other options without a value are written
            object.__setattr__(self, "encoder_weights", None)
        if self.init and self.encoder_weights:
            raise ConfigError(
                f"--init and --encoder-weights exclude each other: {self.init} has the weights of its encoder too; "
                "leave one of them out"
            )
        if self.init == self.out:
            raise ConfigError("--init: names the run itself; name another one, or another --out")
        if self.modality_dropout and len(self.modalities) < 2:
            raise ConfigError(
                f"--modality-dropout: needs two modalities or more, of which some can be left out; there is "
                f"{self.modalities[0]} alone"
            )


def _check_inputs(config: TrainConfig) -> None:
    """Raise ConfigError for channels that others lack, and for slices that cannot be streamed."""
    for name in config.extra_channels:
        if missing := [needed for needed in EXTRA_CHANNELS[name] if needed not in config.modalities]:
            raise ConfigError(f"--extra-channels: {name} needs {' and '.join(missing)}, which --modalities lacks")
    if config.plane != "axial" and config.triplanar:
        raise ConfigError("--plane and --triplanar exclude each other: the latter trains a network for each plane")
    if config.triplanar and config.feeding == "streamed":
        raise ConfigError(
            "--triplanar: slices of two planes are cut from whole cases in memory; leave --feeding streamed out"
        )
    if config.plane != "axial" and config.feeding == "streamed":
        raise ConfigError(
            f"--plane: {config.plane} slices are cut from whole cases in memory; leave --feeding streamed out"
        )


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Train presets on the same cases, split and seeds, and compare them on the test split.

    Each preset is a run of train.py in OUT/PRESET/seed_0 and on. Run again with the same --out, it trains what is
    missing, also presets and seeds named since, and compares anew. A preset whose training fails is named at the
    end, and the others are compared, on the cases that all of them have scored. Of presets that are the same
    training, as brats and four-modality are, one is trained.
    """

    data: str = path()
    """A prepared dataset with two patients or more in its test split."""
    out: str = path()
    """Folder or s3:// prefix of the comparison."""
    presets: tuple[PresetName, ...] = execution(COMPARED_PRESETS, Limits(distinct=True))
    """Presets of train.py; the others are tested against brats or, where that is not named, the first."""
    seeds: int = execution(1, Limits(at_least=1))
    """Trainings of each preset, with the seeds 0, 1, and on; scores are averaged over them, patient by patient."""
    epochs: int | None = result(None, Limits(at_least=1))
    """Epochs of each training; without --epochs, --steps and --minutes those of its preset."""
    steps: int | None = result(None, Limits(at_least=1))
    """Optimiser steps of each training, in place of --epochs."""
    minutes: float | None = result(None, Limits(at_least=0.01, at_most=100_000))
    """Minutes of each training, in place of --epochs."""
    workers: int = execution(0, Limits(at_least=0))
    """Workers of each training; 0 means one per GPU; on CPUs one per machine, two at most."""
    device: Device = execution("auto")
    """Where to train and predict; auto is cuda where Ray sees GPUs."""
    precision: Precision = execution("auto")
    """Arithmetic of the networks; auto is bf16 where the device is good at it, fp16 on other GPUs, else fp32."""
    loggers: tuple[LoggerName, ...] = execution((), Limits(distinct=True, may_be_none=True))
    """Where the epochs of each training are logged, as by the option of train.py: mlflow, wandb, or both."""
    wait_minutes: float = execution(15.0, Limits(at_least=0))
    """Minutes to wait for machines that an autoscaler can bring and for other jobs to make room."""
    debug: bool = execution(False)
    """Show tracebacks instead of one-line errors."""

    def __post_init__(self) -> None:
        check_options(self)
        _check_length(self)
        if len(self.presets) < 2:
            raise ConfigError(f"--presets names {self.presets[0]} alone; name two presets or more")


def _check_length(config: TrainConfig | CompareConfig) -> None:
    """Raise ConfigError where more than one option says how long to train."""
    given = [name for name in BOUNDS if getattr(config, name) is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(map(option_name, given))} exclude each other; give one of them")
