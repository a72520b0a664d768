"""Synthetic BraTS cases: a real anatomy with a tumour grown in it, in four MRI contrasts.

Everything is a pure function of (seed, index), so that cases can be made in any order and in parallel. `index`
counts from 1, as the names of BraTS cases do.

Axes: X Y Z voxels of 1 mm in LPS order, as BraTS stores them.
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import nibabel as nib
import numpy as np
import numpy.typing as npt
from isal import igzip
from scipy import ndimage

from brats import storage
from brats.data.codings import BRATS_2018
from brats.data.layouts import BRATS_SHAPE
from brats.data.phantom.anatomy import Brain, Field, draw_pose, load_template, make_brain, smooth_field
from brats.data.phantom.tumour import Kind, Tumour, design_tumour, grow_tumour
from brats.labels import ED, ET, NCR, Labels

Number = TypeVar("Number", np.int16, np.uint8)

AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1, 0, BRATS_SHAPE[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1]])
GZIP_LEVEL = 1  # of 0 to 3

# Any ten cases in a row hold each kind: a fifth without ET, a fifth multifocal, a tenth tiny.
KINDS: tuple[Kind, ...] = (
    "usual",
    "no ET",
    "usual",
    "multifocal",
    "usual",
    "tiny",
    "no ET",
    "usual",
    "multifocal",
    "usual",
)

ODD_NAME_INDEX, ODD_NAME_NUMBER = 3, 355  # the index of the phantom and the number of the case in BraTS 2020
ODD_NAME = "W39_1998.09.19_Segm.nii"

NAME_MAPPING_HEADER = (
    "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,"
    "BraTS_2019_subject_ID,BraTS_2020_subject_ID"
)

# Signal, relative to healthy brain, of what a brain contains (see Brain.contents): fractions of tissue mix, the
# rest is added to them. Levels chosen beside real BraTS cases.
CONTENTS = ("csf", "gm", "wm", "detail", "gliosis", "plexus", "vessels", "meninges")
HEALTHY_SIGNAL = {
    "flair": (0.32, 1.18, 0.92, -0.4, 0.95, 0.8, 0.0, 1.3),
    "t1": (0.40, 0.80, 1.08, 1.0, -0.12, 0.3, 0.0, 0.1),
    "t1ce": (0.42, 0.82, 1.05, 1.0, -0.10, 1.2, 1.6, 0.9),
    "t2": (2.10, 1.12, 0.84, -0.8, 0.35, -0.8, -0.6, 0.3),
}
TUMOUR_SIGNAL = {
    "flair": {ED: 1.68, NCR: 1.45, ET: 1.65},
    "t1": {ED: 0.84, NCR: 0.68, ET: 0.85},
    "t1ce": {ED: 0.80, NCR: 0.62, ET: 1.65},
    "t2": {ED: 1.70, NCR: 1.95, ET: 1.60},
}
HEALTHY_VARIATION = 0.03  # from case to case, standard deviation of the logarithm
TUMOUR_VARIATION = {ED: 0.03, NCR: 0.2, ET: 0.1}
EDGE_MM = {ED: 1.2, NCR: 0.7, ET: 0.7}  # oedema fades out, the core is sharp


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """A synthetic case on the BraTS grid, (240, 240, 155) voxels of 1 mm."""

    images: dict[str, npt.NDArray[np.int16]]
    """By modality; 0 outside the brain, positive inside."""
    labels: Labels
    grade: str
    """HGG, or LGG for a tumour without ET."""


def case_id(index: int) -> str:
    """The name of a case, as in BraTS 2020: its index, but for the case with the odd name."""
    return f"BraTS20_Training_{ODD_NAME_NUMBER if index == ODD_NAME_INDEX else index:03d}"


def phantom_kind(index: int, seed: int) -> Kind:
    """What sort of tumour a case has."""
    return KINDS[(index + seed) % len(KINDS)]


def phantom_grade(index: int, seed: int) -> str:
    """HGG, or LGG for a tumour without ET."""
    return "LGG" if phantom_kind(index, seed) == "no ET" else "HGG"


def make_phantom(index: int, seed: int) -> Phantom:
    """Make one case in memory."""
    rng = np.random.default_rng([seed, index])
    pose = draw_pose(rng)
    design = design_tumour(rng, phantom_kind(index, seed), pose.from_template(load_template().white_sites))
    brain = make_brain(rng, pose, design.foci[0], design.core_radius_mm)
    tumour = grow_tumour(rng, design, brain)
    images = {}
    for modality in HEALTHY_SIGNAL:
        signal = _healthy_signal(rng, modality, brain)
        _add_tumour(rng, modality, tumour, signal)
        images[modality] = _on_grid(_scan(rng, signal, brain), brain)
    return Phantom(images=images, labels=_on_grid(tumour.labels, brain), grade=phantom_grade(index, seed))


def _on_grid(part: npt.NDArray[Number], brain: Brain) -> npt.NDArray[Number]:
    """An array on the brain's box put into the BraTS grid, zero elsewhere."""
    volume = np.zeros(BRATS_SHAPE, part.dtype)
    volume[brain.box] = part
    return volume


