"""Claim 7: bytes per case in the prepared dataset and how fast slices are read, by codec, encoding and row group.

Axes: `Z H W` slices of a crop.
"""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.command import run_benchmark
from benchmarks.harness import LIMIT, BenchmarkError, Outcome, Row, Spread, compare, cores, interleaved
from benchmarks.sources import Source, sources
from brats.config import MODALITIES
from brats.data.case import Case
from brats.data.cases import CaseFiles
from brats.data.preprocess import read_case
from brats.data.slices import SliceFile, encode_case, from_planes, to_planes

Array = npt.NDArray[Any]
AS_PREPARED = "as prepared"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A way to store a case.

    encoding: planes (all low bytes, then all high bytes), plain (the numbers as they are), or split (a typed column
        of numbers under Parquet's BYTE_STREAM_SPLIT)
    """

    codec: str
    level: int | None
    encoding: str
    slices_per_group: int

    def __str__(self) -> str:
        level = "" if self.level is None else f" {self.level}"
        return f"{self.codec}{level}, {self.encoding}, {self.slices_per_group} a group"


CHOICES = (  # the first is what `prepare` writes
    Choice(codec="zstd", level=1, encoding="planes", slices_per_group=1),
    Choice(codec="zstd", level=3, encoding="planes", slices_per_group=1),
    Choice(codec="zstd", level=9, encoding="planes", slices_per_group=1),
    Choice(codec="lz4", level=None, encoding="planes", slices_per_group=1),
    Choice(codec="gzip", level=6, encoding="planes", slices_per_group=1),
    Choice(codec="none", level=None, encoding="planes", slices_per_group=1),
    Choice(codec="zstd", level=1, encoding="plain", slices_per_group=1),
    Choice(codec="zstd", level=1, encoding="split", slices_per_group=1),
    Choice(codec="zstd", level=1, encoding="planes", slices_per_group=8),
    Choice(codec="zstd", level=1, encoding="planes", slices_per_group=32),
)


def encode(case: Case, choice: Choice, path: Path) -> None:
    """Write the images and labels of a case, a row per slice."""
    assert case.labels is not None
    stacks = {**case.images, "mask": case.labels}
    table = pa.table({name: _column(stack, choice.encoding) for name, stack in stacks.items()})
    split = [f"{name}.list.element" for name in stacks] if choice.encoding == "split" else False
    pq.write_table(
        table,
        path,
        row_group_size=choice.slices_per_group,
        compression=choice.codec,
        compression_level=choice.level,
        use_dictionary=False,
        write_statistics=False,
        use_byte_stream_split=split,
    )


def _column(stack: Array, encoding: str) -> pa.Array:
    if encoding == "split":
        return pa.FixedSizeListArray.from_arrays(pa.array(stack.ravel()), stack[0].size)
    if encoding == "planes":
        return pa.array([to_planes(part) for part in stack], pa.binary())
    return pa.array([part.tobytes() for part in stack], pa.binary())


def slice_reader(case: Case, choice: Choice, path: Path) -> Callable[[int], list[Array]]:
    """Reads one slice of a file of `encode`: its images (H, W) and, last, its labels."""
    assert case.labels is not None
    file = pq.ParquetFile(path, memory_map=True)
    stacks = {**case.images, "mask": case.labels}

    def read(row: int) -> list[Array]:
        group, place = divmod(row, choice.slices_per_group)
        table = file.read_row_group(group, use_threads=False)
        return [_decode(table[name][place], stack, choice.encoding) for name, stack in stacks.items()]

    return read


def _decode(value: Any, stack: Array, encoding: str) -> Array:
    if encoding == "split":
        return np.asarray(value.values.to_numpy()).reshape(stack.shape[1:])
    if encoding == "planes":
        return from_planes(value.as_buffer(), stack.dtype.str, stack.shape[1:])
    return np.frombuffer(value.as_buffer(), stack.dtype).reshape(stack.shape[1:])


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Cases stored in one way."""

    mb: float
    encode_s: float
    readers: Sequence[Callable[[int], Any]]
    """Of one slice, for each case."""

    def read_drawn(self, rows: Sequence[Sequence[int]]) -> None:
        for read, drawn in zip(self.readers, rows, strict=True):
            for row in drawn:
                read(row)


def keep(cases: Sequence[Case], choice: Choice, folder: Path) -> Kept:
    """Store the cases in a way. Raises BenchmarkError when they do not come back as they were."""
    folder.mkdir()
    paths = [folder / f"{case.case_id}.parquet" for case in cases]
    started = time.perf_counter()
    for case, path in zip(cases, paths, strict=True):
        encode(case, choice, path)
    encode_s = time.perf_counter() - started
    readers = [slice_reader(case, choice, path) for case, path in zip(cases, paths, strict=True)]
    for case, read in zip(cases, readers, strict=True):
        _check_round_trip(case, choice, read)
    return Kept(mb=_mean_mb(paths), encode_s=encode_s / len(cases), readers=readers)


def keep_as_prepared(cases: Sequence[Case], folder: Path) -> Kept:
    """The files that `prepare` writes, read as training reads them."""
    folder.mkdir()
    paths = [folder / f"{case.case_id}.parquet" for case in cases]
    started = time.perf_counter()
    for case, path in zip(cases, paths, strict=True):
        path.write_bytes(encode_case(case)[0])
    encode_s = time.perf_counter() - started
    readers = [functools.partial(SliceFile(str(path)).read_slice, modalities=MODALITIES) for path in paths]
    return Kept(mb=_mean_mb(paths), encode_s=encode_s / len(cases), readers=readers)


def _mean_mb(paths: Sequence[Path]) -> float:
    return sum(path.stat().st_size for path in paths) / len(paths) / 1e6


def _check_round_trip(case: Case, choice: Choice, read: Callable[[int], list[Array]]) -> None:
    assert case.labels is not None
    row = len(case.labels) // 2
    for stack, part in zip([*case.images.values(), case.labels], read(row), strict=True):
        if not np.array_equal(stack[row], part):
            raise BenchmarkError(f"{case.case_id}: {choice} does not give back what was stored; nothing is written")


def compressed_mb(files: CaseFiles) -> float:
    """The .nii.gz files of a case."""
    return files.source_bytes(MODALITIES) / 1e6


def measure_source(source: Source, n_drawn: int, repetitions: int) -> Outcome:
    cases = [read_case(files, MODALITIES) for files in source.cases]
    drawn = [np.random.default_rng(0).integers(len(case.images["flair"]), size=n_drawn).tolist() for case in cases]
    with cores(1), TemporaryDirectory() as root:
        kept = {AS_PREPARED: keep_as_prepared(cases, Path(root) / "prepared")}
        kept |= {str(choice): keep(cases, choice, Path(root) / str(n)) for n, choice in enumerate(CHOICES)}
        reads = {name: functools.partial(stored.read_drawn, drawn) for name, stored in kept.items()}
        seconds = interleaved(reads, repetitions)
    n_read = n_drawn * len(cases)
    rates = {name: Spread(tuple(n_read / value for value in spread.values)) for name, spread in seconds.items()}
    ours, nifti_mb = kept.pop(AS_PREPARED), sum(map(compressed_mb, source.cases)) / len(cases)
    stage = f"store a {source.name} case"
    rows = [compare(stage, ours.mb, LIMIT + ".nii.gz", nifti_mb, "MB", target=1)]
    rows += [compare(stage, ours.mb, name, stored.mb, "MB") for name, stored in kept.items()]
    stage = f"read single {source.name} slices"
    rows += [
        compare(stage, rates[AS_PREPARED], name, rates[name], "slices/s", more_is_better=True) for name in kept
    ]
    details = {
        f"{source.name}, {name}": f"{stored.mb:.2f} MB, {stored.encode_s:.2f} s to encode, {rates[name]} slices/s"
        for name, stored in {AS_PREPARED: ours, **kept}.items()
    }
    return Outcome(rows=rows, details=details)


def measure(quick: bool) -> Outcome:
    rows: list[Row] = []
    details: dict[str, Any] = {}
    for source in sources(1 if quick else 2):
        outcome = measure_source(source, n_drawn=20 if quick else 100, repetitions=1 if quick else 4)
        rows += outcome.rows
        details |= outcome.details
    return Outcome(rows=rows, details=details)


if __name__ == "__main__":
    run_benchmark(measure)
