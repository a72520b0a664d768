"""One frozen dataclass per job: its configuration and, by its fields, its command line.

`saved_config.py` writes it beside the output.

A field shapes either the *result* (it is fingerprinted: an output folder never mixes two values of it) or only
the *execution* (paths, workers, device: free to change when a job is run again).
"""

from brats.config.jobs import (
    DEGRADATION_KINDS,
    EXPORT_FORMATS,
    FIGURE_FORMATS,
    DegradationKind,
    EvaluateConfig,
    ExportConfig,
    ExportFormat,
    FigureFormat,
    PredictConfig,
    PrepareConfig,
    ReportConfig,
    RobustnessConfig,
)
from brats.config.training import (
    BOUNDS,
    CLASSIC_UNET,
    DECAY_OF_ADAMW,
    DEFAULT_EPOCHS,
    DEFAULT_STEPS,
    EXTRA_CHANNELS,
    LITE0_ENCODER,
    LITE0_WEIGHTS,
    LOSS_CONVENTIONS,
    MAX_CONTEXT,
    RECIPE,
    Augmentation,
    CompareConfig,
    ExtraChannel,
    Feeding,
    LossName,
    OptimiserName,
    OutputKind,
    Plane,
    TrainConfig,
)
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

__all__ = [
    "BOUNDS", "CLASSIC_UNET", "COMPARED_PRESETS", "DECAY_OF_ADAMW", "DEFAULT_EPOCHS", "DEFAULT_STEPS",
    "DEGRADATION_KINDS", "EXPORT_FORMATS", "EXTRA_CHANNELS", "FIGURE_FORMATS", "HDF5_CHANNELS",
    "HDF5_SPACING_MM", "LITE0_ENCODER", "LITE0_WEIGHTS", "LOSS_CONVENTIONS", "MAX_CONTEXT", "MODALITIES",
    "RECIPE", "Augmentation", "CodingName", "CompareConfig", "DegradationKind", "Device", "EvaluateConfig",
    "ExportConfig", "ExportFormat", "ExtraChannel", "Feeding", "FigureFormat", "LoggerName", "LossName", "Modality",
    "OptimiserName", "OutputKind", "Plane", "Precision", "PredictConfig", "PrepareConfig", "Preset",
    "PresetName", "ReportConfig", "RobustnessConfig", "RulesName", "TrainConfig",
]  # fmt: skip
