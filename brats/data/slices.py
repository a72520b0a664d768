"""Prepared cases on disk: one Parquet file per case, one row per slice, read whole or slice by slice.

Every image slice is a binary column: its numbers as byte planes (all low bytes, then all high bytes), which
zstd compresses better than the numbers themselves, and plain bytes are read by any Parquet reader. One slice is
one row group, so a single slice costs one small read.

Axes: `Z H W` slices of a crop.
"""

import functools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from brats import storage
from brats.data.cases import CASE_ID
from brats.data.dataset import slices_path
from brats.data.preprocess import Box, Case, Intensity
from brats.data.volume import Grid
from brats.errors import StorageError
from brats.labels import Labels, count_tissues

Array = npt.NDArray[Any]

ZSTD_LEVEL = 1  # measured on real cases: higher levels gain 1 % of size for three times the time
FOOTER_BYTES = 128 * 1024  # read with the opening; the footer of a real case takes 86 kB
READERS = 16  # requests under way at once for one batch
# Its columns follow from the modalities of the case.
PREPARED_CASE = storage.TableKind(name="prepared case", schema=pa.schema([]))
TISSUE_COLUMNS = ("n_ncr", "n_ed", "n_et")


def to_planes(array: Array) -> bytes:
    """The bytes of an array, all first bytes of its items together, then all second bytes, and so on."""
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    return little.reshape(-1, 1).view(np.uint8).T.tobytes()


def from_planes(data: bytes | memoryview, dtype: str, shape: tuple[int, ...]) -> Array:
    """The inverse of `to_planes`: an array of this number type and shape."""
    planes = np.frombuffer(data, np.uint8).reshape(np.dtype(dtype).itemsize, -1)
    items = np.empty((planes.shape[1], len(planes)), np.uint8)
    for byte, plane in enumerate(planes):  # transposing them in one go takes NumPy seven times as long
        items[:, byte] = plane
    return items.view(np.dtype(dtype).newbyteorder("<")).reshape(shape)


def encode_case(case: Case) -> tuple[memoryview, dict[str, Any]]:
    """A prepared case as the content of its Parquet file, and the description that its footer carries."""
    n_slices, height, width = next(iter(case.images.values())).shape
    first = case.box.start[2]
    columns: dict[str, pa.Array] = {
        "slice_index": pa.array(range(first, first + n_slices), pa.int16()),
        "height": pa.array([height] * n_slices, pa.int16()),
        "width": pa.array([width] * n_slices, pa.int16()),
    }
    for name, image in case.images.items():
        columns[name] = pa.array([to_planes(part) for part in image], pa.binary())
    labels = case.labels
    columns["mask"] = pa.array([None] * n_slices if labels is None else [x.tobytes() for x in labels], pa.binary())
    counts = [None] * n_slices if labels is None else [count_tissues(part) for part in labels]
    for column, tissue in zip(TISSUE_COLUMNS, ("ncr", "ed", "et"), strict=True):
        columns[column] = pa.array([count and count[tissue] for count in counts], pa.int32())
    table = pa.table(columns)
    description = _describe(case)
    schema = storage.with_metadata(table.schema, PREPARED_CASE, {"case": description})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=False,
        write_statistics=False,
        store_schema=True,
    ) as writer:
        writer.write_table(table.cast(schema), row_group_size=1)
    return memoryview(sink.getvalue()), description


def _describe(case: Case) -> dict[str, Any]:
    tissues = None if case.labels is None else count_tissues(case.labels)
    return {
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "layout": case.layout,
        "grade": case.grade,
        "modalities": list(case.images),
        "intensities": {name: asdict(case.intensities[name]) for name in case.images},
        "grid": case.grid.to_json(),
        "box": asdict(case.box),
        "voxel_hash": case.voxel_hash,
        "source_bytes": case.source_bytes,
        "tissues": tissues,
        "tumour_per_slice": None if case.labels is None else np.count_nonzero(case.labels, axis=(1, 2)).tolist(),
    }


