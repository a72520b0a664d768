"""The draws of augmentation: how often and how strongly each slice is transformed, one row of numbers per slice.

A pure function of the seed, the epoch, the slice and how often the slice came before in that epoch: a slice is
augmented alike in any batch, on any rank, before and after a resume. Every number has a key of its own, so that
another parameter, or another modality, changes no draw of the others.

Axes: `B` slices of a batch, `C` modality.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from brats.config import Augmentation

Keys = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.float64]

N_POSITIONS = 2**14  # where in the table of noise a slice or an image begins to read


@dataclass(frozen=True)
class Range:
    """How a parameter is drawn: with a probability evenly from low to high, else neutral, which changes nothing.

    log: evenly in the logarithm, for factors
    """

    probability: float
    low: float
    high: float
    neutral: float = 0.0
    log: bool = False

    def draw(self, keys: Keys, name: str) -> Numbers:
        """One value per key, by the name of the parameter."""
        applied = _uniform(keys, f"{name} applied") < self.probability
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        values = low + (high - low) * _uniform(keys, name)
        return np.where(applied, np.exp(values) if self.log else values, self.neutral)


FLIPS = {"flip_h": Range(0.5, 1, 1), "flip_w": Range(0.5, 1, 1)}

# nnU-Net v2 turns one slice in five and scales one in five (0.7 to 1.4). 2-D networks trained on few BraTS cases
# gained from somewhat more of somewhat less. They did not from elastic warps, which nnU-Net leaves out too but for
# its trainer DA5 (one slice in five): hence seldom.
AFFINE = {
    **FLIPS,
    "angle": Range(0.3, -math.pi / 6, math.pi / 6),  # nnU-Net: 30 degrees in 3-D
    "scale": Range(0.3, 0.75, 1.3, neutral=1, log=True),
    "shift_h": Range(0.3, -5, 5),  # pixels, as is the next
    "shift_w": Range(0.3, -5, 5),
}
ELASTIC = {
    "elastic": Range(0.1, 1, 3),  # standard deviation of the displacement in pixels
    "elastic_at": Range(1, 0, N_POSITIONS),
}

# Of each modality. Beside each, how others draw it for a whole slice: nnU-Net v2 (default trainer, or DA5), NVIDIA
# (nnU-Net for PyTorch, the DALI pipeline). Intensities have a standard deviation of 1.
INTENSITY = {
    "gain": Range(0.3, 0.7, 1.3, neutral=1),  # nnU-Net 0.15: 0.75 to 1.25; NVIDIA 0.15: 0.7 to 1.3
    "shift": Range(0.3, -0.3, 0.3),  # nnU-Net DA5 0.1: normal with 0.5
    "gamma": Range(0.3, 0.6, 1.5, neutral=1, log=True),  # nnU-Net 0.3: 0.7 to 1.5
    "field": Range(0.3, 0.1, 0.3),  # standard deviation; TorchIO: a cubic with coefficients up to 0.5
    "field_at": Range(1, 0, N_POSITIONS),
    "blur": Range(0.15, 0.4, 1),  # share of the mean of 3 x 3 pixels, so that sigma is 0.5 to 0.8 pixels;
    # nnU-Net 0.2, each second modality: sigma 0.5 to 1; NVIDIA 0.15: 0.5 to 1.5
    "low_resolution": Range(0.1, 1, 1),  # share of half the resolution;
    # nnU-Net 0.25, each second modality: half or better
    "noise": Range(0.2, 0, 0.3),  # standard deviation; nnU-Net 0.1: to 0.32; NVIDIA 0.15: to 0.33
    "noise_at": Range(1, 0, N_POSITIONS),
}

MATRIX = ("h_from_h", "h_from_w", "h_from_1", "w_from_h", "w_from_w", "w_from_1")
SLICE_COLUMNS = (*MATRIX, *ELASTIC)
IMAGE_COLUMNS = tuple(INTENSITY)


def draw(
    slices: Sequence[tuple[str, int]],
    *,
    seed: int,
    epoch: int,
    n_channels: int,
    kind: Augmentation,
    modality_dropout: float = 0.0,
    occurrences: Sequence[int] | None = None,
) -> npt.NDArray[np.float32]:
    """The parameters of each slice (case id, row), (B, P), for `brats.model.augment.augment`.

    "none": no column; "flips": those of FLIPS; "full": SLICE_COLUMNS, then IMAGE_COLUMNS for each channel, which
    is a modality: neighbours of a slice share them, being parts of one image. With a modality dropout above 0 there
    follow, for `brats.model.augment.drop_modalities`, 1 or 0 for each channel.
    occurrences: how often each slice came before in the epoch; by default, in this list
    """
    keys = _slice_keys(slices, seed, epoch, _occurrences(slices) if occurrences is None else occurrences)
    columns: list[Numbers] = []
    if kind == "flips":
        columns = list(_draw_all(FLIPS, keys).values())
    elif kind == "full":
        columns = [*_matrix(_draw_all(AFFINE, keys)), *_draw_all(ELASTIC, keys).values()]
        for channel in range(n_channels):
            columns += _draw_all(INTENSITY, keys, f"{channel} ").values()
    if modality_dropout:
        columns += _kept(keys, n_channels, modality_dropout)
    return np.array(columns, np.float32).reshape(len(columns), len(slices)).T.copy()


def _draw_all(ranges: dict[str, Range], keys: Keys, prefix: str = "") -> dict[str, Numbers]:
    return {name: values.draw(keys, prefix + name) for name, values in ranges.items()}


def _kept(keys: Keys, n_channels: int, dropout: float) -> list[Numbers]:
    """For each channel 1 where it is kept, else 0. Of a slice that would lose all, the nearest to being kept is."""
    drawn = np.array([_uniform(keys, f"{channel} kept") for channel in range(n_channels)])
    kept = (drawn >= dropout) | (drawn == drawn.max(axis=0))
    return list(kept.astype(np.float64))


def _matrix(drawn: dict[str, Numbers]) -> list[Numbers]:
    """MATRIX: from where in the slice, in pixels from its centre, each pixel of the augmented slice is taken."""
    cos, sin = np.cos(drawn["angle"]) / drawn["scale"], np.sin(drawn["angle"]) / drawn["scale"]
    turn_h, turn_w = 1 - 2 * drawn["flip_h"], 1 - 2 * drawn["flip_w"]
    return [
        turn_h * cos, turn_h * -sin, turn_h * drawn["shift_h"],
        turn_w * sin, turn_w * cos, turn_w * drawn["shift_w"],
    ]  # fmt: skip


def _occurrences(slices: Sequence[tuple[str, int]]) -> list[int]:
    """How often each slice stands in the list before itself."""
    seen: Counter[tuple[str, int]] = Counter()
    counts = []
    for entry in slices:
        counts.append(seen[entry])
        seen[entry] += 1
    return counts


def _slice_keys(slices: Sequence[tuple[str, int]], seed: int, epoch: int, occurrences: Sequence[int]) -> Keys:
    """64 bits of each slice of an epoch, from which all of its draws are made."""
    hashes = {case_id: _hash(f"{seed} {epoch} {case_id}") for case_id in {case_id for case_id, _ in slices}}
    keys = np.array([hashes[case_id] for case_id, _ in slices], np.uint64)
    for numbers in ([row for _, row in slices], occurrences):
        keys = _mixed(keys + np.array(numbers, np.uint64))
    return keys


def _uniform(keys: Keys, name: str) -> Numbers:
    """One number of [0, 1) per key, by name."""
    return (_mixed(keys ^ np.uint64(_hash(name))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())


def _mixed(keys: Keys) -> Keys:
    """The next number of SplitMix64 (Steele, Lea, Flood 2014) from each state."""
    keys = keys + np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
