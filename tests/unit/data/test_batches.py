"""Batches: what the network's channels are, slices put together, a rank's shard read, and its row for Ray."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from brats.config import TrainConfig
from brats.data.batches import InputSpec, SliceBatch, Stack, TrainingSet, WorkerBatch, common_dtype, stack_slices
from brats.data.case import Case
from brats.data.dataset import slices_path
from brats.data.epoch import EpochPlan, PlannedBatch
from brats.data.slices import open_slices
from brats.errors import StorageError
from tests.support.prepared import CONFIG, write_prepared
from tests.support.s3 import FaultyProxy
from tests.support.volumes import case_of, image, labels_of

DTYPES = ["int16", "uint8", "uint16", "int32", "float32", "float64"]
PLANNED = PlannedBatch(epoch=3, step=7, slices=(("a", 0), ("b", 1), ("a", 2)))


def training_set(prepared: str, modalities: Sequence[str], size: tuple[int, int]) -> TrainingSet:
    inputs = InputSpec(modalities=tuple(modalities))
    return TrainingSet(prepared=prepared, plan=EpochPlan.of(CONFIG, []), inputs=inputs, size=size, shapes=())


def read_rows(
    prepared: str, rows: Sequence[tuple[str, int]], modalities: Sequence[str], size: tuple[int, int]
) -> WorkerBatch:
    """These slices as one batch of one worker."""
    planned = PlannedBatch(epoch=1, step=0, slices=tuple(rows))
    return training_set(prepared, modalities, size).read_shard(planned, 0, 1)


def assert_same_batch(one: SliceBatch, other: SliceBatch) -> None:
    """Two batches agree bit for bit."""
    for field in dataclasses.fields(SliceBatch):
        array, expected = getattr(one, field.name), getattr(other, field.name)
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)


# What the network sees


def test_input_has_a_channel_for_each_modality_of_the_configuration_in_its_order() -> None:
    inputs = InputSpec.of(TrainConfig(out="run", modalities=("t2", "flair", "t1")))
    assert (inputs.modalities, inputs.n_channels) == (("t2", "flair", "t1"), 3)


@pytest.mark.parametrize(
    ("sizes", "divisor", "expected"),
    [
        ([(40, 36)], 32, (64, 64)),
        ([(64, 32)], 32, (64, 32)),
        ([(33, 65), (64, 10)], 32, (64, 96)),
        ([(5, 7)], 1, (5, 7)),
    ],
)
def test_the_padded_size_holds_every_slice_and_is_a_multiple(
    sizes: list[tuple[int, int]], divisor: int, expected: tuple[int, int]
) -> None:
    assert InputSpec(modalities=("t1",), divisor=divisor).padded_size(sizes) == expected


def test_input_comes_back_from_json_text() -> None:
    inputs = InputSpec(modalities=("t1ce", "flair"), divisor=16)
    assert InputSpec.from_json(json.loads(json.dumps(asdict(inputs)))) == inputs


# Slices put together


def stack_of(case: Case, rows: slice) -> Stack:
    return Stack(
        channels=[voxels[rows] for voxels in case.images.values()],
        intensities=[case.intensities[name] for name in case.images],
    )


@pytest.mark.parametrize("dtypes", [("int16", "uint8"), ("int16", "float64"), ("uint16", "float32")])
def test_stack_of_several_slices_is_as_many_stacks_of_one(dtypes: tuple[str, str]) -> None:
    flair, t1 = (image(seed, dtype, 10, 99, background=3) for seed, dtype in enumerate(dtypes))
    case = case_of(flair=flair, t1=t1, slope=0.5, inter=7)
    together = stack_slices([stack_of(case, slice(None))], (8, 6))
    one_by_one = stack_slices([stack_of(case, slice(row, row + 1)) for row in range(3)], (8, 6))
    assert together.images.shape == (3, 2, 8, 6)
    assert_same_batch(together, one_by_one)


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ({"<i2"}, "int16"),
        ({"|u1", "|i1", "<i2"}, "int16"),
        ({"<u2"}, "float32"),
        ({"<i2", "<f4"}, "float32"),
        ({"<i4"}, "float32"),
        ({"<f8"}, "float32"),
    ],
)
def test_batches_are_int16_where_that_holds_every_number_else_float32(dtypes: set[str], expected: str) -> None:
    assert common_dtype(dtypes) == np.dtype(expected)


# Shards


def test_a_batch_holds_slices_of_several_cases_at_the_top_left_over_their_background(tmp_path: Path) -> None:
    first = case_of("a", labels_of(), flair=image(0, np.int16, 1, 99), t1=image(1, np.int16, 1, 99, background=-7))
    second = case_of("b", labels_of(), flair=image(2, np.int16, 1, 99), t1=image(3, np.int16, 1, 99))
    write_prepared(str(tmp_path), [first, second])
    shard = read_rows(str(tmp_path), [("b", 2), ("a", 0), ("b", 2)], ["t1", "flair"], (8, 6))
    batch = shard.slices
    assert batch.images.shape == (3, 2, 8, 6)
    assert batch.images.dtype == np.int16
    assert shard.labels.shape == (3, 8, 6)
    assert shard.labels.dtype == np.uint8
    assert batch.background.tolist() == [[0, 0], [-7, 0], [0, 0]]
    assert not batch.tolerance.any()
    for position, (case, row) in enumerate(((second, 2), (first, 0), (second, 2))):
        assert case.labels is not None
        expected = np.zeros((8, 6))
        expected[:5, :4] = case.labels[row]
        np.testing.assert_array_equal(shard.labels[position], expected)
        for channel, name in enumerate(("t1", "flair")):
            expected = np.full((8, 6), case.intensities[name].background)
            expected[:5, :4] = case.images[name][row]
            np.testing.assert_array_equal(batch.images[position, channel], expected)
            offset_scale = batch.offset[position, channel], batch.scale[position, channel]
            np.testing.assert_allclose(offset_scale, case.intensities[name].raw_offset_scale(), rtol=1e-6)
    assert batch.offset.dtype == batch.scale.dtype == batch.background.dtype == np.float32


def test_number_types_that_differ_between_cases_meet_without_loss(tmp_path: Path) -> None:
    cases = [
        case_of("a", labels_of(), flair=image(0, np.uint16, 1, 65535)),
        case_of("b", labels_of(), flair=image(1, np.int16, -32768, 32767)),
    ]
    write_prepared(str(tmp_path), cases)
    batch = read_rows(str(tmp_path), [("a", 0), ("b", 0)], ["flair"], (5, 4)).slices
    for position, case in enumerate(cases):
        np.testing.assert_array_equal(batch.images[position, 0], case.images["flair"][0].astype(np.float64))


@pytest.mark.parametrize("dtype", DTYPES)
def test_padding_is_recognised_as_background_whatever_the_number_type(dtype: str, tmp_path: Path) -> None:
    background = 0.1 if dtype.startswith("float") else 3
    write_prepared(str(tmp_path), [case_of("a", labels_of(), flair=image(0, dtype, 10, 99, background))])
    batch = read_rows(str(tmp_path), [("a", 0)], ["flair"], (7, 7)).slices
    is_background = batch.images[0, 0].astype(np.float32) == batch.background[0, 0]
    assert is_background.sum() == 7 * 7 - 5 * 4
    assert not is_background[:5, :4].any()


def test_a_batch_has_the_tolerance_of_every_image(tmp_path: Path) -> None:
    flair, t1 = image(0, np.float32, 10, 40.5), image(1, np.int16, 1, 99)
    write_prepared(str(tmp_path), [case_of("a", labels_of(), flair=flair, t1=t1)])
    batch = read_rows(str(tmp_path), [("a", 0), ("a", 2)], ["t1", "flair"], (7, 7)).slices
    np.testing.assert_array_equal(batch.tolerance, np.array([[0, 0.0405]] * 2, np.float32))


def test_a_batch_of_cases_without_segmentation_is_refused_by_name(tmp_path: Path) -> None:
    write_prepared(str(tmp_path), [case_of("a", flair=image(0, np.int16, 1, 99))])
    with pytest.raises(StorageError, match="case a has no segmentation to train on"):
        read_rows(str(tmp_path), [("a", 0)], ["flair"], (5, 4))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two prepared cases, "a" and "b"."""
    folder: Path = tmp_path_factory.mktemp("prepared")
    flair, t1ce = image(0, np.int16, 1, 99), image(1, np.int16, 1, 99)
    write_prepared(str(folder), [case_of(name, labels_of(), flair=flair, t1ce=t1ce) for name in ("a", "b")])
    return str(folder)


