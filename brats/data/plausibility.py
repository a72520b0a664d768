"""Plausibility warnings of a case, each with its file and the figure that is implausible.

Nothing is refused for them. They are judged by slices of the crop spread evenly over it, in a hundredth of the time
that reading the case takes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations, islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from brats.data.background import Background, reach_of
from brats.data.case import Array, Case, Intensity
from brats.data.cases import CaseFiles

Mask = npt.NDArray[np.bool_]

N_SLICES = 32  # that are looked at, at least
SHOWN = 20  # warnings on the console

MAX_BRAIN_SHARE = 0.7  # of the volume; an ellipsoid fills 52 % of the box around it
MAX_BRAIN_ML = 2500  # brains with their fluid take 1.0 to 2.0 litres, heads 3.5 and more
MIN_OVERLAP = 0.7  # Dice of the brains of two modalities: 0.98 to 1 in BraTS, 0.5 for a brain and a head
MAX_NEGATIVE_SHARE = 0.1  # of the brain: 6 % by the ringing of cubic splines at its surface, z-scores 40 to 60 %
MAX_EQUAL_SHARE = 0.2  # of the brain, that has one and the same value
FAINT = 0.02  # of the reach of an image: what lies no farther from the background is faint
MAX_FAINT_SHARE = 0.1  # of the brain: at most 2 % in most BraTS images, 7 % in one; 11 % and more by ringing
MAX_STRAY_SHARE = 0.1  # of the tumour; a few stray voxels are common
MAX_TUMOUR_SHARE = 0.5  # of the brain: 2 to 16 % in 12 real cases, all of it by a segmentation of tissues


class Warned(NamedTuple):
    """One warning of a case."""

    case_id: str
    text: str


def warning_lines(warnings: Sequence[Warned], where: str) -> list[str]:
    """Warnings for the console, the first `SHOWN` of them.

    where: the others are found
    """
    lines = [f"  warning {case_id}: {text}" for case_id, text in warnings[:SHOWN]]
    n_others = len(warnings) - SHOWN
    return [*lines, f"  and {n_others} more warnings, see {where}"] if n_others > 0 else lines


def find_warnings(case: Case, files: CaseFiles) -> tuple[str, ...]:
    """What is implausible about a case, a line for each; none for a usual one."""
    step = max(1, case.box.shape[2] // N_SLICES)
    brains = {name: case.intensities[name].is_brain(image[::step]) for name, image in case.images.items()}
    n_voxels = {name: int(np.count_nonzero(brain)) for name, brain in brains.items()}
    warnings = []
    for name, image in case.images.items():
        own = [
            *_size(n_voxels[name] / brains[name].size, case),
            *_values(image[::step], n_voxels[name], case.intensities[name]),
        ]
        warnings += [f"{files.image_name(name)}: {text}" for text in own]
    warnings += [f"{files.image_name(name)}: {text}" for name, text in _overlap(brains, n_voxels)]
    if case.labels is not None and files.segmentation is not None:
        tumour = _tumour(case.labels[::step], list(brains.values()), max(n_voxels.values()))
        warnings += [f"{files.segmentation.name}: {text}" for text in tumour]
    return tuple(warnings)


def _size(share_of_crop: float, case: Case) -> Iterator[str]:
    n_voxels = share_of_crop * math.prod(case.box.shape)
    share = n_voxels / math.prod(case.grid.shape)
    volume_ml = n_voxels * math.prod(case.grid.spacing_xyz_mm) / 1000
    if share > MAX_BRAIN_SHARE:
        yield f"{share:.0%} of the volume is brain, more than {MAX_BRAIN_SHARE:.0%}; is what surrounds it removed?"
    if volume_ml > MAX_BRAIN_ML:
        yield f"its brain takes {volume_ml:.0f} ml, more than {MAX_BRAIN_ML}; is the skull removed?"


def _values(image: Array, n_brain: int, intensity: Intensity) -> list[str]:
    """What tells that much of the brain is none: the first reason alone, as one often brings the others along."""
    sample = image[:, ::3, ::3]
    brain = sample[intensity.is_brain(sample)]
    if not brain.size:
        return []
    checks = (_equal(image, brain, n_brain, intensity), _sign(image, n_brain, intensity))
    return list(islice(chain(*checks, _faint(image, brain, n_brain, intensity)), 1))


def _equal(image: Array, sample: Array, n_brain: int, intensity: Intensity) -> Iterator[str]:
    """A second value of background, such as the air of an image that was padded with another value."""
    values, counts = np.unique(sample, return_counts=True)
    raw = values[counts.argmax()]
    share = np.count_nonzero(image == raw) / n_brain
    if share > MAX_EQUAL_SHARE:
        value, level = _value(float(raw), intensity), _value(intensity.background, intensity)
        yield (
            f"{share:.0%} of its brain voxels have the one value {value:g}, over a background of {level:g}; if "
            f"they surround the brain, set them to {level:g}"
        )


def _sign(image: Array, n_brain: int, intensity: Intensity) -> Iterator[str]:
    """Of an image that was normalised in the brain alone, brain voxels near 0 count as background."""
    if not intensity.background_is_zero:
        return
    low, high = Background(intensity.background, intensity.tolerance).limits(image.dtype)
    share = np.count_nonzero(image < low if intensity.slope > 0 else image > high) / n_brain
    if share > MAX_NEGATIVE_SHARE:
        yield (
            f"{share:.0%} of its brain voxels are negative, over a background of 0: normalised values, or noise or "
            "ringing around the brain; give images that are not normalised yet, with 0 around the brain"
        )


def _faint(image: Array, sample: Array, n_brain: int, intensity: Intensity) -> Iterator[str]:
    """Noise and ringing that the corners of the volume do not show."""
    tolerance = FAINT * reach_of(sample, intensity.background)
    share = 1 - np.count_nonzero(Background(intensity.background, tolerance).is_brain(image)) / n_brain
    if share > MAX_FAINT_SHARE:
        level = _value(intensity.background, intensity)
        yield (
            f"{share:.0%} of its brain voxels are nearly background, less than {FAINT:.0%} of the brightest away "
            f"from {level:g}; if noise or ringing surrounds the brain, set what surrounds it to {level:g}"
        )


def _value(raw: float, intensity: Intensity) -> float:
    return intensity.slope * raw + intensity.inter + 0.0  # not -0.0


def _overlap(brains: Mapping[str, Mask], n_voxels: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """The modalities whose brain lies elsewhere than most of the others."""
    of_pairs = {
        (one, other): 2 * np.count_nonzero(brains[one] & brains[other]) / max(1, n_voxels[one] + n_voxels[other])
        for one, other in combinations(brains, 2)
    }
    for name in brains:
        with_others = sorted(value for pair, value in of_pairs.items() if name in pair)
        if with_others and (overlap := with_others[len(with_others) // 2]) < MIN_OVERLAP:
            yield (
                name,
                f"the Dice of its brain with that of other modalities is {overlap:.2f}, less than {MIN_OVERLAP}; "
                "are they of one patient, registered, and without the skull?",
            )


def _tumour(labels: Array, brains: Sequence[Mask], n_brain: int) -> Iterator[str]:
    stray = labels > 0
    n_tumour = np.count_nonzero(stray)
    of_brain = n_tumour / max(1, n_brain)
    if of_brain > MAX_TUMOUR_SHARE:
        yield f"its tumour fills {of_brain:.0%} of the brain, over {MAX_TUMOUR_SHARE:.0%}; are its labels tissues?"
    for brain in brains:
        np.greater(stray, brain, out=stray)
    share = np.count_nonzero(stray) / n_tumour if n_tumour else 0
    if share > MAX_STRAY_SHARE:
        yield f"{share:.0%} of its tumour lies outside the brain, more than {MAX_STRAY_SHARE:.0%}"
