"""Prepared cases: exact through Parquet, and readable by anybody."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brats import storage
from brats.data import slices
from brats.data.case import Array, Case
from brats.data.cases import find_cases
from brats.data.dataset import slices_path
from brats.data.planes import COUNT_COLUMNS
from brats.data.preprocess import read_case
from brats.data.slices import SliceFile, encode_case, from_planes, to_planes
from brats.data.sources import source_bytes
from brats.errors import StorageError
from brats.labels import ED, ET, NCR, Labels
from brats.storage import FileInfo
from tests.support.s3 import FaultyProxy
from tests.support.volumes import SHAPE, assert_same_case, case_of, image, labels_of

DTYPES = ["int16", "uint8", "uint16", "int32", "float32", "float64"]


def write(prepared: str, case: Case) -> str:
    path = slices_path(prepared, case.case_id)
    storage.write_bytes(path, encode_case(case)[0])
    return path


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
    assert_same_case(case, back)
    outside = np.ones(SHAPE, bool)
    outside[back.source_box.slices()] = False
    whole = back.on_source_grid(back.images["flair"])
    np.testing.assert_array_equal(np.where(outside, background, whole), voxels)
    assert back.labels is not None
    np.testing.assert_array_equal(back.on_source_grid(back.labels), labels)


def test_a_case_without_segmentation_comes_back_without(tmp_path: Path) -> None:
    case = case_of(flair=image(0, np.int16, 1, 99))
    file = SliceFile(write(str(tmp_path), case))
    assert not file.labelled
    assert_same_case(case, file.read_case())


def test_a_case_without_tumour_is_labelled_all_the_same(tmp_path: Path) -> None:
    case = case_of(labels=labels_of(0, 0, 0), flair=image(0, np.int16, 1, 99))
    file = SliceFile(write(str(tmp_path), case))
    assert file.labelled
    assert_same_case(case, file.read_case())


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
    assert_same_case(case, file.read_case())
    np.testing.assert_array_equal(file.read_slice(1, ["t1"])[0][0], case.images["t1"][1])


def test_opening_a_case_in_s3_is_one_request_and_so_is_each_slice(long_cases: str, s3_proxy: FaultyProxy) -> None:
    file = SliceFile(slices_path(long_cases, "a"))
    assert [request.method for request in s3_proxy.log] == ["GET"]
    s3_proxy.forget()
    whole = file.read_case()
    assert [request.method for request in s3_proxy.log] == ["GET"]
    for row, modalities in ((3, ["flair", "t1", "t1ce", "t2"]), (149, ["flair"]), (0, ["t2", "t1"])):
        s3_proxy.forget()
        images, labels = file.read_slice(row, modalities)
        assert [request.method for request in s3_proxy.log] == ["GET"]
        for name, plane in zip(modalities, images, strict=True):
            np.testing.assert_array_equal(plane, whole.images[name][row])
        assert labels is not None
        assert labels.all()


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


@pytest.mark.parametrize("labels", [labels_of(), None])
def test_a_case_of_before_planes_were_counted_is_read(
    labels: Labels | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of(labels=labels, flair=image(0, np.int16, 1, 99))
    _, *later = COUNT_COLUMNS
    before = {name: value for name, value in case.describe().items() if name not in later}
    monkeypatch.setattr(Case, "describe", lambda _: before)
    file = SliceFile(write(str(tmp_path), case))
    assert file.description == json.loads(json.dumps(before))
    assert_same_case(case, file.read_case())


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


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"warnings": {}}, "warnings is '{}'"),
        ({"modalities": {"flair": 1}}, "modalities is "),
        ({"tissues": {"ncr": 1, "ed": 2}}, "no voxels of et are counted"),
        ({"tissues": None, "tumour_per_slice": "none"}, "per_slice is "),
        ({"et_per_slice": [0, -1, 0]}, "a slice has -1 voxels of tumour"),
    ],
)
def test_a_description_that_the_table_of_cases_cannot_hold_is_named(
    changed: dict[str, Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of(labels=labels_of(), flair=image(0, np.int16, 1, 99))
    described = {**json.loads(json.dumps(encode_case(case)[1])), **changed}
    monkeypatch.setattr(Case, "describe", lambda _: described)
    path = write(str(tmp_path), case)
    with pytest.raises(StorageError, match=rf"case\.parquet: damaged \([^\n]*{reason}[^\n]*\); remove it"):
        SliceFile(path)


def test_another_schema_version_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    newer = dataclasses.replace(slices.PREPARED_CASE, version=7)
    monkeypatch.setattr(slices, "PREPARED_CASE", newer)
    path = write(str(tmp_path), case_of(flair=image(0, np.int16, 1, 99)))
    monkeypatch.undo()
    with pytest.raises(StorageError, match=r"case\.parquet: 'prepared case' of version 7, this program reads 2"):
        SliceFile(path)


def test_a_table_that_is_not_a_prepared_case_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "x.parquet")
    kind = storage.TableKind(name="other", schema=pa.schema([("a", pa.int64())]))
    storage.write_table(path, kind, kind.table([{"a": 1}]))
    with pytest.raises(StorageError, match=r"x\.parquet: a table of the kind 'other', where 'prepared case'"):
        SliceFile(path)


@pytest.mark.parametrize("case_id", ["../../elsewhere", "/etc/x", ".hidden", "", "a/b", "a" * 201, "a\n"])
def test_a_case_id_in_a_file_that_leads_elsewhere_is_refused(case_id: str, tmp_path: Path) -> None:
    case = case_of(case_id, flair=image(0, np.int16, 1, 9))
    (tmp_path / "x.parquet").write_bytes(encode_case(case)[0])
    with pytest.raises(StorageError, match=r"x\.parquet: .* cannot name a file; prepare the case again"):
        SliceFile(str(tmp_path / "x.parquet"))


# Real cases


@pytest.mark.real
def test_real_cases_come_back_bit_for_bit_from_files_no_larger_than_the_source(
    real_data_dir: str, tmp_path: Path
) -> None:
    cases = find_cases(real_data_dir).cases
    assert len(cases) == 12
    prepared_bytes = bytes_read = 0
    for files in cases:
        path = write(str(tmp_path), read_case(files, tuple(files.images)))
        case = SliceFile(path).read_case()
        for name, file in files.images.items():
            source = stored_numbers(file)
            np.testing.assert_array_equal(case.on_source_grid(case.images[name]), source)
            assert case.images[name].dtype == source.dtype
        assert case.labels is not None
        assert files.segmentation is not None
        labels_of_codes = np.array([0, NCR, ED, 255, ET], np.uint8)
        expected = labels_of_codes[stored_numbers(files.segmentation).astype(np.uint8)]
        np.testing.assert_array_equal(case.on_source_grid(case.labels), expected)
        prepared_bytes += Path(path).stat().st_size
        bytes_read += source_bytes(case.sources)
        Path(path).unlink()
    assert prepared_bytes <= bytes_read


def stored_numbers(file: FileInfo) -> Array:
    """The numbers in a NIfTI file, in its own axes and number type, as nibabel reads them."""
    loaded = nib.load(file.path)
    assert isinstance(loaded, nib.Nifti1Image)
    return np.asanyarray(loaded.dataobj)