def test_the_shards_of_two_workers_are_the_planned_slices_in_order(prepared: str) -> None:
    data = training_set(prepared, ("flair", "t1ce"), (8, 6))
    shards = [data.read_shard(PLANNED, rank, 2) for rank in range(2)]
    assert [len(shard.labels) for shard in shards] == [1, 2]
    whole = data.read_shard(PLANNED, 0, 1)
    np.testing.assert_array_equal(np.concatenate([shard.labels for shard in shards]), whole.labels)
    joined = {
        field.name: np.concatenate([getattr(shard.slices, field.name) for shard in shards])
        for field in dataclasses.fields(SliceBatch)
    }
    assert_same_batch(SliceBatch(**joined), whole.slices)


def test_a_shard_says_where_it_stands_in_its_batch(prepared: str) -> None:
    shard = training_set(prepared, ("flair",), (8, 6)).read_shard(PLANNED, 1, 2)
    assert (shard.epoch, shard.step, shard.first, shard.n_global) == (3, 7, 1, 3)


def test_a_training_set_plans_and_fits_the_training_cases_of_a_split() -> None:
    rows: list[dict[str, Any]] = [
        {"case_id": "a", "split": "train", "height": 40, "width": 70, "tumour_per_slice": [0, 5]},
        {"case_id": "b", "split": "val", "height": 500, "width": 500, "tumour_per_slice": [3]},
        {"case_id": "c", "split": "train", "height": 65, "width": 10, "tumour_per_slice": [7]},
    ]
    data = TrainingSet.of(TrainConfig(out="run", modalities=("t1",)), "/prepared", rows)
    assert (data.prepared, data.inputs, data.size) == ("/prepared", InputSpec(modalities=("t1",)), (96, 96))
    assert [case.case_id for case in data.plan.cases] == ["a", "c"]


