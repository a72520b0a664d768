"""Prepared cases on disk: one Parquet file per case, one row per slice, read whole or slice by slice.

Every image slice is a binary column: its raw values as byte planes (all low bytes, then all high bytes), which
zstd compresses better than the values themselves, and plain bytes are read by any Parquet reader. One slice is
one row group, so a single slice costs one small read.

Axes: `Z H W` slices of a crop.
"""

import functools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from brats import storage
from brats.data.case import Array, Box, Case, Description, Intensity
from brats.data.cases import CASE_ID
from brats.errors import StorageError
from brats.labels import TISSUES, Labels, count_tissues

ZSTD_LEVEL = 1  # measured on real cases: higher levels gain 1 % of size for three times the time
FOOTER_BYTES = 128 * 1024  # read with the opening; the footer of a real case takes 86 kB
# Its columns follow from the modalities of the case.
PREPARED_CASE = storage.TableKind(name="prepared case", version=2, schema=pa.schema([]))


def to_planes(array: Array) -> bytes:
    """The bytes of an array, all first bytes of its items together, then all second bytes, and so on."""
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    return little.reshape(-1, 1).view(np.uint8).T.tobytes()


def from_planes(data: bytes | memoryview, dtype: str, shape: tuple[int, ...]) -> Array:
    """The inverse of `to_planes`: an array of this dtype and shape."""
    planes = np.frombuffer(data, np.uint8).reshape(np.dtype(dtype).itemsize, -1)
    items = np.empty((planes.shape[1], len(planes)), np.uint8)
    for byte, plane in enumerate(planes):  # transposing them in one go takes NumPy seven times as long
        items[:, byte] = plane
    return items.view(np.dtype(dtype).newbyteorder("<")).reshape(shape)


def encode_case(case: Case) -> tuple[memoryview, Description]:
    """A prepared case as the content of its Parquet file, and the description that its footer carries."""
    n_slices, height, width = next(iter(case.images.values())).shape
    first = case.box.start[2]
    columns: dict[str, pa.Array] = {
        "slice_index": pa.array(range(first, first + n_slices), pa.int16()),
        "height": pa.array([height] * n_slices, pa.int16()),
        "width": pa.array([width] * n_slices, pa.int16()),
    }
    for name, image in case.images.items():
        columns[name] = pa.array([to_planes(plane) for plane in image], pa.binary())
    labels = case.labels
    columns["mask"] = pa.array(
        [None] * n_slices if labels is None else [plane.tobytes() for plane in labels], pa.binary()
    )
    counts = [None] * n_slices if labels is None else [count_tissues(plane) for plane in labels]
    for tissue in TISSUES:
        columns[f"n_{tissue}"] = pa.array(
            [None if count is None else count[tissue] for count in counts], pa.int32()
        )
    table = pa.table(columns)
    description = case.describe()
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


class SliceFile:
    """An open prepared case: reads single slices or the whole case, only the modalities asked for."""

    def __init__(self, path: str) -> None:
        """Open a file of `encode_case`. Raises StorageError for other files, FileNotFoundError for none."""
        self.path = path
        with storage.storage_errors(path, "read"):
            self._remote = storage.open_ranged(path, FOOTER_BYTES) if storage.is_remote(path) else None
            self._file = pq.ParquetFile(self._remote or path, memory_map=self._remote is None)
        metadata = storage.read_metadata(self._file.schema_arrow, path, PREPARED_CASE)
        if "case" not in metadata:  # another table, of before kinds had names
            raise StorageError(f"{path}: not a prepared case")
        self.description: Description = metadata["case"]
        described = self.description
        self.case_id: str = described["case_id"]
        if not CASE_ID.fullmatch(self.case_id):
            raise StorageError(f"{path}: {self.case_id!r} cannot name a file; prepare the case again")
        self.box = Box.from_json(described["box"])
        self.intensities = {name: Intensity(**values) for name, values in described["intensities"].items()}
        self.labelled = described["tissues"] is not None

    def read_slice(self, row: int, modalities: Sequence[str]) -> tuple[list[Array], Labels | None]:
        """Raw values (H, W) of each modality and the labels (H, W) of one slice; rows count from 0."""
        columns = [*modalities, "mask"]
        with storage.storage_errors(self.path, "read"):
            file = self._file
            if self._remote:  # one request for all the columns
                here = self._remote.with_range(*self._stretch(row, columns))
                file = pq.ParquetFile(here, metadata=file.metadata)
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
        return Case.from_description(described, images, labels)


def _labels(value: pa.Scalar, shape: tuple[int, int]) -> Labels | None:
    return np.frombuffer(value.as_buffer(), np.uint8).reshape(shape) if value.is_valid else None


@functools.lru_cache(maxsize=64)
def open_slices(path: str) -> SliceFile:
    """An open prepared case, kept open in this process: neighbouring batches draw on the same cases."""
    return SliceFile(path)
