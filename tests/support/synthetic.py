"""Tiny BraTS cases on disk: an ellipsoid brain with a tumour of three nested balls, in a few kilobytes."""

import gzip
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brats.config import MODALITIES
from brats.data.codings import CODINGS
from brats.labels import ED, ET, NCR, Labels

AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1.0, 0, 239], [0, 0, 1.0, 0], [0, 0, 0, 1]])  # as BraTS stores it
SUFFIXES_2023 = {"flair": "-t2f", "t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "seg": "-seg"}
TISSUE_VALUES = {"flair": (300, 500, 250), "t1": (300, 200, 250), "t1ce": (300, 250, 600), "t2": (300, 450, 300)}


def write_case(
    root: str,
    case_id: str,
    *,
    seed: int = 0,
    shape: tuple[int, int, int] = (40, 36, 16),
    modalities: Sequence[str] = MODALITIES,
    labelled: bool = True,
    with_et: bool = True,
    radius: float = 6,
    edition: int = 2020,
) -> str:
    """Write one case into its own folder and return that folder."""
    images, labels = make_images(seed, shape=shape, modalities=modalities, with_et=with_et, radius=radius)
    folder = os.path.join(root, case_id)
    os.makedirs(folder, exist_ok=True)
    for modality, image in images.items():
        save(image, file_path(folder, case_id, modality, edition))
    if labelled:
        codes = CODINGS["brats2018" if edition < 2023 else "brats2023"].encode(labels)
        save(codes, file_path(folder, case_id, "seg", edition))
    return folder


def make_images(
    seed: int,
    *,
    shape: tuple[int, int, int] = (40, 36, 16),
    modalities: Sequence[str] = MODALITIES,
    with_et: bool = True,
    radius: float = 6,
) -> tuple[dict[str, npt.NDArray[np.int16]], Labels]:
    """The images of a case by modality, and its labels, in the axes of its files."""
    random = np.random.default_rng(seed)
    labels = make_labels(random, shape, radius=radius, with_et=with_et)
    brain = _ball(shape, [size / 2 for size in shape], [size * 0.45 for size in shape])
    images = {}
    for modality in modalities:
        image = np.zeros(shape, np.int16)
        healthy, oedema, core = TISSUE_VALUES[modality]
        values = np.choose(labels, (healthy, core - 100, oedema, core))
        image[brain] = (values + random.normal(0, 20, shape))[brain].clip(1)
        images[modality] = image
    return images, labels


def write_cases(root: str | Path, n_cases: int, *, no_et_every: int = 0, **options: Any) -> list[str]:
    """Write `case_00`, `case_01` and so on, each from its own seed; return their ids.

    no_et_every: every so many cases have no enhancing tumour, 0 for all with one
    options:     as of `write_case`
    """
    names = [f"case_{number:02d}" for number in range(n_cases)]
    for number, name in enumerate(names):
        write_case(str(root), name, seed=number, with_et=not no_et_every or number % no_et_every > 0, **options)
    return names


def make_labels(
    random: np.random.Generator, shape: tuple[int, int, int], *, radius: float = 6, with_et: bool = True
) -> Labels:
    """A tumour near the middle: ED around ET around NCR."""
    centre = [size / 2 + random.uniform(-3, 3) for size in shape]
    labels = np.zeros(shape, np.uint8)
    labels[_ball(shape, centre, [radius] * 3)] = ED
    labels[_ball(shape, centre, [radius * 0.7] * 3)] = ET if with_et else NCR
    labels[_ball(shape, centre, [radius * 0.4] * 3)] = NCR
    return labels


def file_path(folder: str, case_id: str, kind: str, edition: int = 2020) -> str:
    suffix = f"_{kind}" if edition < 2023 else SUFFIXES_2023[kind]
    return os.path.join(folder, f"{case_id}{suffix}.nii.gz")


def uncompress(folder: str) -> None:
    """Turn the files of a case into .nii, as Kaggle has BraTS 2020: their size does not depend on the voxels."""
    for path in Path(folder).glob("*.nii.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


def save(array: npt.NDArray[Any], path: str, affine: npt.NDArray[Any] = AFFINE) -> None:
    nib.save(nib.Nifti1Image(array, affine), path)


def _ball(shape: Sequence[int], centre: Sequence[float], radii: Sequence[float]) -> npt.NDArray[np.bool_]:
    axes = np.ogrid[tuple(slice(size) for size in shape)]
    inside = sum(((axis - middle) / radius) ** 2 for axis, middle, radius in zip(axes, centre, radii, strict=True))
    return np.asarray(inside <= 1)
