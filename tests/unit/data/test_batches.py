"""Batches: what the network's channels are, a rank's shard read, and its row for Ray."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from brats.config import Plane, TrainConfig
from brats.data.batches import InputSpec, TrainingSet, WorkerBatch
from brats.data.dataset import slices_path
from brats.data.epoch import EpochPlan, PlannedBatch
from brats.data.planes import in_plane
from brats.data.slices import open_slices
from brats.data.stacks import SliceBatch
from brats.errors import StorageError
from tests.support.prepared import CONFIG, write_prepared
from tests.support.s3 import FaultyProxy
from tests.support.volumes import assert_same_batch, case_of, image, labels_of

DTYPES = ["int16", "uint8", "uint16", "int32", "float32", "float64"]
PLANNED = PlannedBatch(epoch=3, step=7, slices=(("a", 0), ("b", 1), ("a", 2)))


def training_set(
    prepared: str,
    modalities: Sequence[str],
    size: tuple[int, int],
    *,
    context: int = 0,
    plane: Plane = "axial",
) -> TrainingSet:
    inputs = InputSpec(modalities=tuple(modalities), context=context, plane=plane)
    return TrainingSet(prepared=prepared, plan=EpochPlan.of(CONFIG, []), inputs=inputs, size=size, shapes=())


def read_rows(
    prepared: str, rows: Sequence[tuple[str, int]], modalities: Sequence[str], size: tuple[int, int]
) -> WorkerBatch:
    """These slices as one batch of one worker."""
    planned = PlannedBatch(epoch=1, step=0, slices=tuple(rows))
    return training_set(prepared, modalities, size).read_shard(planned, 0, 1)


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
    plain = InputSpec(modalities=("t1ce", "flair"), divisor=16)
    rich = InputSpec(modalities=("t1ce", "t1"), plane="coronal", context=2, extra=("t1ce-t1", "foreground"))
    for inputs in (plain, rich):
        assert InputSpec.from_json(json.loads(json.dumps(asdict(inputs)))) == inputs


def test_neighbours_and_computed_channels_are_counted_too() -> None:
    config = TrainConfig(
        out="run", modalities=("t1", "t1ce"), context=1, extra_channels=("foreground", "t1ce-t1"), plane="sagittal"
    )
    inputs = InputSpec.of(config)
    assert (inputs.context, inputs.extra, inputs.plane) == (1, ("foreground", "t1ce-t1"), "sagittal")
    assert inputs.n_channels == 2 * 3 + 2
    assert list(inputs.steps) == [-1, 0, 1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"context": 3}, "context 3, where 0 to 2 are expected"),
        ({"context": -1}, "context -1, where 0 to 2 are expected"),
        ({"extra": ("t1ce-t1",)}, r"t1ce-t1 of the modalities \('t1', 'flair'\)"),
    ],
)
def test_an_input_that_contradicts_itself_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InputSpec(modalities=("t1", "flair"), **values)


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


def test_a_training_set_of_another_plane_has_the_shapes_and_counts_of_its_slices() -> None:
    row = {
        "case_id": "a",
        "split": "train",
        "height": 40,
        "width": 3,
        "tumour_per_slice": [1, 1],
        "tumour_per_coronal_slice": [0, 2, 0],
    }
    data = TrainingSet.of(TrainConfig(out="run", modalities=("t1",), plane="coronal"), "/prepared", [row])
    assert (data.shapes, data.size) == (((3, 2, 40),), (32, 64))
    assert data.plan.cases[0].tumour_per_slice == (0, 2, 0)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_volume_is_read_as_slices_of_the_plane(plane: Plane, tmp_path: Path) -> None:
    case = case_of("a", labels_of(), flair=image(0, np.int16, 1, 99), t1=image(1, np.int16, 1, 99))
    write_prepared(str(tmp_path), [case])
    volume = training_set(str(tmp_path), ["t1", "flair"], (8, 8), plane=plane).read_volume("a")
    for channel, name in enumerate(("t1", "flair")):
        np.testing.assert_array_equal(volume.images[channel], in_plane(case.images[name], plane))
    assert case.labels is not None
    np.testing.assert_array_equal(volume.labels, in_plane(case.labels, plane))


@pytest.mark.parametrize("context", [1, 2])
def test_neighbours_are_channels_beside_their_slice_and_background_beyond_the_ends(
    tmp_path: Path, context: int
) -> None:
    case = case_of("a", labels_of(), flair=image(0, np.int16, 1, 99), t1=image(1, np.int16, 1, 99, background=-7))
    write_prepared(str(tmp_path), [case])
    data = training_set(str(tmp_path), ["t1", "flair"], (8, 6), context=context)
    planned = PlannedBatch(epoch=1, step=0, slices=(("a", 0), ("a", 2), ("a", 1)))
    batch = data.read_shard(planned, 0, 1)
    depth = 2 * context + 1
    assert batch.slices.images.shape == (3, 2 * depth, 8, 6)
    assert batch.slices.background.tolist() == [[-7] * depth + [0] * depth] * 3
    for position, row in enumerate((0, 2, 1)):
        for channel, (name, step) in enumerate(itertools.product(("t1", "flair"), range(-context, context + 1))):
            expected = np.full((8, 6), case.intensities[name].background)
            if 0 <= row + step < 3:
                expected[:5, :4] = case.images[name][row + step]
            np.testing.assert_array_equal(batch.slices.images[position, channel], expected)
        assert case.labels is not None
        np.testing.assert_array_equal(batch.labels[position, :5, :4], case.labels[row])


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