class SliceFile:
    """An open prepared case: reads single slices or the whole case, only the modalities asked for."""

    def __init__(self, path: str) -> None:
        """Open a file of `encode_case`. Raises StorageError for other files, FileNotFoundError for none."""
        self.path = path
        with storage.storage_errors(path, "read"):
            self._remote = storage.open_ranged(path, FOOTER_BYTES) if storage.is_remote(path) else None
            self._file = pq.ParquetFile(self._remote or path, memory_map=self._remote is None)
        metadata = storage.read_metadata(self._file.schema_arrow, path, PREPARED_CASE)
        if "case" not in metadata:
            raise StorageError(f"{path}: not a prepared case")
        self.description: dict[str, Any] = metadata["case"]
        described = self.description
        self.case_id: str = described["case_id"]
        if not CASE_ID.fullmatch(self.case_id):
            raise StorageError(f"{path}: {self.case_id!r} cannot name a file; prepare the case again")
        self.box = Box(**{edge: tuple(described["box"][edge]) for edge in ("start", "stop")})
        self.intensities = {name: Intensity(**values) for name, values in described["intensities"].items()}
        self.labelled = described["tissues"] is not None

    def read_slice(self, row: int, modalities: Sequence[str]) -> tuple[list[Array], Labels | None]:
        """Stored numbers (H, W) of each modality and the labels (H, W) of one slice; rows count from 0."""
        columns = [*modalities, "mask"]
        with storage.storage_errors(self.path, "read"):
            file = self._file
            if self._remote:  # one request for all the columns
                part = self._remote.with_range(*self._stretch(row, columns))
                file = pq.ParquetFile(part, metadata=file.metadata)
            table = file.read_row_group(row, columns=columns, use_threads=False)
        shape = self.box.shape[:2]
        images = [
            from_planes(table[name][0].as_buffer(), self.intensities[name].dtype, shape) for name in modalities
        ]
        return images, _labels(table["mask"][0], shape)

    def _stretch(self, row: int, columns: Sequence[str]) -> tuple[int, int]:
        """Where in the file these columns of a slice begin and end, with what lies between them."""
        group, schema = self._file.metadata.row_group(row), self._file.schema_arrow
        chunks = [group.column(schema.get_field_index(name)) for name in columns]
        stops = [chunk.data_page_offset + chunk.total_compressed_size for chunk in chunks]
        return min(chunk.data_page_offset for chunk in chunks), max(stops)

    def read_case(self, modalities: Sequence[str] | None = None) -> Case:
        """The whole case, with these modalities (default: all it has)."""
        described = self.description
        names = list(modalities or described["modalities"])
        with storage.storage_errors(self.path, "read"):
            file = self._file
            if self._remote:  # one request, where single columns would take one for each slice
                file = pq.ParquetFile(pa.BufferReader(storage.read_bytes(self.path)))
            table = file.read(columns=[*names, "mask"], use_threads=False)
        height, width, n_slices = self.box.shape
        images = {
            name: np.stack(
                [
                    from_planes(value.as_buffer(), self.intensities[name].dtype, (height, width))
                    for value in table[name]
                ]
            )
            for name in names
        }
        masks = [_labels(value, (height, width)) for value in table["mask"]]
        labels = np.stack([mask for mask in masks if mask is not None]) if self.labelled else None
        assert all(len(image) == n_slices for image in images.values())
        return Case(
            case_id=self.case_id,
            patient_id=described["patient_id"],
            layout=described["layout"],
            grade=described["grade"],
            images=images,
            labels=labels,
            intensities={name: self.intensities[name] for name in names},
            grid=Grid.from_json(described["grid"]),
            box=self.box,
            voxel_hash=described["voxel_hash"],
            source_bytes=described["source_bytes"],
        )


def _labels(value: pa.Scalar, shape: tuple[int, int]) -> Labels | None:
    return np.frombuffer(value.as_buffer(), np.uint8).reshape(shape) if value.is_valid else None


@functools.lru_cache(maxsize=64)
def open_slices(path: str) -> SliceFile:
    """An open prepared case, kept open in this process: neighbouring batches draw on the same cases."""
    return SliceFile(path)


def _read_rows(
    prepared: str, rows: Sequence[tuple[str, int]], modalities: Sequence[str]
) -> list[tuple[SliceFile, list[Array], Labels | None]]:
    """Each row's open file, images and labels; from a store all at once, so that its latencies overlap."""

    def read(entry: tuple[str, int]) -> tuple[SliceFile, list[Array], Labels | None]:
        file = open_slices(slices_path(prepared, entry[0]))
        return file, *file.read_slice(entry[1], modalities)

    if not storage.is_remote(prepared):
        return [read(entry) for entry in rows]
    with ThreadPoolExecutor(READERS) as pool:
        paths = {slices_path(prepared, case_id) for case_id, _ in rows}
        list(pool.map(open_slices, paths))  # each once, before its slices
        return list(pool.map(read, rows))


@dataclass(frozen=True, kw_only=True)
class SliceBatch:
    """Slices of several cases, padded to one size with each image's background.

    images:     (B, C, H, W), stored numbers: int16 where all fit, else float32
    labels:     (B, H, W) uint8
    offset, scale, background: (B, C) float32; `(stored - offset) / scale`, and 0 where stored == background
    """

    images: Array
    labels: Labels
    offset: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    background: npt.NDArray[np.float32]


def read_batch(
    prepared: str,
    rows: Sequence[tuple[str, int]],
    modalities: Sequence[str],
    size: tuple[int, int],
) -> SliceBatch:
    """Read the slices (case_id, row) of prepared, labelled cases into one batch of the size (H, W)."""
    read = _read_rows(prepared, rows, modalities)
    intensities = [[file.intensities[name] for name in modalities] for file, _, _ in read]
    dtype = common_dtype({item.dtype for items in intensities for item in items})
    background = np.array([[item.background for item in items] for items in intensities], np.float32)
    images = np.empty((len(rows), len(modalities), *size), dtype)
    images[:] = background[:, :, None, None]
    labels = np.zeros((len(rows), *size), np.uint8)
    for position, (file, parts, mask) in enumerate(read):
        if mask is None:
            raise StorageError(f"{file.path}: case {file.case_id} has no segmentation to train on")
        height, width = mask.shape
        labels[position, :height, :width] = mask
        for channel, part in enumerate(parts):
            images[position, channel, :height, :width] = part
    pairs = np.array([[item.stored_offset_scale() for item in items] for items in intensities], np.float32)
    return SliceBatch(
        images=images, labels=labels, offset=pairs[..., 0], scale=pairs[..., 1], background=background
    )


def common_dtype(dtypes: set[str]) -> npt.DTypeLike:
    """The narrower of int16 and float32 that holds all of these number types (float32: to its precision)."""
    return np.int16 if all(np.can_cast(np.dtype(name), np.int16) for name in dtypes) else np.float32


def padded_size(sizes: Sequence[tuple[int, int]], divisor: int) -> tuple[int, int]:
    """The smallest (H, W) that holds all of these and that the network's divisor divides."""
    height, width = (math.ceil(max(edges) / divisor) * divisor for edges in zip(*sizes, strict=True))
    return height, width
