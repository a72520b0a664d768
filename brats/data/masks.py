"""Predicted masks and probabilities in Parquet: one row per slice of the source volume, in its file's own axes.

The decoded mask of `slice_index` k equals `nifti[:, :, k]` of the same prediction written as NIfTI.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from brats import storage
from brats.labels import REGIONS, TISSUES, Labels

MASK = storage.TableKind(
    name="mask",
    schema=pa.schema(
        [
            ("case_id", pa.string()),
            ("slice_index", pa.int16()),
            ("height", pa.int16()),
            ("width", pa.int16()),
            ("mask", pa.binary()),
        ]
    ),
    conventions={
        "mask": "np.frombuffer(mask, 'uint8').reshape(height, width) is slice [:, :, slice_index] of the "
        "source volume; "
        f"labels {', '.join(f'{label} {tissue.upper()}' for tissue, label in TISSUES.items())}"
    },
)
PROBABILITIES = storage.TableKind(
    name="probabilities",
    schema=pa.schema(
        [
            ("case_id", pa.string()),
            ("slice_index", pa.int16()),
            ("height", pa.int16()),
            ("width", pa.int16()),
            *((region.lower(), pa.binary()) for region in REGIONS),
        ]
    ),
    conventions={
        ", ".join(map(str.lower, REGIONS)): "np.frombuffer(wt, 'uint8').reshape(height, width) / 255 is the "
        "probability that a voxel of slice [:, :, slice_index] of the source volume is in WT, rounded to 1/255; "
        "null where the model does not tell the region; before thresholds and rules",
    },
)


def masks_dir(out: str) -> str:
    return storage.join(out, "masks")


def nifti_dir(out: str) -> str:
    return storage.join(out, "nifti")


def nifti_path(out: str, case_id: str) -> str:
    """Where the mask of a case lies as NIfTI, where that was asked for."""
    return storage.join(nifti_dir(out), f"{case_id}.nii.gz")


def mha_path(out: str, case_id: str) -> str:
    """Where it lies instead for a case of MetaImage files."""
    return storage.join(nifti_dir(out), f"{case_id}.mha")


def masks_path(out: str, case_id: str) -> str:
    return storage.join(masks_dir(out), f"{case_id}.parquet")


def write_masks(out: str, case_id: str, volume: Labels) -> None:
    """Write the label map of a case on its full source grid, (X, Y, Z) in source axes."""
    height, width, n_slices = volume.shape
    table = pa.table(
        {
            "case_id": [case_id] * n_slices,
            "slice_index": range(n_slices),
            "height": [height] * n_slices,
            "width": [width] * n_slices,
            "mask": [volume[:, :, k].tobytes() for k in range(n_slices)],
        },
        schema=MASK.schema,
    )
    storage.write_table(masks_path(out, case_id), MASK, table)


def probabilities_dir(out: str) -> str:
    return storage.join(out, "probabilities")


def probabilities_path(out: str, case_id: str) -> str:
    """Where the probabilities of a case lie, where they were asked for."""
    return storage.join(probabilities_dir(out), f"{case_id}.parquet")


def write_probabilities(out: str, case_id: str, volumes: Mapping[str, npt.NDArray[np.uint8]]) -> None:
    """Write the probabilities x 255 of a case by region, (X, Y, Z) on its full source grid in source axes."""
    height, width, n_slices = next(iter(volumes.values())).shape
    rows = [
        {
            "case_id": case_id,
            "slice_index": k,
            "height": height,
            "width": width,
            **{region.lower(): volume[:, :, k].tobytes() for region, volume in volumes.items()},
        }
        for k in range(n_slices)
    ]
    storage.write_table(probabilities_path(out, case_id), PROBABILITIES, PROBABILITIES.table(rows))


def read_masks(path: str) -> Labels:
    """The label map (X, Y, Z) in the source file's axes, of a file of `write_masks`."""
    table = storage.read_table(path, MASK)
    shape = table["height"][0].as_py(), table["width"][0].as_py()
    return _volume(table["mask"], shape)


def read_probabilities(path: str) -> dict[str, npt.NDArray[np.uint8]]:
    """The probabilities x 255 (X, Y, Z) in source axes, by region, of a file of `write_probabilities`."""
    table = storage.read_table(path, PROBABILITIES)
    shape = table["height"][0].as_py(), table["width"][0].as_py()
    known = [region for region in REGIONS if table[region.lower()][0].is_valid]
    return {region: _volume(table[region.lower()], shape) for region in known}


def _volume(slices: pa.ChunkedArray, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The volume of a column of slices: a view, as they lie in memory, because turning them takes long."""
    planes = [np.frombuffer(value.as_buffer(), np.uint8).reshape(shape) for value in slices]
    return np.moveaxis(np.stack(planes), 0, 2)
