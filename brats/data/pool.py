"""The pool: all slices that a run trains on, case after case in one flat array, and where each slice lies in it.

Cases keep their own sizes: padding them to one would take half as much memory again. A slice is named by its
strides: its neighbours are the same memory from another place on, and take none of their own.

Axes: `C` channel, one of each modality, `Z H W` slices of a crop in the plane of the run, `B` slices of a batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from brats.labels import Labels

Windows = npt.NDArray[np.int64]
"""(B, 10): where the slice begins among the images, the distances between channels, rows (H) and columns (W),
where it begins among the labels, its height and its width; then the distance to the next slice, and the numbers of
slices before and after it in its case."""

N_WINDOW = 10
INT16_BYTES, FLOAT32_BYTES = 2, 4  # of a raw value


@dataclass(frozen=True, kw_only=True)
class TrainingVolume:
    """A whole case as it is trained on.

    images:  raw values (C, Z, H, W), int16 or float32
    labels:  (Z, H, W)
    numbers: (4, C), of `brats.data.stacks.channel_numbers`
    """

    case_id: str
    images: npt.NDArray[Any]
    labels: Labels
    numbers: npt.NDArray[np.float32]

    def to_row(self) -> dict[str, Any]:
        """As a row of a Ray dataset: arrays as plain bytes, with what is needed to read them back."""
        return {
            "case_id": self.case_id,
            "dtype": self.images.dtype.str,
            "shape": list(self.images.shape),
            "images": self.images.tobytes(),
            "labels": self.labels.tobytes(),
            "numbers": self.numbers.tobytes(),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The inverse of `to_row`, from a row of Arrow scalars; the arrays are read-only views of it."""
        n_channels, n_slices, height, width = row["shape"].as_py()
        images = np.frombuffer(row["images"].as_buffer(), row["dtype"].as_py())
        return cls(
            case_id=row["case_id"].as_py(),
            images=images.reshape(n_channels, n_slices, height, width),
            labels=np.frombuffer(row["labels"].as_buffer(), np.uint8).reshape(n_slices, height, width),
            numbers=np.frombuffer(row["numbers"].as_buffer(), np.float32).reshape(-1, n_channels),
        )


@dataclass(frozen=True, kw_only=True)
class PoolLayout:
    """Where the cases lie in the pool.

    index:  position of each case in the arrays below
    starts: of each case among the labels; among the images there are `n_channels` times as many voxels before it
    shapes: (n, 3), Z H W of each case
    """

    n_channels: int
    index: Mapping[str, int]
    starts: npt.NDArray[np.int64]
    shapes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, case_ids: Sequence[str], shapes: Sequence[tuple[int, int, int]], n_channels: int) -> Self:
        """Of cases of these shapes (Z, H, W), in this order."""
        sizes = np.array(shapes, np.int64).reshape(-1, 3)
        n_voxels = sizes.prod(axis=1)
        return cls(
            n_channels=n_channels,
            index={case_id: number for number, case_id in enumerate(case_ids)},
            starts=np.cumsum(n_voxels) - n_voxels,
            shapes=sizes,
        )

    @property
    def n_voxels(self) -> int:
        """Labels in the pool; values are `n_channels` times as many."""
        return int(self.shapes.prod(axis=1).sum())

    def n_bytes(self, itemsize: int) -> int:
        """The size of the pool where a raw value takes so many bytes."""
        return self.n_voxels * (self.n_channels * itemsize + 1)

    def cases(self, slices: Sequence[tuple[str, int]]) -> npt.NDArray[np.int64]:
        """The position of the case of each slice (case_id, row)."""
        return np.array([self.index[case_id] for case_id, _ in slices], np.int64)

    def windows(self, slices: Sequence[tuple[str, int]]) -> Windows:
        """Where the slices (case_id, row) lie."""
        cases = self.cases(slices)
        rows = np.array([row for _, row in slices], np.int64)
        n_slices, height, width = self.shapes[cases].T
        in_case = rows * height * width
        found = np.empty((len(cases), N_WINDOW), np.int64)
        found[:, 0] = self.starts[cases] * self.n_channels + in_case
        found[:, 1] = n_slices * height * width
        found[:, 2] = width
        found[:, 3] = 1
        found[:, 4] = self.starts[cases] + in_case
        found[:, 5], found[:, 6] = height, width
        found[:, 7] = height * width
        found[:, 8], found[:, 9] = rows, n_slices - 1 - rows
        return found
