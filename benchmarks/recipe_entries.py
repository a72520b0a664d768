"""What the screening tries: the ingredients of the recipe, one by one, and the programs that it is held against."""

from collections.abc import Mapping
from typing import Any

from benchmarks.harness import BenchmarkError
from benchmarks.opponents import same_recipe, users_script
from benchmarks.recipe_trials import Entry

USERS_SCRIPT, SAME_RECIPE = "monai-script", "monai-same"
DEFAULT = Entry(name="default", text="the recipe of --preset brats")

INGREDIENTS = (
    Entry(name="no-augmentation", text="without augmentation", changes={"augmentation": "none"}, on=True),
    Entry(name="flips", text="flips alone", changes={"augmentation": "flips"}, on=True),
    Entry(name="no-ema", text="without averaged weights", changes={"ema": 0.0}, on=True),
    Entry(name="untuned", text="thresholds of .5 and no rules", changes={"tune": False}, on=True),
    Entry(
        name="random-weights", text="the encoder from random weights", changes={"encoder_weights": "none"}, on=True
    ),
    Entry(
        name="resnet34",
        text="resnet34 from random weights",
        changes={"encoder": "resnet34", "encoder_weights": "none"},
        on=True,
    ),
    Entry(name="batch-16", text="16 slices a step", changes={"batch_size": 16}),
    Entry(name="batch-64", text="64 slices a step", changes={"batch_size": 64}),
    Entry(name="tumour-free-0.1", text="fewer slices without tumour", changes={"tumour_free_ratio": 0.1}),
    Entry(name="tumour-free-1", text="as many slices without tumour as with", changes={"tumour_free_ratio": 1.0}),
    Entry(name="rate-5e-4", text="half the learning rate", changes={"learning_rate": 5e-4}),
    Entry(name="rate-2e-3", text="twice the learning rate", changes={"learning_rate": 2e-3}),
    Entry(name="weight-decay-0.05", text="five times the weight decay", changes={"weight_decay": 5e-2}),
    Entry(name="dropout-0.2", text="drop-out of 0.2 before the decoder", changes={"dropout": 0.2}),
    Entry(
        name="classes",
        text="exclusive classes by a softmax, cross-entropy",
        changes={"outputs": "classes", "loss": "cross-entropy"},
    ),
    Entry(name="context-1", text="one neighbouring slice on either side", changes={"context": 1}),
    Entry(name="context-2", text="two neighbouring slices on either side", changes={"context": 2}),
    Entry(name="foreground", text="a channel of the foreground", changes={"extra_channels": ("foreground",)}),
    Entry(name="t1ce-t1", text="a channel of T1ce minus T1", changes={"extra_channels": ("t1ce-t1",)}),
    Entry(name="coronal", text="coronal slices", changes={"plane": "coronal"}),
    Entry(name="sagittal", text="sagittal slices", changes={"plane": "sagittal"}),
    Entry(name="et-half", text="half of the slices with tumour show ET", changes={"et_ratio": 0.5}),
    Entry(name="modality-dropout", text="a tenth of the modalities left out", changes={"modality_dropout": 0.1}),
)
OPPONENTS = (
    Entry(name=USERS_SCRIPT, text="a MONAI user's script", train=users_script),
    Entry(name=SAME_RECIPE, text="the same ingredients written with MONAI", train=same_recipe),
)
KNOWN = {entry.name: entry for entry in (DEFAULT, *INGREDIENTS, *OPPONENTS)}


def entry_of(name: str) -> Entry:
    """The entry of a name, or of several ingredients joined by +. Raises BenchmarkError listing the known names."""
    parts = name.split("+")
    unknown = [part for part in parts if part not in KNOWN or (len(parts) > 1 and not KNOWN[part].changes)]
    if unknown:
        names = ", ".join(entry.name for entry in INGREDIENTS)
        raise BenchmarkError(f"{unknown[0]} is not an ingredient; known are {names}, also several joined by +")
    if len(parts) == 1:
        return KNOWN[name]
    changes: Mapping[str, Any] = {key: value for part in parts for key, value in KNOWN[part].changes.items()}
    return Entry(name=name, text=" and ".join(KNOWN[part].text for part in parts), changes=changes)
