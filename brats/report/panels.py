"""Small pictures for the page, as arrays: slices with their labels and errors side by side; and PNG files of them.

Axes: `Z H W` slices of a crop, H = X and W = Y in RAS+; `rows columns` a slice as it is shown, see
`brats.report.overlay`.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.image import imsave

from brats.labels import REGIONS, Labels
from brats.report.overlay import to_display
from brats.report.volumes import ALL_TISSUES, Layers, grey_bytes, peaks

RGB = npt.NDArray[np.uint8]

# Okabe and Ito: sky blue and orange stay apart in every kind of colour blindness, and on grey.
MISSED_COLOUR, FALSE_COLOUR, CONFUSED_COLOUR = "#56B4E9", "#E69F00", "#CC79A7"
TISSUE_COLOURS = {region.label: region.colour for region in REGIONS.values()}
OPACITY = 0.55
GAP = 2  # pixels between pictures
Z_SCORE_WINDOW = (
    -2.0,
    3.0,
)  # standard deviations around the mean of the brain, for slices as the network sees them


class Slice(NamedTuple):
    """A slice as it is shown, (rows, columns): grey levels from 0 to 255 and both label maps."""

    grey: npt.NDArray[np.uint8]
    reference: Labels | None
    prediction: Labels


def png_url(image: RGB) -> str:
    """A picture (rows, columns, 3) as a data: URL."""
    content = io.BytesIO()
    imsave(content, image, format="png")
    return data_url(content.getvalue())


def data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def worst_slice(layers: Layers) -> tuple[int, Slice]:
    """The slice with the largest error: its index in the crop, and what is shown of it."""
    index = peaks(layers)[ALL_TISSUES][0]
    name, image = next(iter(layers.case.images.items()))
    grey, _, _ = grey_bytes(image, layers.case.intensities[name])
    reference = None if layers.reference is None else to_display(layers.reference[index])
    return index, Slice(to_display(grey[index]), reference, to_display(layers.prediction[index]))


def error_panel(shown: Slice) -> RGB:
    """A slice alone, with its reference, its prediction and its errors: (rows, 4 columns and gaps, 3)."""
    pictures = [coloured(shown.grey, {})]
    if shown.reference is not None:
        pictures.append(coloured(shown.grey, tissue_masks(shown.reference)))
    pictures.append(coloured(shown.grey, tissue_masks(shown.prediction)))
    if shown.reference is not None:
        pictures.append(coloured(shown.grey, error_masks(shown.reference, shown.prediction)))
    return beside(pictures)


def tissue_masks(labels: Labels) -> dict[str, npt.NDArray[np.bool_]]:
    """Where each tissue is, by its colour."""
    return {colour: labels == label for label, colour in TISSUE_COLOURS.items()}


def error_masks(reference: Labels, prediction: Labels) -> dict[str, npt.NDArray[np.bool_]]:
    """Where tumour was missed, falsely found, and taken for another tissue, by colour."""
    return {
        MISSED_COLOUR: (reference > 0) & (prediction == 0),
        FALSE_COLOUR: (reference == 0) & (prediction > 0),
        CONFUSED_COLOUR: (reference > 0) & (prediction > 0) & (reference != prediction),
    }


def coloured(grey: npt.NDArray[np.uint8], masks: Mapping[str, npt.NDArray[np.bool_]]) -> RGB:
    """Grey levels (rows, columns) with masks in their colours on top, (rows, columns, 3)."""
    picture = np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
    for colour, mask in masks.items():
        rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)], np.float32)
        picture[mask] += OPACITY * (rgb - picture[mask])
    return np.rint(picture).astype(np.uint8)


def beside(pictures: Sequence[RGB]) -> RGB:
    """Pictures (rows, columns, 3) of one height in a row, with gaps of black between them."""
    gap = np.zeros((pictures[0].shape[0], GAP, 3), np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)]
    return np.concatenate(parts[1:], axis=1)


def z_score_grey(slices: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Normalised slices (..., H, W) as grey levels; the background, exactly 0, is black."""
    low, high = Z_SCORE_WINDOW
    levels = np.clip((slices - low) / (high - low), 0, 1) * 254 + 1
    return np.where(slices == 0, 0, levels).astype(np.uint8)


def sample_row(slices: npt.NDArray[np.float32]) -> RGB:
    """Normalised slices of each modality (C, H, W) beside each other, as they are shown."""
    return beside([coloured(to_display(grey), {}) for grey in z_score_grey(slices)])
