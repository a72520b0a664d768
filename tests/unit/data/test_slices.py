"""Prepared cases: exact through Parquet, readable by anybody, and batches of slices of several cases."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brats import storage
from brats.data import slices
from brats.data.batches import common_dtype
from brats.data.case import Case
from brats.data.cases import CaseFiles, find_cases
from brats.data.dataset import case_row, slices_path
from brats.data.preprocess import crop_case, read_case
from brats.data.slices import SliceFile, encode_case, from_planes, open_slices, padded_size, read_batch, to_planes
from brats.data.volume import Grid, Volume, from_ras
from brats.errors import StorageError
from brats.labels import ED, ET, NCR, Labels
from brats.storage import FileInfo
from tests.support.s3 import FaultyProxy

Array = npt.NDArray[Any]

SHAPE = (9, 8, 7)
DTYPES = ["int16", "uint8", "uint16", "int32", "float32", "float64"]


def image(seed: int, dtype: npt.DTypeLike, low: float, high: float, background: float = 0) -> Array:
    """A volume whose inner 5 x 4 x 3 voxels are drawn from low to high, both of which occur."""
    voxels = np.full(SHAPE, background, dtype)
    inner = np.random.default_rng(seed).uniform(low, high, (5, 4, 3))
    inner[0, 0, :2] = (low, high)
    voxels[2:7, 3:7, 1:4] = inner.astype(dtype)
    return voxels


def labels_of(n_ncr: int = 1, n_ed: int = 2, n_et: int = 3) -> Labels:
    """So many voxels of each tissue, NCR in the first slice of the crop, ED in the second, ET in the third."""
    labels = np.zeros(SHAPE, np.uint8)
    for z, (n_voxels, label) in enumerate(((n_ncr, NCR), (n_ed, ED), (n_et, ET)), start=1):
        labels[3, 3 : 3 + n_voxels, z] = label
    return labels


def case_of(
    case_id: str = "case",
    labels: Labels | None = None,
    *,
    slope: float = 1.0,
    inter: float = 0.0,
    affine: Array | None = None,
    **images: Array,
) -> Case:
    rows = np.eye(4) if affine is None else affine
    grid = Grid(shape=SHAPE, affine=tuple(tuple(row) for row in rows.tolist()), header={"pixdim": [1.0, 0.1]})
    files = CaseFiles(
        case_id=case_id,
        patient_id=f"patient of {case_id}",
        layout="brats2018",
        images={name: FileInfo(f"{name}.nii", 100) for name in images},
        segmentation=FileInfo("seg.nii", 10),
        grade="LGG",
    )
    volumes = {name: Volume(voxels=voxels, slope=slope, inter=inter, grid=grid) for name, voxels in images.items()}
    return crop_case(files, volumes, labels)


def write(prepared: str, case: Case) -> str:
    path = slices_path(prepared, case.case_id)
    storage.write_bytes(path, encode_case(case)[0])
    return path


def same_case(one: Case, other: Case) -> None:
    """Assert that two cases agree in every value and every number type."""
    assert list(one.images) == list(other.images)
    for name, voxels in one.images.items():
        np.testing.assert_array_equal(other.images[name], voxels)
        assert other.images[name].dtype == voxels.dtype
    if one.labels is None:
        assert other.labels is None
    else:
        np.testing.assert_array_equal(np.asarray(other.labels), one.labels)
    for field in ("case_id", "patient_id", "layout", "grade", "grid", "box", "voxel_hash", "source_bytes"):
        assert getattr(other, field) == getattr(one, field)
    assert dict(other.intensities) == dict(one.intensities)


# Byte planes


def test_planes_hold_all_first_bytes_then_all_second_bytes() -> None:
    assert to_planes(np.array([[0x0102, 0x0304]], np.int16)) == bytes([0x02, 0x04, 0x01, 0x03])
    assert to_planes(np.array([0x0102], ">i2")) == bytes([0x02, 0x01])
    assert to_planes(np.array([1, 2, 3], np.uint8)) == bytes([1, 2, 3])


@pytest.mark.parametrize("dtype", [*DTYPES, "int8", ">i2", ">f4"])
def test_planes_turn_back_into_the_same_numbers(dtype: str) -> None:
    array = np.random.default_rng(0).integers(-100, 100, (3, 5)).astype(dtype)
    back = from_planes(to_planes(array), array.dtype.str, (3, 5))
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype.newbyteorder("<")


def test_planes_keep_special_floats_bit_for_bit() -> None:
    array = np.array([0.0, -0.0, 1e-45, 3.4e38, np.inf, np.nan], np.float32)
    assert from_planes(to_planes(array), "<f4", (6,)).tobytes() == array.tobytes()


def test_planes_of_a_view_that_is_not_contiguous_are_those_of_its_copy() -> None:
    array = np.arange(24, dtype=np.int16).reshape(4, 6)
    assert to_planes(array[::-1, ::2]) == to_planes(array[::-1, ::2].copy())


# Whole cases


@pytest.mark.parametrize(
    ("dtype", "low", "high", "background"),
    [
        ("int16", -32768, 32767, 0),
        ("uint8", 1, 255, 0),
        ("uint16", 40000, 65535, 0),
        ("uint16", 0, 60000, 65535),
        ("int32", -(2**31), 2**31 - 1, 7),
        ("float32", -1.5, 1e6, -3.25),
        ("float64", 1e-9, 1.0, 0),
    ],
)
@pytest.mark.parametrize("slope", [1.0, -0.25])
def test_crop_slices_parquet_and_back_is_the_identity(
    dtype: str, low: float, high: float, background: float, slope: float, tmp_path: Path
) -> None:
    voxels, labels = image(0, dtype, low, high, background), labels_of()
    case = case_of(labels=labels, slope=slope, inter=1000.0, flair=voxels, t1=image(1, np.int16, 1, 99))
    back = SliceFile(write(str(tmp_path), case)).read_case()
    same_case(case, back)
    np.testing.assert_array_equal(back.uncropped(back.images["flair"], background), voxels)
    assert back.labels is not None
    np.testing.assert_array_equal(back.uncropped(back.labels), labels)


def test_a_case_without_segmentation_comes_back_without(tmp_path: Path) -> None:
    case = case_of(flair=image(0, np.int16, 1, 99))
    file = SliceFile(write(str(tmp_path), case))
    assert not file.labelled
    same_case(case, file.read_case())


def test_a_case_without_tumour_is_labelled_all_the_same(tmp_path: Path) -> None:
    case = case_of(labels=labels_of(0, 0, 0), flair=image(0, np.int16, 1, 99))
    file = SliceFile(write(str(tmp_path), case))
    assert file.labelled
    same_case(case, file.read_case())


def test_only_the_modalities_asked_for_are_read_in_their_order(tmp_path: Path) -> None:
    case = case_of(labels=labels_of(), flair=image(0, np.int16, 1, 9), t1=image(1, np.uint8, 1, 9))
    back = SliceFile(write(str(tmp_path), case)).read_case(["t1"])
    assert list(back.images) == list(back.intensities) == ["t1"]
    np.testing.assert_array_equal(back.images["t1"], case.images["t1"])


def test_single_slices_are_those_of_the_case(tmp_path: Path) -> None:
    case = case_of(labels=labels_of(), flair=image(0, np.int16, 1, 9), t1=image(1, np.float32, 1, 9))
    file = SliceFile(write(str(tmp_path), case))
    for row in (2, 0, 1):
        (t1, flair), labels = file.read_slice(row, ["t1", "flair"])
        np.testing.assert_array_equal(t1, case.images["t1"][row])
        np.testing.assert_array_equal(flair, case.images["flair"][row])
        assert labels is not None
        assert case.labels is not None
        np.testing.assert_array_equal(labels, case.labels[row])
        assert flair.dtype == np.int16


def test_a_remote_case_reads_like_a_local_one(s3_bucket: str) -> None:
    case = case_of(labels=labels_of(), flair=image(0, np.int16, 1, 9), t1=image(1, np.float32, 1, 9))
    file = SliceFile(write(s3_bucket, case))
    same_case(case, file.read_case())
    np.testing.assert_array_equal(file.read_slice(1, ["t1"])[0][0], case.images["t1"][1])


@pytest.fixture
def many_slices(s3_bucket: str, s3_proxy: FaultyProxy) -> str:
    """A prepared dataset in S3 with two cases whose footers are of the size of real ones."""
    shape = (9, 8, 150)
    for number, case_id in enumerate(("a", "b")):
        voxels = np.random.default_rng(number).integers(1, 500, (4, *shape), np.int16)
        voxels[:, ::8, ::7, ::149] = 0  # the corners, which name the background
        labels = np.ones(shape, np.uint8)
        images = dict(zip(("flair", "t1", "t1ce", "t2"), voxels, strict=True))
        write(s3_bucket, case_of(case_id, labels, **images))
    s3_proxy.forget()
    open_slices.cache_clear()
    return s3_bucket


def test_opening_a_case_in_s3_is_one_request_and_so_is_each_slice(many_slices: str, s3_proxy: FaultyProxy) -> None:
    file = SliceFile(slices_path(many_slices, "a"))
    assert [request.method for request in s3_proxy.log] == ["GET"]
    s3_proxy.forget()
    whole = file.read_case()
    assert [request.method for request in s3_proxy.log] == ["GET"]
    for row, modalities in ((3, ["flair", "t1", "t1ce", "t2"]), (149, ["flair"]), (0, ["t2", "t1"])):
        s3_proxy.forget()
        images, labels = file.read_slice(row, modalities)
        assert [request.method for request in s3_proxy.log] == ["GET"]
        for name, image in zip(modalities, images, strict=True):
            np.testing.assert_array_equal(image, whole.images[name][row])
        assert labels is not None
        assert labels.all()


def test_the_requests_of_a_batch_overlap_and_open_each_case_once(many_slices: str, s3_proxy: FaultyProxy) -> None:
    rows = [("a", 1), ("b", 2), ("a", 3), ("b", 4), ("a", 5), ("b", 6)]
    s3_proxy.meet_next(2)  # the footers
    s3_proxy.meet_next(len(rows))
    batch = read_batch(many_slices, rows, ["flair", "t2"], (9, 8))
    assert s3_proxy.count() == len(rows) + 2
    assert s3_proxy.most_at_once == len(rows)
    assert s3_proxy.faults_left == 0
    for image, (case_id, row) in zip(batch.images, rows, strict=True):
        expected = open_slices(slices_path(many_slices, case_id)).read_slice(row, ["flair", "t2"])[0]
        np.testing.assert_array_equal(image, expected)


def test_slices_in_s3_are_read_through_faults(many_slices: str, s3_proxy: FaultyProxy) -> None:
    s3_proxy.cut_next(2)
    s3_proxy.fail_next(2, status=503)
    s3_proxy.drop_next(1)
    rows = [("a", 1), ("b", 2), ("a", 149)]
    batch = read_batch(many_slices, rows, ["t1"], (9, 8))
    assert s3_proxy.faults_left == 0
    again = read_batch(many_slices, rows, ["t1"], (9, 8))
    np.testing.assert_array_equal(batch.images, again.images)


# The files


def test_plain_pandas_reads_a_prepared_case(tmp_path: Path) -> None:
    case = case_of(labels=labels_of(), flair=image(0, np.uint8, 1, 99))
    frame = pd.read_parquet(write(str(tmp_path), case))
    assert frame.columns.tolist() == ["slice_index", "height", "width", "flair", "mask", "n_ncr", "n_ed", "n_et"]
    assert frame["slice_index"].tolist() == [1, 2, 3]  # z in the RAS+ volume
    assert frame[["n_ncr", "n_ed", "n_et"]].to_numpy().tolist() == [[1, 0, 0], [0, 2, 0], [0, 0, 3]]
    row = frame.iloc[2]
    assert case.labels is not None
    for column, expected in (("flair", case.images["flair"][2]), ("mask", case.labels[2])):
        shown = np.frombuffer(row[column], np.uint8).reshape(row["height"], row["width"])
        np.testing.assert_array_equal(shown, expected)


def test_an_unlabelled_case_has_null_masks_and_counts(tmp_path: Path) -> None:
    frame = pd.read_parquet(write(str(tmp_path), case_of(flair=image(0, np.uint8, 1, 99))))
    assert frame[["mask", "n_ncr", "n_ed", "n_et"]].isna().all().all()


def test_every_slice_is_a_row_group_of_its_own(tmp_path: Path) -> None:
    path = write(str(tmp_path), case_of(labels=labels_of(), flair=image(0, np.int16, 1, 99)))
    metadata = pq.ParquetFile(path).metadata
    assert [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)] == [1, 1, 1]
    assert metadata.row_group(0).column(3).compression == "ZSTD"


def test_the_same_case_gives_the_same_bytes() -> None:
    contents = {
        bytes(encode_case(case_of(labels=labels_of(), flair=image(0, np.int16, 1, 99)))[0]) for _ in range(2)
    }
    assert len(contents) == 1


def test_the_footer_says_what_encoding_returned(tmp_path: Path) -> None:
    case = case_of(labels=labels_of(), slope=2.0, inter=-5.0, flair=image(0, np.int16, 1, 99))
    content, description = encode_case(case)
    (tmp_path / "x.parquet").write_bytes(content)
    assert SliceFile(str(tmp_path / "x.parquet")).description == json.loads(json.dumps(description))


# Files that are not whole prepared cases


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SliceFile(str(tmp_path / "none.parquet"))


@pytest.mark.parametrize("n_kept", [0, 3, 500, -1])
def test_a_truncated_file_is_named_on_one_line(n_kept: int, tmp_path: Path) -> None:
    path = Path(write(str(tmp_path), case_of(labels=labels_of(), flair=image(0, np.int16, 1, 99))))
    path.write_bytes(path.read_bytes()[:n_kept])
    with pytest.raises(StorageError, match=r"case\.parquet: not a whole Parquet file \([^\n]*\); remove it"):
        SliceFile(str(path))


def test_damaged_slices_are_reported_when_they_are_read(tmp_path: Path) -> None:
    path = Path(write(str(tmp_path), case_of(labels=labels_of(), flair=image(0, np.float64, 1, 99))))
    content = bytearray(path.read_bytes())
    content[4:900] = b"\xff" * 896
    path.write_bytes(content)
    file = SliceFile(str(path))
    with pytest.raises(StorageError, match=r"case\.parquet: cannot read: "):
        file.read_slice(0, ["flair"])
    with pytest.raises(StorageError, match=r"case\.parquet: cannot read: "):
        file.read_case()


def test_another_schema_version_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    newer = dataclasses.replace(slices.PREPARED_CASE, version=7)
    monkeypatch.setattr(slices, "PREPARED_CASE", newer)
    path = write(str(tmp_path), case_of(flair=image(0, np.int16, 1, 99)))
    monkeypatch.undo()
    with pytest.raises(StorageError, match=r"case\.parquet: 'prepared case' of version 7, this program reads 1"):
        SliceFile(path)


def test_a_table_that_is_not_a_prepared_case_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "x.parquet")
    kind = storage.TableKind(name="other", schema=pa.schema([("a", pa.int64())]))
    storage.write_table(path, kind, kind.table([{"a": 1}]))
    with pytest.raises(StorageError, match=r"x\.parquet: a table of the kind 'other', where 'prepared case'"):
        SliceFile(path)


@pytest.mark.parametrize("case_id", ["../../elsewhere", "/etc/x", ".hidden", "", "a/b", "a" * 201, "a\n"])
def test_a_case_id_that_leads_elsewhere_is_refused(case_id: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot name a file; prepare the cases again"):
        slices_path(str(tmp_path), case_id)
    case = case_of(case_id, flair=image(0, np.int16, 1, 9))
    (tmp_path / "x.parquet").write_bytes(encode_case(case)[0])
    with pytest.raises(StorageError, match=r"x\.parquet: .* cannot name a file; prepare the case again"):
        SliceFile(str(tmp_path / "x.parquet"))


# Batches


def test_a_batch_holds_slices_of_several_cases_at_the_top_left_over_their_background(tmp_path: Path) -> None:
    first = case_of("a", labels_of(), flair=image(0, np.int16, 1, 99), t1=image(1, np.int16, 1, 99, background=-7))
    second = case_of("b", labels_of(), flair=image(2, np.int16, 1, 99), t1=image(3, np.int16, 1, 99))
    for case in (first, second):
        write(str(tmp_path), case)
    batch = read_batch(str(tmp_path), [("b", 2), ("a", 0), ("b", 2)], ["t1", "flair"], (8, 6))
    assert batch.images.shape == (3, 2, 8, 6)
    assert batch.images.dtype == np.int16
    assert batch.labels.shape == (3, 8, 6)
    assert batch.labels.dtype == np.uint8
    assert batch.background.tolist() == [[0, 0], [-7, 0], [0, 0]]
    for position, (case, row) in enumerate(((second, 2), (first, 0), (second, 2))):
        assert case.labels is not None
        expected = np.zeros((8, 6))
        expected[:5, :4] = case.labels[row]
        np.testing.assert_array_equal(batch.labels[position], expected)
        for channel, name in enumerate(("t1", "flair")):
            expected = np.full((8, 6), case.intensities[name].background)
            expected[:5, :4] = case.images[name][row]
            np.testing.assert_array_equal(batch.images[position, channel], expected)
            offset_scale = batch.offset[position, channel], batch.scale[position, channel]
            np.testing.assert_allclose(offset_scale, case.intensities[name].stored_offset_scale(), rtol=1e-6)
    assert batch.offset.dtype == batch.scale.dtype == batch.background.dtype == np.float32


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


def test_number_types_that_differ_between_cases_meet_without_loss(tmp_path: Path) -> None:
    write(str(tmp_path), case_of("a", labels_of(), flair=image(0, np.uint16, 1, 65535)))
    write(str(tmp_path), case_of("b", labels_of(), flair=image(1, np.int16, -32768, 32767)))
    batch = read_batch(str(tmp_path), [("a", 0), ("b", 0)], ["flair"], (5, 4))
    for position, case_id in enumerate(("a", "b")):
        stored = open_slices(slices_path(str(tmp_path), case_id)).read_case().images["flair"][0]
        np.testing.assert_array_equal(batch.images[position, 0], stored.astype(np.float64))


@pytest.mark.parametrize("dtype", DTYPES)
def test_padding_is_recognised_as_background_whatever_the_number_type(dtype: str, tmp_path: Path) -> None:
    background = 0.1 if dtype.startswith("float") else 3
    write(str(tmp_path), case_of("a", labels_of(), flair=image(0, dtype, 10, 99, background)))
    batch = read_batch(str(tmp_path), [("a", 0)], ["flair"], (7, 7))
    is_background = batch.images[0, 0].astype(np.float32) == batch.background[0, 0]
    assert is_background.sum() == 7 * 7 - 5 * 4
    assert not is_background[:5, :4].any()


def test_a_batch_of_cases_without_segmentation_is_refused_by_name(tmp_path: Path) -> None:
    write(str(tmp_path), case_of("a", flair=image(0, np.int16, 1, 99)))
    with pytest.raises(StorageError, match="case a has no segmentation to train on"):
        read_batch(str(tmp_path), [("a", 0)], ["flair"], (5, 4))


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
    assert padded_size(sizes, divisor) == expected


# Rows of the table of cases


def test_the_row_of_a_case_has_its_counts_and_volumes() -> None:
    affine = np.diag([1.0, 2.0, 5.0, 1.0])  # 10 cubic millimetres a voxel
    case = case_of("a", labels_of(1, 2, 3), affine=affine, flair=image(0, np.int16, 1, 99))
    row = case_row(json.loads(json.dumps(encode_case(case)[1])))
    assert (row["case_id"], row["patient_id"], row["grade"]) == ("a", "patient of a", "LGG")
    assert (row["n_voxels_ncr"], row["n_voxels_ed"], row["n_voxels_et"]) == (1, 2, 3)
    assert (row["volume_ml_wt"], row["volume_ml_tc"], row["volume_ml_et"]) == pytest.approx((0.06, 0.04, 0.03))
    assert row["tumour_per_slice"] == [1, 2, 3]
    assert (row["shape"], row["spacing_mm"]) == ([9, 8, 7], [1, 2, 5])
    assert (row["first_slice"], row["n_slices"], row["height"], row["width"]) == (1, 3, 5, 4)
    assert (row["modalities"], row["source_bytes"]) == (["flair"], 110)


def test_the_row_of_an_unlabelled_case_has_nulls_where_the_reference_would_count() -> None:
    row = case_row(encode_case(case_of(flair=image(0, np.int16, 1, 99)))[1])
    missing = [name for name, value in row.items() if value is None]
    assert missing == [
        *("n_voxels_ncr", "n_voxels_ed", "n_voxels_et"),
        *("volume_ml_wt", "volume_ml_tc", "volume_ml_et"),
        "tumour_per_slice",
    ]


def test_the_row_of_a_case_without_tumour_has_zeros() -> None:
    row = case_row(encode_case(case_of(labels=labels_of(0, 0, 0), flair=image(0, np.int16, 1, 99)))[1])
    assert (row["n_voxels_et"], row["volume_ml_wt"], row["tumour_per_slice"]) == (0, 0, [0, 0, 0])


# Real cases


@pytest.mark.real
def test_real_cases_come_back_bit_for_bit_from_files_no_larger_than_the_source(
    real_data_dir: str, tmp_path: Path
) -> None:
    cases = find_cases(real_data_dir).cases
    assert len(cases) == 12
    prepared_bytes = source_bytes = 0
    for files in cases:
        path = write(str(tmp_path), read_case(files, tuple(files.images)))
        case = SliceFile(path).read_case()
        for name, file in files.images.items():
            source = stored_numbers(file)
            np.testing.assert_array_equal(from_ras(case.uncropped(case.images[name]), case.grid), source)
            assert case.images[name].dtype == source.dtype
        assert case.labels is not None
        assert files.segmentation is not None
        labels_of_codes = np.array([0, NCR, ED, 255, ET], np.uint8)
        expected = labels_of_codes[stored_numbers(files.segmentation).astype(np.uint8)]
        np.testing.assert_array_equal(from_ras(case.uncropped(case.labels), case.grid), expected)
        prepared_bytes += Path(path).stat().st_size
        source_bytes += case.source_bytes
        Path(path).unlink()
    assert prepared_bytes <= source_bytes


def stored_numbers(file: FileInfo) -> Array:
    """The numbers in a NIfTI file, in its own axes and number type, as nibabel reads them."""
    loaded = nib.load(file.path)
    assert isinstance(loaded, nib.Nifti1Image)
    return np.asanyarray(loaded.dataobj)