def test_the_requests_of_a_batch_overlap_and_open_each_case_once(long_cases: str, s3_proxy: FaultyProxy) -> None:
    rows = [("a", 1), ("b", 2), ("a", 3), ("b", 4), ("a", 5), ("b", 6)]
    s3_proxy.meet_next(2)  # the footers
    s3_proxy.meet_next(len(rows))
    batch = read_rows(long_cases, rows, ["flair", "t2"], (9, 8))
    assert s3_proxy.count() == len(rows) + 2
    assert s3_proxy.most_at_once == len(rows)
    assert s3_proxy.faults_left == 0
    for planes, (case_id, row) in zip(batch.slices.images, rows, strict=True):
        expected = open_slices(slices_path(long_cases, case_id)).read_slice(row, ["flair", "t2"])[0]
        np.testing.assert_array_equal(planes, expected)


def test_slices_in_s3_are_read_through_faults(long_cases: str, s3_proxy: FaultyProxy) -> None:
    s3_proxy.cut_next(2)
    s3_proxy.fail_next(2, status=503)
    s3_proxy.drop_next(1)
    rows = [("a", 1), ("b", 2), ("a", 149)]
    batch = read_rows(long_cases, rows, ["t1"], (9, 8))
    assert s3_proxy.faults_left == 0
    again = read_rows(long_cases, rows, ["t1"], (9, 8))
    assert_same_batch(batch.slices, again.slices)


# Rows for Ray


def through_arrow(row: dict[str, Any]) -> dict[str, pa.Scalar]:
    """The row as a worker finds it in a table."""
    table = pa.Table.from_pylist([row])
    return {name: table[name][0] for name in table.column_names}


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_shard_comes_back_from_its_row_bit_for_bit_and_may_be_written_to(dtype: npt.DTypeLike) -> None:
    random = np.random.default_rng(0)
    names = ("offset", "scale", "background", "tolerance")
    columns = {name: random.normal(size=(3, 2)).astype(np.float32) for name in names}
    images = random.normal(0, 1000, (3, 2, 8, 6)).astype(dtype)
    shard = WorkerBatch(
        epoch=3,
        step=7,
        first=1,
        n_global=5,
        slices=SliceBatch(images=images, **columns),
        labels=random.integers(0, 4, (3, 8, 6), np.uint8),
    )
    back = WorkerBatch.from_row(through_arrow(shard.to_row()))
    assert (back.epoch, back.step, back.first, back.n_global) == (3, 7, 1, 5)
    assert_same_batch(back.slices, shard.slices)
    assert back.labels.dtype == np.uint8
    np.testing.assert_array_equal(back.labels, shard.labels)
    arrays = [back.labels, *(getattr(back.slices, field.name) for field in dataclasses.fields(SliceBatch))]
    assert all(array.flags.writeable for array in arrays)


def test_a_row_has_its_arrays_as_plain_bytes(prepared: str) -> None:
    row = training_set(prepared, ("flair",), (8, 6)).read_shard(PLANNED, 0, 1).to_row()
    assert (row["dtype"], row["shape"]) == ("<i2", [3, 1, 8, 6])
    assert {name for name, value in row.items() if type(value) is bytes} == {
        *("images", "offset", "scale", "background", "tolerance", "labels")
    }
