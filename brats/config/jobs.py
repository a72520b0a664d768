"""Configurations of the jobs that train nothing."""

from dataclasses import dataclass
from typing import Literal, get_args

from brats.config.values import (
    HDF5_CHANNELS,
    HDF5_SPACING_MM,
    MODALITIES,
    CodingName,
    Device,
    Modality,
    Precision,
    RulesName,
)
from brats.errors import ConfigError
from brats.fields import Limits, case_result, check_options, execution, path, result

DegradationKind = Literal["noise", "bias-field", "gain", "blur", "low-resolution", "missing"]
DEGRADATION_KINDS: tuple[DegradationKind, ...] = get_args(DegradationKind)
ExportFormat = Literal["onnx", "torch", "card"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
FigureFormat = Literal["png", "pdf"]
FIGURE_FORMATS: tuple[FigureFormat, ...] = get_args(FigureFormat)


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Turn BraTS case folders into a prepared dataset: cropped slices in Parquet and a table of cases.

    Finds every case below --data, reads and crops one case at a time, and splits the patients into train, val
    and test, stratified by tumour volume and presence of enhancing tumour. Run again, it does what is missing.
    """

    data: str = path()
    """Folder or s3:// prefix with BraTS cases, at any depth, in the names of any edition or another form."""
    out: str = path()
    """Folder or s3:// prefix for the prepared dataset."""
    modalities: tuple[Modality, ...] = result(MODALITIES, Limits(distinct=True))
    """Modalities every case must have; others are left out."""
    coding: CodingName = case_result("auto")
    """How segmentations are coded where names leave it open: {choices}; auto refuses names that have had two, such
    as BraTS-PED, and those that say nothing of it."""
    hdf5_channels: tuple[Modality, ...] = result(
        HDF5_CHANNELS, Limits(n_values=4, distinct=True), earlier=HDF5_CHANNELS
    )
    """For cases in HDF5 slices, the modality of each channel, which their files do not say."""
    hdf5_spacing_mm: tuple[float, ...] = result(
        HDF5_SPACING_MM, Limits(n_values=3, above=0), earlier=HDF5_SPACING_MM
    )
    """For cases in HDF5 slices, the size of their voxels in mm along both axes of a slice and across them."""
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
    flips: bool = result(False, earlier=False)
    """Average the probabilities over the four ways to flip the slices, which takes four times as long."""
    nifti: bool = execution(False)
    """Write the masks as .nii.gz too, on the grid of the source images; as .mha where these are .mha."""
    probabilities: bool = execution(False)
    """Write the probability of each region in each voxel too, in 256 levels."""
    challenge_rules: RulesName = execution("gli")
    """Rules of BraTS 2023 by which lesions are scored where the id of a case names no challenge that has some:
    {choices}."""
    batch_size: int = execution(0, Limits(at_least=0))
    """Slices per forward pass; 0 means 64 on a GPU, 16 on CPUs. What does not fit a GPU is halved."""
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
    """Score masks against the references of BraTS cases: NIfTI or .mha of any program, or a finished prediction.

    A prediction of predict.py, or a run, is scored from its masks, without its model; without --out its own tables
    get the columns that they lack. --against compares its scores with those of another prediction.
    """

    predictions: str = path()
    """Folder with one <case_id>.nii, .nii.gz or .mha per case, at any depth, aligned with the case's segmentation;
    or the --out of predict.py; or a run of train.py, whose test split is meant. With --against the --out of
    evaluate.py too."""
    references: str | None = path(None)
    """Case folders that hold the reference segmentations. For masks of predict.py a prepared dataset will do too;
    without it the cases that were predicted."""
    out: str | None = path(None)
    """Folder or s3:// prefix for the metric tables; without it, those of a prediction itself are added to."""
    against: str | None = path(None)
    """Another prediction, run or --out of evaluate.py: the scores of --predictions minus its scores, patient by
    patient, go into metrics/against.parquet."""
    coding: CodingName = result("auto", earlier="auto")
    """How references are coded where names leave it open: {choices}; auto refuses names that have had two, such as
    BraTS-PED, and those that say nothing of it."""
    hdf5_spacing_mm: tuple[float, ...] = result(
        HDF5_SPACING_MM, Limits(n_values=3, above=0), earlier=HDF5_SPACING_MM
    )
    """For cases in HDF5 slices, the size of their voxels in mm along both axes of a slice and across them."""
    prediction_coding: str = result("case", earlier="case")
    """How the predictions are coded: case (as the case's own segmentation), a coding such as brats2023, nnunet or
    decathlon (1 ED, 2 NCR, 3 ET), or pairs such as 1=ED,2=NCR,3=ET."""
    challenge_rules: RulesName = execution("gli")
    """Rules of BraTS 2023 by which lesions are scored where the id of a case names no challenge that has some:
    {choices}."""
    strict: bool = execution(False)
    """Fail when any case is rejected, after the others are done."""
    wait_minutes: float = execution(15.0, Limits(at_least=0))
    """Minutes to wait for machines that an autoscaler can bring and for other jobs to make room."""
    debug: bool = execution(False)
    """Show tracebacks instead of one-line errors."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig:
    """Segment degraded copies of cases with a trained model; write how much Dice each degradation costs.

    The cases are degraded in memory as they are read, and predicted and scored as by predict.py into
    OUT/DEGRADATION; OUT/intact has them as they are. Run again with the same --out, it does what is missing.
    """

    model: str = path()
    """A run of train.py or a model bundle (a folder with model.safetensors and model.json)."""
    data: str = path()
    """Case folders or a prepared dataset; only cases with a reference are compared."""
    out: str = path()
    """Folder or s3:// prefix for robustness.parquet and the predictions."""
    degradations: tuple[DegradationKind, ...] = execution(DEGRADATION_KINDS, Limits(distinct=True))
    """Kinds of degradation: noise, bias-field, gain, blur and low-resolution, each in two strengths, and missing,
    which leaves out one modality of the model after the other."""
    split: Literal["all", "train", "val", "test"] = "all"
    """Which cases, by the split of the run that made the model."""
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
    batch_size: int = execution(0, Limits(at_least=0))
    """Slices per forward pass; 0 means 64 on a GPU, 16 on CPUs. What does not fit a GPU is halved."""
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
class ReportConfig:
    """Write a page of a run's results, with a viewer of its cases, and draw its learning curves and test cases.

    The page opens from disk, without a network or a server.
    """

    run: str = path()
    """Folder or s3:// prefix of a run of train.py, or of the --out of predict.py or evaluate.py."""
    out: str | None = path(None)
    """Folder or s3:// prefix for index.html and the pictures; without it RUN/report and RUN/figures."""
    cases: int = execution(40, Limits(at_least=0))
    """Cases that the viewer has, at most, the worst first; a real one takes some 6 MB."""
    figures: tuple[FigureFormat, ...] = execution(("png",), Limits(distinct=True))
    """Files of each figure: png, or pdf for papers, 183 mm wide with its fonts embedded."""
    debug: bool = execution(False)
    """Show tracebacks instead of one-line errors."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a trained model, or predicted masks, in the form in which other programs and people take them.

    With --model, the network as a graph for other programs and a card that describes it. With --predictions, the
    masks of predict.py as a submission to a BraTS challenge, checked, or their probabilities as NIfTI.
    """

    model: str | None = path(None)
    """A run of train.py or a model bundle; of several networks, each has a folder in --out."""
    predictions: str | None = path(None)
    """An --out of predict.py --nifti, or RUN/test of train.py --nifti."""
    data: str | None = path(None)
    """With --predictions, the case folders of the challenge: those without a mask are named. Without it only
    those that were rejected are."""
    out: str = path()
    """Folder or s3:// prefix for the files of the model; of --predictions the .zip file, or with --probabilities
    a folder."""
    probabilities: bool = execution(False)
    """With --predictions, the probability of each region as NIfTI too, of what predict.py --nifti --probabilities
    has predicted: in a .zip file below probabilities/; a folder has them alone, of any case."""
    formats: tuple[ExportFormat, ...] = execution(EXPORT_FORMATS, Limits(distinct=True))
    """Of the model: onnx (model.onnx; needs the extra export), torch (model.pt2, for torch.export.load) and card
    (README.md)."""
    strict: bool = execution(False)
    """Fail when a mask is missing or cannot be submitted, after the archive is written."""
    debug: bool = execution(False)
    """Show tracebacks instead of one-line errors."""

    def __post_init__(self) -> None:
        check_options(self)
        if (self.model is None) == (self.predictions is None):
            raise ConfigError("give either --model or --predictions: what is to be exported")
        if self.predictions is None and self.data is not None:
            raise ConfigError("--data: names the cases of a submission; give it with --predictions")
        if self.predictions is None and self.probabilities:
            raise ConfigError("--probabilities: those of predicted cases; give it with --predictions")
        if self.predictions is not None and not (self.probabilities or self.out.endswith(".zip")):
            raise ConfigError(
                f"--out: {self.out} is to be the archive of a submission; let it end with .zip, or add "
                "--probabilities for a folder of these alone"
            )
