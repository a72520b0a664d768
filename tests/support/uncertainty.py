"""Voxels of a region by level of probability, for what is computed from such counts."""

import numpy as np

from brats.data.segmented_case import N_LEVELS
from brats.score.uncertainty import Uncertainty


def constant_uncertainty(n_slices: int = 3, level: int = 100) -> Uncertainty:
    """Ten true positives in every slice, all of the same probability."""
    levels, by_slice = np.zeros((2, 2, 2, N_LEVELS), np.int64), np.zeros((n_slices, N_LEVELS), np.int64)
    levels[1, 1, 1, level] = 10 * n_slices
    by_slice[:, level] = 10
    return Uncertainty(levels=levels, by_slice=by_slice, is_scored=True)
