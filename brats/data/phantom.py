"""Synthetic cases in BraTS 2020 layout: real anatomy from a template, a tumour grown in it, four MRI contrasts.

Axes: X Y Z voxels of 1 mm in LPS order, as BraTS stores them.
"""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
import numpy.typing as npt
from isal import igzip
from scipy import ndimage

from brats import storage
from brats.data.phantom_anatomy import GRID, Brain, Field, deform, draw_pose, load_template, smooth_field
from brats.data.phantom_tumour import Kind, Tumour, grow_tumour, plan_tumour
from brats.labels import ED, ET, NCR, Labels, encode_labels

KINDS: tuple[Kind, ...] = ("usual", "no ET", "usual", "multifocal", "usual", "tiny", "no ET", "usual", "multifocal", "usual")

# Signal relative to normal white matter: cerebrospinal fluid, grey and white matter, NCR, ED, ET
SIGNAL = {
    "flair": (0.32, 1.16, 0.94, 1.30, 1.70, 1.60),
    "t1": (0.40, 0.80, 1.08, 0.68, 0.84, 0.85),
    "t1ce": (0.42, 0.82, 1.05, 0.62, 0.80, 1.65),
    "t2": (2.10, 1.12, 0.84, 1.95, 1.70, 1.60),
}
DETAIL = {"flair": -0.4, "t1": 1.0, "t1ce": 1.0, "t2": -0.8}


@dataclass(frozen=True, kw_only=True)
class Phantom:
    images: dict[str, npt.NDArray[np.int16]]
    labels: Labels
    grade: str


def make_phantom(index: int, seed: int) -> Phantom:
    rng = np.random.default_rng([seed, index])
    kind = KINDS[(index + seed) % len(KINDS)]
    pose = draw_pose(rng)
    plan = plan_tumour(rng, kind, pose.to_phantom(load_template().white_sites))
    brain = deform(rng, pose, (plan.foci[0], plan.radius_mm))
    tumour = grow_tumour(rng, plan, brain)
    healthy = _healthy_extras(rng, brain)
    images = {}
    for m in SIGNAL:
        image = np.zeros(GRID, np.int16)
        image[brain.box] = _image(rng, m, brain, tumour, healthy)
        images[m] = image
    labels = np.zeros(GRID, np.uint8)
    labels[brain.box] = tumour.labels
    return Phantom(images=images, labels=labels, grade="LGG" if kind == "no ET" else "HGG")


def _healthy_extras(rng, brain):
    shape = brain.inside.shape
    near = ndimage.gaussian_filter(brain.ventricles, 3.0)
    gliosis = brain.wm * (1 - np.exp(-6 * near)) * (0.6 + 0.6 * smooth_field(rng, shape, 12)).clip(0, 1.6)
    a, b = smooth_field(rng, shape, 9), smooth_field(rng, shape, 9)
    vessels = np.exp(-(a * a + b * b) / 0.012) * (0.15 + brain.csf)
    plexus = brain.ventricles * (smooth_field(rng, shape, 5) - 0.5).clip(0, 1)
    surface = ndimage.gaussian_filter(brain.inside.astype(np.float32), 2.0)
    meninges = (1 - ((surface - 0.45) / 0.25)).clip(0, 1) * (smooth_field(rng, shape, 22) - 0.3).clip(0, 1.5)
    return gliosis, vessels, plexus, meninges

EXTRA = {"flair": (0.55, 0.0, 0.7, 0.9), "t1": (-0.12, 0, 0.3, 0.1), "t1ce": (-0.1, 1.6, 1.2, 0.9), "t2": (0.35, -0.6, -0.8, 0.3)}

def _image(rng, m, brain: Brain, tumour: Tumour, healthy):
    shape = brain.inside.shape
    csf, gm, wm, ncr, ed, et = np.array(SIGNAL[m]) * np.exp(rng.normal(0, 0.04, 6))
    if m == "flair": ncr = rng.uniform(0.75, 1.6)
    signal = csf * brain.csf + gm * brain.gm + wm * brain.wm + DETAIL[m] * brain.detail
    for k, e in zip(EXTRA[m], healthy): 
        if k: signal += k * e
    signal = signal.astype(np.float32)
    mottle = 1 + 0.08 * smooth_field(rng, shape, 4)
    soft = 0.8
    for label, level in ((ED, ed), (NCR, ncr), (ET, et)):
        mask = (tumour.labels == label).astype(np.float32)
        if label == ED: mask *= 0.6 + 0.4 * tumour.strength
        w = ndimage.gaussian_filter(mask, 1.2 if label == ED else 0.7)
        signal += w * (level * mottle - signal)
    signal *= np.exp(0.11 * smooth_field(rng, shape, 80)) * (1 + 0.02 * smooth_field(rng, shape, 2.5))
    signal = ndimage.gaussian_filter(signal, [0.5, 0.5, rng.uniform(0.4, 0.9)], truncate=2.5)
    noise = np.float32(rng.uniform(0.015, 0.04)) * rng.standard_normal((2, *shape), dtype=np.float32)
    signal = np.hypot(signal + noise[0], noise[1])
    gain = np.exp(rng.normal(6.5, 0.6))
    return np.where(brain.inside, (gain * signal).clip(1, 32767), 0).astype(np.int16)