def _healthy_signal(rng: np.random.Generator, modality: str, brain: Brain) -> Field:
    signal = np.zeros(brain.inside.shape, np.float32)
    for content, level in zip(CONTENTS, HEALTHY_SIGNAL[modality], strict=True):
        if level:
            signal += level * _variation(rng, HEALTHY_VARIATION) * brain.contents[content]
    return signal


def _variation(rng: np.random.Generator, deviation: float) -> float:
    """A random factor about 1."""
    return math.exp(rng.normal(0, deviation))


def _add_tumour(rng: np.random.Generator, modality: str, tumour: Tumour, signal: Field) -> None:
    """Let tumour take the place of healthy signal, in place: mottled, and mixed in the voxels at its edges."""
    found = ndimage.find_objects((tumour.labels > 0).view(np.uint8))[0]
    box = tuple(slice(max(0, side.start - 5), side.stop + 5) for side in found)
    labels, seen = tumour.labels[box], signal[box]
    mottle = 1 + 0.08 * smooth_field(rng, labels.shape, 4)
    for label, level in TUMOUR_SIGNAL[modality].items():
        weight = (labels == label).astype(np.float32)
        if label == ED:
            weight *= 0.6 + 0.4 * tumour.strength[box]
        weight = ndimage.gaussian_filter(weight, EDGE_MM[label])
        seen += weight * (level * _variation(rng, TUMOUR_VARIATION[label]) * mottle - seen)


def _scan(rng: np.random.Generator, signal: Field, brain: Brain) -> npt.NDArray[np.int16]:
    """What a scanner makes of a signal: bias field, texture, blur, Rician noise and a gain of its own."""
    shape = signal.shape
    signal = signal * np.exp(0.08 * smooth_field(rng, shape, 80)) * (1 + 0.02 * smooth_field(rng, shape, 2.5))
    blur_mm = (0.5, 0.5, rng.uniform(0.4, 0.9))  # slices are thicker than pixels
    seen = ndimage.gaussian_filter(signal, blur_mm, truncate=2.5)[brain.inside]
    real, imaginary = rng.uniform(0.015, 0.04) * rng.standard_normal((2, len(seen)), dtype=np.float32)
    gain = 650 * _variation(rng, 0.6)
    image = np.zeros(shape, np.int16)
    image[brain.inside] = (gain * np.hypot(seen + real, imaginary)).clip(1, np.iinfo(np.int16).max)
    return image


def write_phantom(root: str, index: int, seed: int) -> str:
    """Write one case below root, a local path or s3:// URL, and return its id.

    Files appear whole, the segmentation last. One case, ODD_NAME_INDEX, has its segmentation under the odd name
    that it has in BraTS 2020, and so the id of that case. Raises StorageError.
    """
    phantom = make_phantom(index, seed)
    name = case_id(index)
    for modality, image in phantom.images.items():
        path = storage.join(root, name, f"{name}_{modality}.nii.gz")
        storage.write_bytes(path, igzip.compress(_nifti_bytes(image), GZIP_LEVEL, mtime=0))
    codes = _nifti_bytes(BRATS_2018.encode(phantom.labels))
    if index == ODD_NAME_INDEX:
        storage.write_bytes(storage.join(root, name, ODD_NAME), codes)
    else:
        path = storage.join(root, name, f"{name}_seg.nii.gz")
        storage.write_bytes(path, igzip.compress(codes, GZIP_LEVEL, mtime=0))
    return name


def _nifti_bytes(volume: npt.NDArray[np.generic]) -> bytes:
    image = nib.Nifti1Image(volume, AFFINE)
    image.set_sform(AFFINE, code="scanner")
    image.set_qform(AFFINE, code="scanner")
    image.header.set_xyzt_units("mm")
    content: bytes = image.to_bytes()
    return content


def write_name_mapping(root: str, n_cases: int, seed: int) -> None:
    """Write the name_mapping.csv of BraTS 2020 for cases 1 to n_cases, none of which is in an older edition."""
    lines = [NAME_MAPPING_HEADER]
    lines += [f"{phantom_grade(i, seed)},NA,NA,NA,NA,{case_id(i)}" for i in range(1, n_cases + 1)]
    storage.write_bytes(storage.join(root, "name_mapping.csv"), ("\n".join(lines) + "\n").encode())
