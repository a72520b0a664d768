"""HDF5 files of one slice, as BraTS 2020 lies on Kaggle, in every way that h5py stores them."""

import io
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from tests.support.fuzzing import Choices
from tests.support.mutated_documents import mutated_bytes

IMAGE = np.random.default_rng(0).normal(size=(12, 10, 4)).round(1)
MASK = np.random.default_rng(1).integers(0, 2, (12, 10, 3), np.uint8)
STORED: dict[str, dict[str, Any]] = {
    "whole": {},
    "in parts": {"chunks": (5, 5, 2)},
    "by gzip": {"compression": "gzip"},
    "by gzip with shuffled bytes and checksums": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "by lzf": {"compression": "lzf", "shuffle": True},
}
"""How a dataset may be stored: the options of h5py."""


def hdf5(datasets: Mapping[str, npt.NDArray[Any]], stored: str = "by gzip") -> bytes:
    """A file of these datasets."""
    target = io.BytesIO()
    with h5py.File(target, "w") as file:
        for name, values in datasets.items():
            file.create_dataset(name, data=values, **STORED[stored])
    return target.getvalue()


def hdf5_slice(image: npt.NDArray[Any] = IMAGE, mask: npt.NDArray[Any] = MASK, stored: str = "by gzip") -> bytes:
    """A file of one slice."""
    return hdf5({"image": image, "mask": mask}, stored)


BASES = [hdf5_slice(stored=stored) for stored in STORED]


def mutated_hdf5(choose: Choices) -> bytes:
    """A file of any of these kinds with some of its bytes changed."""
    return mutated_bytes(BASES[choose(len(BASES))], choose)
