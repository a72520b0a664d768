"""A case as the viewer shows it: images in 256 grey levels, label maps and probabilities, in one small file.

The file is gzip of: the length of a header (4 bytes, little-endian), the header (JSON), and arrays (Z, H, W) of
bytes, one after the other: each image of the header, the labels (reference + 16 x prediction), and the
probabilities x 255 of each region of the header.

Axes: `Z H W` slices of a crop, H = X and W = Y in RAS+; `R` region.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from isal import igzip

from brats import storage
from brats.data.case import Array, Case, Intensity, crop
from brats.data.grid import to_ras
from brats.data.masks import masks_path, probabilities_path, read_masks, read_probabilities
from brats.errors import CaseError
from brats.labels import REGIONS, Labels, bounding_box, region_mask

WINDOW_PERCENTILES = (0.5, 99.5)  # of the values inside the brain; what is darker or brighter is clipped
BACKGROUND_LEVEL, DARKEST_LEVEL, BRIGHTEST_LEVEL = 0, 1, 255
PREDICTION_FACTOR = 16
GZIP_LEVEL = 1  # of isal: the 16 MB of a real case become 5 to 7 MB; higher levels save 1 % at most
ALL_TISSUES = "all"

Point = tuple[int, int, int]
Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Layers:
    """What is shown of a case, (Z, H, W) each.

    reference:     labels; None for a case without segmentation
    prediction:    labels
    probabilities: x 255 by region; empty where they were not written
    """

    case: Case
    prediction: Labels
    probabilities: Mapping[str, Grey]

    @property
    def reference(self) -> Labels | None:
        return self.case.labels


def read_prediction(predictions: str, case: Case) -> Labels:
    """The predicted label map of a case, (Z, H, W): cut to the crop of the case. Errors as of `read_layers`."""
    path = masks_path(predictions, case.case_id)
    mask = read_masks(path)
    if mask.shape != case.grid.shape:
        raise CaseError(path, f"shape {mask.shape}, but the case has {case.grid.shape}; predict it again")
    return crop(to_ras(mask, case.grid), case.box)


def read_layers(case: Case, predictions: str) -> Layers:
    """A case with what was predicted of it.

    Raises FileNotFoundError where its mask is missing, CaseError where that was made on another grid.
    """
    prediction = read_prediction(predictions, case)
    path = probabilities_path(predictions, case.case_id)
    volumes = read_probabilities(path) if storage.exists(path) else {}
    probabilities = {name: crop(to_ras(volume, case.grid), case.box) for name, volume in volumes.items()}
    return Layers(case=case, prediction=prediction, probabilities=probabilities)


def grey_bytes(image: Array, intensity: Intensity) -> tuple[Grey, float, float]:
    """An image (Z, H, W) of raw values as bytes, and the values that 1 and 255 stand for. Background is 0."""
    inside = intensity.is_brain(image)
    values = (intensity.slope * image[inside] + intensity.inter).astype(np.float32)
    low, high = percentiles(values, WINDOW_PERCENTILES)
    per_level = (high - low) / (BRIGHTEST_LEVEL - DARKEST_LEVEL) or np.inf  # a brain of one value is dark
    levels = (values - np.float32(low)) / np.float32(per_level)
    np.clip(np.rint(levels + DARKEST_LEVEL), DARKEST_LEVEL, BRIGHTEST_LEVEL, out=levels)
    grey = np.full(image.shape, BACKGROUND_LEVEL, np.uint8)
    grey[inside] = levels
    return grey, low, high


def percentiles(values: npt.NDArray[np.float32], percents: Sequence[float]) -> list[float]:
    """What np.percentile gives for finite values. Sorting takes NumPy a fifth of the time of partitioning."""
    ordered = np.sort(values)
    places = np.asarray(percents) / 100 * (len(ordered) - 1)
    below, above = np.floor(places).astype(int), np.ceil(places).astype(int)
    found: list[float] = (ordered[below] + (places - below) * (ordered[above] - ordered[below])).tolist()
    return found


def pack(layers: Layers) -> bytes:
    """The file of a case for the viewer."""
    case, labels = layers.case, layers.prediction * np.uint8(PREDICTION_FACTOR)
    images, arrays = [], []
    for name, image in case.images.items():
        levels, low, high = grey_bytes(image, case.intensities[name])
        images.append({"name": name, "low": low, "high": high})
        arrays.append(levels)
    if layers.reference is not None:
        labels = labels + layers.reference
    header = {
        "case_id": case.case_id,
        "shape": list(labels.shape),
        "spacing_mm": list(case.spacing_zhw_mm),
        "start": [case.box.start[2], *case.box.start[:2]],
        "images": images,
        "reference": layers.reference is not None,
        "probabilities": list(layers.probabilities),
        "peaks": {name: list(point) for name, point in peaks(layers).items()},
    }
    return compress(header, [*arrays, labels, *layers.probabilities.values()])


def compress(header: Mapping[str, Any], arrays: list[Grey]) -> bytes:
    text = json.dumps(header, allow_nan=False).encode()
    content = b"".join([len(text).to_bytes(4, "little"), text, *(array.data for array in arrays)])
    return igzip.compress(content, GZIP_LEVEL, mtime=0)  # without the time, equal cases give equal files


def peaks(layers: Layers) -> dict[str, Point]:
    """Where the viewer starts, for each region and for `ALL_TISSUES`: in the slice with the largest error.

    Without a reference, and without an error, that with most of the region; without that, the middle.
    """
    prediction = layers.prediction
    reference = prediction if layers.reference is None else layers.reference
    box = bounding_box((reference | prediction) != 0)
    corner = np.array([edge.start for edge in box])
    middle = tuple(size // 2 for size in prediction.shape)
    found = {}
    for region in (*REGIONS, ALL_TISSUES):
        ours, theirs = (_of_region(labels[box], region) for labels in (prediction, reference))
        point = _densest(ours != theirs)
        if point is None:
            point = _densest(theirs > 0)
        z, h, w = middle if point is None else (int(value) for value in corner + point)
        found[region] = (z, h, w)
    return found


def _of_region(labels: Labels, region: str) -> Labels:
    return labels if region == ALL_TISSUES else region_mask(labels, region).astype(np.uint8)


def _densest(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp] | None:
    """Of the slice with most voxels of a mask the voxel that is nearest to their centre; None for an empty one."""
    if not mask.any():
        return None
    index = mask.sum(axis=(1, 2)).argmax()
    points = np.argwhere(mask[index])
    nearest = points[((points - points.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return np.array([index, *nearest], np.intp)
