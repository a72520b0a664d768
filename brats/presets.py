"""Presets of a training run, and the defaults that it takes from the environment."""

import os
from collections.abc import Mapping
from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "brats": {},
    "t1": {"modalities": ("t1",)},
    "t1-t2-flair": {"modalities": ("t1", "t2", "flair")},
    "demo": {
        "encoder": "resnet18",
        "decoder_channels": (128, 64, 32, 16, 8),
        "epochs": 4,
        "batch_size": 16,
        "ema": 0.0,  # as the demo was measured
        "learning_rate": 2e-3,
        "warmup_steps": 20,
        "augmentation": "flips",  # four epochs are too few to gain from more
    },
}


def choose_preset(given: Mapping[str, Any]) -> str:
    """The preset that the given options name or imply: without any data the demo, which makes phantoms."""
    named: str = given.get("preset", "auto")
    if named != "auto":
        return named
    return "brats" if given.get("data") or os.environ.get("BRATS_DATA") else "demo"


def train_defaults(preset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a preset and the paths that the environment names, by field of `TrainConfig`.

    given: options of the command line; --steps and --minutes take the place of the preset's epochs
    """
    bounded = any(given.get(name) is not None for name in ("steps", "minutes"))
    settings = {name: value for name, value in PRESETS.get(preset, {}).items() if name != "epochs" or not bounded}
    root = os.environ.get("BRATS_STORAGE") or "runs"
    paths = {"data": os.environ.get("BRATS_DATA") or None, "out": os.path.join(root, preset)}
    return {**settings, **paths, "preset": preset}
