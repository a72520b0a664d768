"""Predicted segmentation of a case: its label map, and its probabilities in 256 levels.

Axes: `Z H W` slices of a crop, `R` region (of `REGIONS`; or WT alone), `S` slice of the source file.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brats.labels import TISSUES, Labels

N_LEVELS = 256  # a probability p has level round(255 p)
N_LABELS = 1 + len(TISSUES)

Levels = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class LevelCounts:
    """Numbers of voxels in the crop of a case, for each of its regions.

    by_labels: (R, 2, 4, 4, 256), by whether it is brain, label in the reference, predicted label, level
    by_slice:  (R, S, 256), by slice and level
    """

    by_labels: Counts
    by_slice: Counts


@dataclass(frozen=True, kw_only=True)
class SegmentedCase:
    """A case as a model segments it.

    labels:  (Z, H, W)
    regions: that the model tells apart, names of `brats.labels.REGIONS`
    counts:  voxels by level of probability
    levels:  (Z, R, H, W); None unless asked for
    """

    labels: Labels
    regions: tuple[str, ...]
    counts: LevelCounts
    levels: Levels | None = None
