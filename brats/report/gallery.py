"""Pictures of cases: the best, the median and the worst with their errors, and slices as the network sees them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brats.report.html import paragraph, picture, section
from brats.report.overlay import MODALITY_NAMES
from brats.report.panels import png_url, sample_row
from brats.report.viewer import legends

ROLES = ("worst", "median", "best")


@dataclass(frozen=True, kw_only=True)
class Example:
    """A case that the page shows a slice of, where its error is largest.

    slice_index: in the crop's volume
    panel:       of `brats.report.panels.error_panel`, as a data: URL
    figure:      the picture of the case in all modalities, as a data: URL; "" where it was not drawn
    """

    role: str
    case_id: str
    title: str
    slice_index: int
    panel: str
    figure: str = ""


def examples_section(examples: Mapping[str, Example]) -> str:
    """The worst, the median and the best case: image, reference, prediction and errors side by side."""
    blocks = []
    for role in ROLES:
        if example := examples.get(role):
            caption = (
                f"{role.capitalize()}: {example.title}; slice z = {example.slice_index} alone, with its reference, "
                "its prediction and its errors"
            )
            blocks.append(picture(example.panel, caption, caption, "pixels"))
            if example.figure:
                whole = picture(example.figure, f"{example.case_id} in every modality")
                blocks.append(f"<details><summary>The slice with most tumour, outlined</summary>{whole}</details>")
    return section("examples", "Worst, median and best case", *blocks, legends() if blocks else "")


@dataclass(frozen=True, kw_only=True)
class Samples:
    """A slice of a training case: normalised (C, H, W), and augmented (N, C, H, W) as training sees it."""

    case_id: str
    modalities: Sequence[str]
    augmentation: str
    normalised: npt.NDArray[np.float32]
    augmented: npt.NDArray[np.float32]


def samples_section(samples: Samples | None) -> str:
    """Preprocessed slices, and the same slices augmented."""
    if samples is None:
        return ""
    names = ", ".join(MODALITY_NAMES.get(name, name) for name in samples.modalities)
    before = picture(
        png_url(sample_row(samples.normalised)), "preprocessed slices", f"Preprocessed: {names}", "pixels"
    )
    after = [
        picture(png_url(sample_row(slices)), f"augmented slices {number}", kind="pixels")
        for number, slices in enumerate(samples.augmented, 1)
    ]
    words = (
        f"The slice with most tumour of {samples.case_id}, which was trained on, from -2 to 3 standard deviations "
        f"around the mean of its brain; below, as --augmentation {samples.augmentation} draws it."
    )
    return section("samples", "What the network sees", paragraph(words), before, *after)
