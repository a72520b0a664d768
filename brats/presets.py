"""Presets of a training run, each with what it is for, and the defaults that a run takes from the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from brats.config import BOUNDS, CLASSIC_UNET, MODALITIES


@dataclass(frozen=True, kw_only=True)
class NamedPreset:
    """Values of some fields of `TrainConfig`; the others keep their defaults.

    settings:  by field
    text:      what it trains
    published: figures that others have reported of the like, for comparison with the tables of a run; "" for none
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    text: str
    published: str = ""


# The five published experiments are known by what was reported of them, without author, data or split. Where that
# leaves something open, it stays as in `brats`; rates of drop-out are those of widely copied Keras networks: 0.2 of
# kaggle.com/code/rastislav/3d-mri-brain-tumor-segmentation-u-net, 0.5 of github.com/zhixuhao/unet.
_THREE_OF_FOUR: dict[str, Any] = {
    "modalities": ("flair", "t1ce", "t2"),
    "outputs": "classes",
    "loss": "cross-entropy",
    "optimiser": "adam",
}

PRESETS: dict[str, NamedPreset] = {
    "brats": NamedPreset(text="the default: all four modalities, all regions."),
    "best": NamedPreset(
        text="as brats, but a network for each of the three planes, averaged in the volume; three times as slow.",
        settings={"triplanar": True},
    ),
    "demo": NamedPreset(
        text="small and quick, for phantoms on CPUs.",
        settings={
            "decoder_channels": (128, 64, 32, 16, 8),
            "minutes": 4.0,  # whatever the CPU: four epochs took a quarter of an hour with AVX2 alone
            "batch_size": 8,  # the steps are few enough
            "ema": 0.0,  # as the demo was measured
            "learning_rate": 1.4e-3,
            "warmup_steps": 40,
            "augmentation": "flips",  # a few epochs are too few to gain from more
        },
    ),
    "t1-slices": NamedPreset(
        text="T1 alone, tumour against background, soft Dice loss; all regions but WT are null in its tables.",
        published="Dice, accuracy, losses and memory",
        settings={"modalities": ("t1",), "outputs": "whole-tumour", "loss": "dice"},
    ),
    "four-modality": NamedPreset(
        text="all four modalities, named here so that they stay; otherwise as brats.",
        published="Dice, accuracy, sensitivity, specificity and precision",
        settings={"modalities": MODALITIES},
    ),
    "augmented-dropout": NamedPreset(
        text="FLAIR, T1ce and T2; exclusive classes, cross-entropy, Adam, drop-out of 0.2 and augmentation.",
        published="Dice 0.92, ten points above the same without drop-out and augmentation; inference in 30 % less "
        "time",
        settings={**_THREE_OF_FOUR, "dropout": 0.2, "augmentation": "full"},
    ),
    "augmented-dropout-baseline": NamedPreset(
        text="augmented-dropout without drop-out and augmentation: what it is compared with.",
        published="Dice ten points below augmented-dropout",
        settings={**_THREE_OF_FOUR, "dropout": 0.0, "augmentation": "none"},
    ),
    "classic-unet": NamedPreset(
        text="the plain encoder and decoder nearest to the U-Net of 2015, with its 64 to 1,024 channels.",
        published="Dice 0.9856",
        settings={
            "encoder": CLASSIC_UNET,
            "decoder_channels": (1024, 512, 256, 128, 64),
            "dropout": 0.5,
            "learning_rate": 1e-4,  # of the Keras network, which normalises nothing either
        },
    ),
    "three-modality": NamedPreset(
        text="T1, T2 and FLAIR, without contrast agent; slices of any size, and masks of the same.",
        settings={"modalities": ("t1", "t2", "flair")},
    ),
}


def choose_preset(given: Mapping[str, Any]) -> str:
    """The preset that the given options name or imply: without any data the demo, which makes phantoms."""
    named: str = given.get("preset", "auto")
    if named != "auto":
        return named
    return "brats" if given.get("data") or os.environ.get("BRATS_DATA") else "demo"


def train_defaults(preset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a preset and the paths that the environment names, by field of `TrainConfig`.

    preset: its name; PRESET, which the help has in its place, has no values
    given:  options of the command line; one that bounds the run takes the place of the preset's own bound
    """
    dropped = BOUNDS if any(given.get(name) is not None for name in BOUNDS) else ()
    known = PRESETS.get(preset)
    settings = {name: value for name, value in known.settings.items() if name not in dropped} if known else {}
    root = os.environ.get("BRATS_STORAGE") or "runs"
    paths = {"data": os.environ.get("BRATS_DATA") or None, "out": os.path.join(root, preset)}
    return {**settings, **paths, "preset": preset}
