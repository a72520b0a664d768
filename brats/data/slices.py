"""Prepared cases on disk: one Parquet file per case, one row per slice, read whole or slice by slice.

Every image slice is a binary column: its raw values as byte planes (all low bytes, then all high bytes), which
zstd compresses better than the values themselves, and plain bytes are read by any Parquet reader. One slice is
one row group, so a single slice costs one small read.

Axes: `Z H W` slices of a crop.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from brats import storage
from brats.data.case import Array, Case, Description
from brats.data.cases import CASE_ID
from brats.data.nifti import MAX_VOXELS
from brats.data.planes import COUNT_COLUMNS
from brats.errors import StorageError
from brats.labels import TISSUES, Labels, count_tissues
from brats.storage.documents import check_types

ZSTD_LEVEL = 1  # measured on real cases: higher levels gain 1 % of size for three times the time
FOOTER_BYTES = 128 * 1024  # read with the opening; the footer of a real case takes 86 kB
_CHECKED = {"page_checksum_verification": True}
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
        write_page_checksum=True,  # zstd alone would read a flipped bit as other voxels
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
            self._file = pq.ParquetFile(self._remote or path, memory_map=self._remote is None, **_CHECKED)
        with _whole(path):
            schema = self._file.schema_arrow
        metadata = storage.read_metadata(schema, path, PREPARED_CASE)
        if "case" not in metadata:  # another table, of before kinds had names
            raise StorageError(f"{path}: not a prepared case")
        self.description: Description = metadata["case"]
        with _whole(path):
            described = _check_description(self.description)
        self.case_id: str = described.case_id
        if not CASE_ID.fullmatch(self.case_id):
            raise StorageError(f"{path}: {self.case_id!r} cannot name a file; prepare the case again")
        self.box = described.box
        self.intensities = described.intensities
        self.labelled = self.description["tissues"] is not None

    def read_slice(self, row: int, modalities: Sequence[str]) -> tuple[list[Array], Labels | None]:
        """Raw values (H, W) of each modality and the labels (H, W) of one slice; rows count from 0."""
        columns = [*modalities, "mask"]
        with storage.storage_errors(self.path, "read"), _whole(self.path):
            file = self._file
            if self._remote:  # one request for all the columns
                here = self._remote.with_range(*self._stretch(row, columns))
                file = pq.ParquetFile(here, metadata=file.metadata, **_CHECKED)
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
        names = list(described["modalities"] if modalities is None else modalities)
        with storage.storage_errors(self.path, "read"), _whole(self.path):
            file = self._file
            if self._remote:  # one request, where single columns would take one for each slice
                file = pq.ParquetFile(pa.BufferReader(storage.read_bytes(self.path)), **_CHECKED)
            table = file.read(columns=[*names, "mask"], use_threads=False)
            height, width, n_slices = self.box.shape
            if len(table) != n_slices:
                raise ValueError(f"{len(table)} slices, not {n_slices}")
            images = {
                name: np.stack(
                    [
                        from_planes(value.as_buffer(), self.intensities[name].dtype, (height, width))
                        for value in table[name]
                    ]
                )
                for name in names
            }
            masks = [_labels(value, (height, width)) for value in table["mask"]] if self.labelled else []
            labels = np.stack([mask for mask in masks if mask is not None]) if self.labelled else None
            if labels is not None and len(labels) != n_slices:
                raise ValueError(f"masks of {len(labels)} slices, not {n_slices}")
            return Case.from_description(described, images, labels)


@dataclass(frozen=True)
class _Columns:
    """What a description holds for the table of cases as it stands; without labels, nothing is counted."""

    modalities: list[str]
    warnings: list[str]
    tissues: dict[str, int] | None
    per_slice: dict[str, list[int] | None]


@contextmanager
def _whole(path: str) -> Iterator[None]:
    """Turn what a damaged file meets with into a StorageError that names it."""
    try:
        yield
    except (pa.ArrowException, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise StorageError(f"{path}: damaged ({reason}); remove it and prepare the case again") from error


def _check_description(value: Description) -> Case:
    """The case of a description, without its voxels. Raises an error of `_whole` for one that cannot be."""
    nothing = {name: np.zeros(0) for name in value["modalities"]}
    case = Case.from_description(value, nothing, None)
    check_types(case)
    for name, intensity in case.intensities.items():
        numbers = [number for number in asdict(intensity).values() if isinstance(number, int | float)]
        if np.dtype(intensity.dtype).kind not in "iuf" or not np.isfinite(numbers).all():
            raise ValueError(f"the intensities of {name} are {intensity}")
        if intensity.std <= 0 or intensity.slope == 0:
            raise ValueError(f"the intensities of {name} are {intensity}")
    _check_place(case)
    first, *later = COUNT_COLUMNS  # the later ones not in files of before there were planes
    counts = {first: value[first], **{column: value[column] for column in later if column in value}}
    check_types(_Columns(value["modalities"], value["warnings"], value["tissues"], counts))
    if value["tissues"] is not None and (missing := set(TISSUES).difference(value["tissues"])):
        raise ValueError(f"no voxels of {missing.pop()} are counted")
    for count in itertools.chain.from_iterable(column or () for column in counts.values()):
        if not 0 <= count <= MAX_VOXELS:
            raise ValueError(f"a slice has {count} voxels of tumour")
    return case


def _check_place(case: Case) -> None:
    """Raise ValueError unless the box of a case lies within a grid that can be."""
    grid, box = case.grid, case.box
    if math.prod(grid.shape) > MAX_VOXELS or sorted(grid.orientation[:, 0]) != [0, 1, 2]:
        raise ValueError(f"the grid is {grid.shape}, {grid.axes}")
    edges = zip(box.start, box.stop, grid.ras_shape, strict=True)
    if not all(0 <= start < stop <= size for start, stop, size in edges):
        raise ValueError(f"the box is {box.start} to {box.stop} of {grid.ras_shape}")


def _labels(value: pa.Scalar, shape: tuple[int, int]) -> Labels | None:
    return np.frombuffer(value.as_buffer(), np.uint8).reshape(shape) if value.is_valid else None


@functools.lru_cache(maxsize=64)
def open_slices(path: str) -> SliceFile:
    """An open prepared case, kept open in this process: neighbouring batches draw on the same cases."""
    return SliceFile(path)
