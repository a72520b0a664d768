"""Values that options of several jobs have: modalities, codings, rules, devices, presets."""

from typing import Literal, get_args

Modality = Literal["flair", "t1", "t1ce", "t2"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)
LoggerName = Literal["mlflow", "wandb"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
CodingName = Literal[
    "auto",
    "brats2018",
    "brats2023",
    "brats2023-ped",
    "brats2024-ped",
    "brats2024-gli",
    "brats2025-met",
    "brats2012",
    "brats2013",
    "msd-task01",
]
RulesName = Literal["gli", "ssa", "ped", "men", "met"]
HDF5_CHANNELS: tuple[Modality, ...] = ("t1", "t1ce", "t2", "flair")
HDF5_SPACING_MM = (1.0, 1.0, 1.0)
PresetName = Literal[
    "brats",
    "best",
    "demo",
    "t1-slices",
    "four-modality",
    "augmented-dropout",
    "augmented-dropout-baseline",
    "classic-unet",
    "three-modality",
]
Preset = Literal["auto", PresetName]
COMPARED_PRESETS: tuple[PresetName, ...] = (
    "brats",
    "t1-slices",
    "four-modality",
    "augmented-dropout",
    "augmented-dropout-baseline",
    "classic-unet",
    "three-modality",
)
