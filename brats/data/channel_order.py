"""The order of the channels of a case, held against its tumour: oedema is bright in FLAIR, the rim in T1ce.

Axes: `C` channel, `N` voxel.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from brats.labels import ED, ET, Labels

MIN_VOXELS = 100  # of ED and of ET each: fewer tell nothing

Array = npt.NDArray[Any]


def channel_warnings(name: str, images: Array, labels: Labels, channels: Sequence[str]) -> list[str]:
    """The warning of a case whose tumour looks as if its channels came in another order; [] where it does not.

    name:     what messages call its files
    images:   (C, ...) with a background of one value, which the first voxel of each channel has
    channels: the modality of each, as stated
    """
    likely = likely_order(images, labels)
    if likely is None or tuple(channels) == likely:
        return []
    stated, found = " ".join(channels), " ".join(likely)
    return [
        f"{name}: by its tumour its channels look like {found}, but are taken for {stated}; where most cases "
        f"say so, add --hdf5-channels {found}"
    ]


def likely_order(images: Array, labels: Labels) -> tuple[str, ...] | None:
    """The modality that each of four channels looks like; None where the tumour is too small to tell.

    What is bright in ET and not yet in ED is T1ce. Of the others, ED stands out from the healthy brain most in
    FLAIR, and least in T1, where it is dark. Of ten real cases with ET nine are told so, and in the tenth FLAIR and
    T2 are taken for each other.
    """
    if min(np.count_nonzero(labels == label) for label in (ED, ET)) < MIN_VOXELS:
        return None
    values = [_contrasts(image, labels) for image in images]
    t1ce = max(range(len(values)), key=lambda channel: values[channel][1] - values[channel][0])
    others = sorted(
        (channel for channel in range(len(values)) if channel != t1ce), key=lambda each: values[each][0]
    )
    found = {t1ce: "t1ce", **dict(zip(others, ("t1", "t2", "flair"), strict=True))}
    return tuple(found[channel] for channel in range(len(values)))


def _contrasts(image: Array, labels: Labels) -> tuple[float, float]:
    """How much brighter ED is than the healthy brain, and ET than ED, in standard deviations of the former."""
    healthy = image[(labels == 0) & (image != image.flat[0])]
    spread = float(healthy.std()) if healthy.size else 0.0
    oedema, rim = float(image[labels == ED].mean()), float(image[labels == ET].mean())
    return ((oedema - float(healthy.mean())) / spread, (rim - oedema) / spread) if spread else (0.0, 0.0)
