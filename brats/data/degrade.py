"""Degraded copies of a case: noise, bias field, gain, blur, low resolution or a missing modality, in two strengths.

Each is a pure function of the case and its id: the same voxels each time, on any machine, and in both strengths the
same pattern. Strengths are relative to the standard deviation of each modality over its own brain. Background stays
background, and brain stays brain. But for `gain` and `missing`, mean and deviation are measured anew, as `prepare`
would of such files.

Axes: `Z H W` slices of a crop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import xxhash
from scipy import ndimage

from brats.config import DegradationKind
from brats.data.case import Case, Intensity
from brats.errors import CaseError

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

STRENGTHS: dict[DegradationKind, tuple[float, float]] = {
    "noise": (0.2, 0.6),  # standard deviation; the strongest of training is 0.3 ("full" augmentation)
    "bias-field": (0.1, 0.25),  # standard deviation over the brain, of the logarithm of the factor
    "gain": (1.1, 1.3),  # factor of a modality, or by which it is divided
    "blur": (1.0, 2.0),  # sigma in mm
    "low-resolution": (2.0, 4.0),  # edge of a voxel in mm
}
LEVELS = ("mild", "strong")
N_FIELD_WAVES = 3  # half waves along an edge, fewer than this
FARTHEST = 1000  # standard deviations between the mean of the brain and a background that is a signal
INSIDE = 1.01  # of the tolerance around the background: as far from it as a voxel of the brain lies at least


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """One degradation.

    strength: see `STRENGTHS`; 0 for `missing`
    modality: that is missing; "" for the others, which change all of them
    """

    name: str
    kind: DegradationKind
    strength: float = 0.0
    modality: str = ""


def degradations(kinds: Sequence[DegradationKind], modalities: Sequence[str]) -> list[Degradation]:
    """The degradations of these kinds: each in its strengths, or of each of the modalities."""
    found = []
    for kind in kinds:
        if kind == "missing":
            found += [Degradation(name=f"missing-{name}", kind=kind, modality=name) for name in modalities]
        else:
            levels = zip(LEVELS, STRENGTHS[kind], strict=True)
            found += [Degradation(name=f"{kind}-{level}", kind=kind, strength=value) for level, value in levels]
    return found


def degrade(case: Case, degradation: Degradation) -> Case:
    """A copy of a case with its images degraded; labels, geometry and sources are those of the case."""
    if degradation.kind == "missing":
        return _without(case, degradation.modality)
    images, intensities = dict(case.images), dict(case.intensities)
    for name in case.images:
        scan = Scan.of(case, name, degradation.kind)
        images[name] = _raw(CHANGES[degradation.kind](scan, degradation.strength), scan, case.intensities[name])
        intensities[name] = replace(case.intensities[name], dtype=images[name].dtype.str)
        if degradation.kind != "gain":
            intensities[name] = _measured(images[name][scan.brain], intensities[name])
    return replace(case, images=images, intensities=intensities)


def _without(case: Case, modality: str) -> Case:
    """A case whose image of a modality is background everywhere, so that the network sees 0."""
    image = case.images[modality]
    empty = np.full_like(image, case.intensities[modality].background)
    return replace(case, images={**case.images, modality: empty})


@dataclass(frozen=True, kw_only=True)
class Scan:
    """An image to degrade.

    values: raw values above `floor` (Z, H, W), 0 outside the brain
    floor:  raw value of no signal: the background, unless that is a number far from all others that marks it
    std:    standard deviation of the raw values over the brain
    """

    values: Floats
    floor: float
    brain: Mask
    std: float
    spacing_zhw_mm: tuple[float, float, float]
    random: np.random.Generator

    @classmethod
    def of(cls, case: Case, modality: str, kind: DegradationKind) -> Self:
        """An image of a case, and the random numbers to degrade it with."""
        image, intensity = case.images[modality], case.intensities[modality]
        brain = intensity.is_brain(image)
        mean, std = (float(number) for number in intensity.raw_offset_scale())
        is_mark = abs(intensity.background - mean) > FARTHEST * abs(std)
        floor = float(image[brain].min()) if is_mark else intensity.background
        values = np.zeros(image.shape, np.float32)
        values[brain] = image[brain] - np.float32(floor)
        seed = xxhash.xxh3_64_intdigest(f"{case.case_id} {kind} {modality}".encode())
        return cls(
            values=values,
            floor=floor,
            brain=brain,
            std=abs(std),
            spacing_zhw_mm=case.spacing_zhw_mm,
            random=np.random.default_rng(seed),
        )


def add_noise(scan: Scan, strength: float) -> Floats:
    """Noise of this standard deviation: Rician where no value is below the background, as in magnitudes, or normal.

    (Gudbjartsson and Patz, "The Rician distribution of noisy MRI data", 1995.)
    """
    deviation = np.float32(strength * scan.std)
    real: Floats = scan.values + deviation * scan.random.standard_normal(scan.values.shape, np.float32)
    if scan.values.min() < 0:
        return real
    imaginary = deviation * scan.random.standard_normal(scan.values.shape, np.float32)
    magnitude: Floats = np.hypot(real, imaginary)
    return magnitude


def add_bias_field(scan: Scan, strength: float) -> Floats:
    """Values times a smooth factor, whose logarithm has mean 0 and this standard deviation over the brain."""
    waves = scan.random.standard_normal([min(N_FIELD_WAVES, size) for size in scan.values.shape])
    waves[0, 0, 0] = 0  # a constant factor
    field = waves
    for size in scan.values.shape:  # each turn transforms the first axis and moves it behind the others
        field = np.tensordot(field, _cosines(field.shape[0], size), (0, 1))
    inside = field[scan.brain]
    factor = np.exp(strength * (field - inside.mean()) / max(float(inside.std()), 1e-12))
    biased: Floats = scan.values * factor.astype(np.float32)
    return biased


def _cosines(n_waves: int, size: int) -> npt.NDArray[np.float64]:
    """None to `n_waves - 1` half waves along an edge, (size, n_waves)."""
    phases = (np.arange(size) + 0.5) * np.pi / size
    return np.cos(phases[:, None] * np.arange(n_waves))


def change_gain(scan: Scan, strength: float) -> Floats:
    """Values times this factor, or divided by it: for each modality of a case one of the two."""
    return scan.values * np.float32(strength if scan.random.integers(2) else 1 / strength)


def blur(scan: Scan, strength: float) -> Floats:
    """A Gaussian of this sigma in mm, over the brain alone: each voxel is a mean of brain around it."""
    sigma = [strength / edge for edge in scan.spacing_zhw_mm]
    weights = ndimage.gaussian_filter(scan.brain.astype(np.float32), sigma, mode="constant")
    values = ndimage.gaussian_filter(scan.values, sigma, mode="constant")
    return _ratio(values, weights)


def lower_resolution(scan: Scan, strength: float) -> Floats:
    """What voxels of this edge in mm show, interpolated: each is the mean of the brain in it.

    Along an axis whose voxels are that large already, nothing changes.
    """
    shape = scan.values.shape
    factors = [
        min(size, max(1, round(strength / edge))) for size, edge in zip(shape, scan.spacing_zhw_mm, strict=True)
    ]
    weights = _coarse(scan.brain.astype(np.float32), factors)
    values = _coarse(scan.values, factors)
    return _ratio(values, weights)


def _ratio(values: Floats, weights: Floats) -> Floats:
    """Means of the brain, from means in which all else counts 0 and from the share of brain in them."""
    return np.divide(values, weights, out=np.zeros_like(values), where=weights > 0)


def _coarse(volume: Floats, factors: Sequence[int]) -> Floats:
    """Means over blocks of so many voxels, as a volume of the same size; linear between the centres of blocks."""
    padding = [(0, -size % factor) for size, factor in zip(volume.shape, factors, strict=True)]
    padded = np.pad(volume, padding)
    blocks = [n for size, factor in zip(padded.shape, factors, strict=True) for n in (size // factor, factor)]
    means = padded.reshape(blocks).mean(axis=(1, 3, 5))
    fine: Floats = ndimage.zoom(means, factors, order=1, mode="nearest", grid_mode=True)
    return fine[tuple(slice(size) for size in volume.shape)]


CHANGES: dict[DegradationKind, Callable[[Scan, float], Floats]] = {
    "noise": add_noise,
    "bias-field": add_bias_field,
    "gain": change_gain,
    "blur": blur,
    "low-resolution": lower_resolution,
}


def _raw(values: Floats, scan: Scan, intensity: Intensity) -> Floats:
    """Raw values (Z, H, W) for values above the floor: in the brain no nearer to the background than brain is."""
    raw = values + np.float32(scan.floor)
    background, nearest = np.float32(intensity.background), np.float32(INSIDE * intensity.tolerance)
    distance = raw - background
    raw = np.where(np.abs(distance) < nearest, background + np.copysign(nearest, distance), raw)
    return np.where(scan.brain, raw, background)


def _measured(brain: Floats, intensity: Intensity) -> Intensity:
    """The intensity of an image with these raw values in its brain. Raises CaseError where all are equal."""
    mean, std = float(brain.mean(dtype=np.float64)), float(brain.std(dtype=np.float64))
    if not std:
        raise CaseError("", "degraded, an image has no contrast left; its brain is too small")
    return replace(intensity, mean=mean * intensity.slope + intensity.inter, std=std * abs(intensity.slope))
