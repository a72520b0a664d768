"""The NIfTI format: what is read from good files, and what is said about bad ones."""

import errno
import gzip
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from brats import storage
from brats.data.nifti import MAX_FILE_BYTES, encode_nifti, read_nifti
from brats.errors import CaseError, StorageError
from brats.storage import FileInfo
from tests.support.fuzzing import mutations
from tests.support.nifti_files import base_file, difference, extension_of, fields_set, mutated_files

VOXELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
HEADER_BYTES = {1: 348, 2: 540}


def nifti(voxels: npt.NDArray[Any] = VOXELS, *, version: int = 1, byte_order: str = "<", **fields: Any) -> bytes:
    """An uncompressed file of these voxels, with header fields set to what a test wants of them."""
    header_type: Any = {1: nib.Nifti1Header, 2: nib.Nifti2Header}[version]
    header = header_type(endianness=byte_order)
    header.set_data_shape(voxels.shape)
    header.set_data_dtype(voxels.dtype)
    header["vox_offset"] = HEADER_BYTES[version] + 4
    header.set_sform(np.diag([1, 2, 3, 1]), code=1)
    numbers = voxels.astype(header.get_data_dtype()).tobytes(order="F")
    for field, value in fields.items():
        header[field] = value
    block: bytes = header.binaryblock
    return block + bytes(4) + numbers


def as_file(folder: Path, content: bytes) -> FileInfo:
    path = folder / "x_flair.nii.gz"
    path.write_bytes(content)
    return FileInfo(str(path), len(content))


def refusal(folder: Path, content: bytes) -> CaseError:
    """The error that reading this content gives. It must name the file and be final."""
    with pytest.raises(CaseError) as caught:
        read_nifti(as_file(folder, content))
    assert caught.value.path == str(folder / "x_flair.nii.gz")
    assert "\n" not in caught.value.reason
    return caught.value


def reason(folder: Path, content: bytes) -> str:
    error = refusal(folder, content)
    assert not error.transient
    return error.reason


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_numbers_come_back_in_their_own_type_and_native_bytes(
    tmp_path: Path, dtype: str, version: int, byte_order: str
) -> None:
    voxels = VOXELS.astype(dtype)
    content = nifti(voxels, version=version, byte_order=byte_order)
    stored, header = read_nifti(as_file(tmp_path, gzip.compress(content)))
    assert stored.dtype == np.dtype(dtype)
    assert stored.dtype.isnative
    np.testing.assert_array_equal(stored, voxels.ravel(order="F"))
    assert header.shape == (2, 3, 4)
    np.testing.assert_array_equal(header.affine, np.diag([1, 2, 3, 1]))


def test_compression_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    stored, _ = read_nifti(as_file(tmp_path, nifti()))
    np.testing.assert_array_equal(stored, VOXELS.ravel(order="F"))


def test_gzip_data_may_come_in_several_members(tmp_path: Path) -> None:
    content = nifti()
    members = [gzip.compress(content[start : start + 100]) for start in range(0, len(content), 100)]
    stored, _ = read_nifti(as_file(tmp_path, b"".join(members)))
    np.testing.assert_array_equal(stored, VOXELS.ravel(order="F"))


@pytest.mark.parametrize("last", [1, 99, 399])
def test_gzip_data_whose_last_member_is_damaged_or_truncated_are_refused(tmp_path: Path, last: int) -> None:
    first, second = (gzip.compress(part) for part in (nifti()[:-last], nifti()[-last:]))
    assert reason(tmp_path, first + second[:-1]).startswith("truncated: ")
    assert reason(tmp_path, first + second[:-8] + bytes(8)).startswith("damaged gzip data (")


def test_a_member_after_the_last_voxel_is_not_read(tmp_path: Path) -> None:
    stored, _ = read_nifti(as_file(tmp_path, gzip.compress(nifti()) + gzip.compress(b"more")[:-3]))
    np.testing.assert_array_equal(stored, VOXELS.ravel(order="F"))


@pytest.mark.parametrize("packed", [False, True])
def test_the_values_of_a_file_are_not_written_to(tmp_path: Path, packed: bool) -> None:
    stored, _ = read_nifti(as_file(tmp_path, gzip.compress(nifti()) if packed else nifti()))
    assert not stored.flags.writeable


@pytest.mark.parametrize("packed", [False, True])
def test_bytes_after_the_voxels_are_ignored(tmp_path: Path, packed: bool) -> None:
    content = nifti() + b"more"
    stored, _ = read_nifti(as_file(tmp_path, gzip.compress(content) if packed else content))
    np.testing.assert_array_equal(stored, VOXELS.ravel(order="F"))


def test_zeros_after_the_gzip_data_are_ignored(tmp_path: Path) -> None:
    stored, _ = read_nifti(as_file(tmp_path, gzip.compress(nifti()) + bytes(512)))
    np.testing.assert_array_equal(stored, VOXELS.ravel(order="F"))


def test_header_extensions_are_skipped(tmp_path: Path) -> None:
    content = nifti(vox_offset=352 + 32)
    stored, header = read_nifti(as_file(tmp_path, content[:352] + bytes(32) + content[352:]))
    assert header.offset == 384
    np.testing.assert_array_equal(stored, VOXELS.ravel(order="F"))


def test_trailing_axes_of_length_one_are_dropped(tmp_path: Path) -> None:
    _, header = read_nifti(as_file(tmp_path, nifti(VOXELS.reshape(2, 3, 4, 1, 1))))
    assert header.shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("slope", "inter", "expected"),
    [(2, -1, (2, -1)), (1, 0, (1, 0)), (0, 5, (1, 0)), (np.nan, np.nan, (1, 0)), (np.inf, 1, (1, 0))],
)
def test_a_slope_of_zero_or_none_means_no_scaling(
    tmp_path: Path, slope: float, inter: float, expected: tuple[float, float]
) -> None:
    _, header = read_nifti(as_file(tmp_path, nifti(scl_slope=slope, scl_inter=inter)))
    assert (header.slope, header.inter) == expected


def test_the_qform_counts_where_there_is_no_sform(tmp_path: Path) -> None:
    content = nifti(sform_code=0, qform_code=1, quatern_d=1, pixdim=[0, 1, 2, 3, 0, 0, 0, 0], qoffset_x=7)
    _, header = read_nifti(as_file(tmp_path, content))
    np.testing.assert_array_equal(header.affine, [[-1, 0, 0, 7], [0, -2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])
    assert header.geometry["pixdim"] == [1, 1, 2, 3, 0, 0, 0, 0]  # 0 stands for 1


def test_nan_in_geometry_fields_that_are_not_in_use_becomes_zero(tmp_path: Path) -> None:
    _, header = read_nifti(as_file(tmp_path, nifti(quatern_b=np.nan, qoffset_x=np.inf)))
    assert (header.geometry["quatern_b"], header.geometry["qoffset_x"]) == (0, 0)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    assert reason(tmp_path, b"") == "the file is empty"


@pytest.mark.parametrize("content", [b"<html>not found</html>", bytes(1000), b"junk"])
def test_a_file_that_is_no_nifti_is_refused_with_its_first_bytes(tmp_path: Path, content: bytes) -> None:
    expected = f"not a NIfTI file: it begins with {content[:8]!r}"
    assert reason(tmp_path, content) == expected
    assert reason(tmp_path, gzip.compress(content)) == expected


def test_a_truncated_file_says_how_much_is_missing(tmp_path: Path) -> None:
    assert reason(tmp_path, nifti()[:-10]) == "truncated: 10 of 400 bytes are missing"
    assert reason(tmp_path, gzip.compress(nifti()[:-10])) == "truncated: 10 of 400 bytes are missing"
    assert reason(tmp_path, nifti()[:300]) == "truncated: 48 of the 348 bytes of its header are missing"


def test_a_file_of_a_few_bytes_is_refused_as_too_short(tmp_path: Path) -> None:
    assert reason(tmp_path, b"xy") == "too short for a NIfTI file: 2 bytes"
    assert reason(tmp_path, gzip.compress(b"")) == "too short for a NIfTI file: 0 bytes"
    assert reason(tmp_path, gzip.compress(nifti())[:11]) == "too short for a NIfTI file: 0 bytes"


def test_a_truncated_gz_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 1000, (20, 20, 20), np.int16)
    content = gzip.compress(nifti(voxels))
    assert reason(tmp_path, content[: len(content) // 2]).startswith("truncated: ")
    assert reason(tmp_path, content[:-1]) == ("truncated: the checksum at the end of its gzip data is missing")
    for n_bytes in range(2, len(content), 97):
        reason(tmp_path, content[:n_bytes])


def test_damaged_gzip_data_are_refused(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(nifti()))
    content[-6] ^= 1
    assert reason(tmp_path, bytes(content)).startswith("damaged gzip data (")
    assert reason(tmp_path, b"\x1f\x8b" + bytes(range(100))).startswith("damaged gzip data (")


def test_a_pair_of_header_and_image_files_is_refused(tmp_path: Path) -> None:
    assert reason(tmp_path, nifti(magic=b"ni1")) == (
        "not a single NIfTI file (magic b'ni1'); convert .hdr/.img to .nii.gz"
    )


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 4, 5), "4-D with shape (2, 3, 4, 5), where one 3-D volume is expected"),
        ((2, 3), "2-D with shape (2, 3), where one 3-D volume is expected"),
    ],
)
def test_anything_but_one_3d_volume_is_refused(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    assert reason(tmp_path, nifti(np.zeros(shape, np.int16))) == message


@pytest.mark.parametrize("dim", [[3, 2, -3, 4, 1, 1, 1, 1], [3, 2, 0, 4, 1, 1, 1, 1], [0, 2, 3, 4, 1, 1, 1, 1]])
def test_an_impossible_shape_is_refused(tmp_path: Path, dim: list[int]) -> None:
    assert reason(tmp_path, nifti(dim=dim)) == f"impossible shape in its header (dim {dim})"


def test_a_number_of_axes_beyond_seven_says_that_the_bytes_are_in_the_other_order(tmp_path: Path) -> None:
    assert reason(tmp_path, nifti(dim=[8] * 8)) == f"impossible shape in its header (dim {[8 * 256] * 8})"


@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_claims_terabytes_is_refused_before_memory_is_taken(tmp_path: Path, packed: bool) -> None:
    content = nifti(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])
    with memory_below(2**20):
        assert reason(tmp_path, gzip.compress(content) if packed else content) == (
            "its header claims 30000 x 30000 x 30000 voxels; at most 134217728 are read"
        )


def test_a_header_that_claims_more_than_gzip_can_hold_is_refused_before_memory_is_taken(
    tmp_path: Path,
) -> None:
    content = gzip.compress(nifti(dim=[3, 500, 500, 500, 1, 1, 1, 1]), mtime=0)
    with memory_below(2**20):
        assert reason(tmp_path, content) == (
            f"its header claims 250000352 bytes, which {len(content)} of gzip cannot hold"
        )


def test_gzip_data_beyond_the_claimed_size_are_not_unpacked(tmp_path: Path) -> None:
    file = as_file(tmp_path, gzip.compress(nifti() + bytes(2**25)))
    with memory_below(2**20):
        read_nifti(file)


def test_gzip_members_beyond_the_claimed_size_are_not_unpacked(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 100, (2**6, 2**7, 2**7), np.uint8)
    file = as_file(tmp_path, gzip.compress(nifti(voxels)) + 32 * gzip.compress(bytes(2**20)))
    with memory_below(2**23):
        read_nifti(file)


def test_a_file_too_large_for_a_volume_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(storage, "read_bytes")
    with pytest.raises(CaseError, match=f"{MAX_FILE_BYTES + 1} bytes; a volume has {MAX_FILE_BYTES} at most"):
        read_nifti(FileInfo(str(tmp_path / "x.nii"), MAX_FILE_BYTES + 1))


@pytest.mark.parametrize("offset", [0, 100, 351, -1, np.nan, np.inf, -np.inf])
def test_an_impossible_offset_is_refused(tmp_path: Path, offset: float) -> None:
    expected = f"impossible vox_offset {offset:g} in its header; 352 is the least"
    assert reason(tmp_path, nifti(vox_offset=offset)) == expected


def test_a_fraction_of_the_offset_is_dropped(tmp_path: Path) -> None:
    assert read_nifti(as_file(tmp_path, nifti(vox_offset=352.5)))[1].offset == 352


def test_an_offset_beyond_all_headers_is_refused(tmp_path: Path) -> None:
    assert reason(tmp_path, nifti(vox_offset=2**40)) == (
        "its header claims 1099511627776 bytes for itself; at most 16777216 are read"
    )


@pytest.mark.parametrize("size", [0, 7, -8, 48, 2**31 - 1])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_an_extension_that_does_not_end_before_the_voxels_is_refused(
    tmp_path: Path, byte_order: str, size: int
) -> None:
    base = base_file(1, byte_order, "u1", "s", extension_of(byte_order, size))
    assert reason(tmp_path, base.content()) == f"impossible size {size} of a header extension at byte 352"


def test_extensions_of_any_size_that_fit_are_skipped(tmp_path: Path) -> None:
    for size in (8, 24, 32):
        content = base_file(2, ">", "i2", "s", extension_of(">", size) + 64 * extension_of(">")).content()
        if size == 32:
            assert read_nifti(as_file(tmp_path, content))[1].offset == 544 + 65 * 32
        assert difference(content, tmp_path) == ""


REPAIRED: dict[str, dict[str, Any]] = {
    "a negative voxel size": {"pixdim_1": -1},
    "negative voxel sizes": {"pixdim_1": -1, "pixdim_2": -2, "pixdim_3": -3},
    "voxel sizes of 0": {"pixdim_2": 0, "pixdim_3": 0},
    "a handedness of 0": {"pixdim_0": 0},
    "a handedness of -1": {"pixdim_0": -1},
    "another handedness": {"pixdim_0": 2.5},
    "a handedness that is no number": {"pixdim_0": np.nan},
    "an unknown sform code": {"sform_code": 6},
    "a negative sform code": {"sform_code": -1},
    "an unknown qform code": {"qform_code": 1000},
    "unknown codes": {"sform_code": 99, "qform_code": 99},
    "bits that do not fit the type": {"bitpix": 3},
}


@pytest.mark.parametrize("forms", ["s", "q", "sq", ""])
@pytest.mark.parametrize(("version", "byte_order"), [(1, "<"), (1, ">"), (2, "<"), (2, ">")])
@pytest.mark.parametrize("repaired", REPAIRED)
def test_a_header_that_nibabel_repairs_has_nibabels_affine(
    tmp_path: Path, repaired: str, version: int, byte_order: str, forms: str
) -> None:
    content = fields_set(base_file(version, byte_order, "u1", forms), **REPAIRED[repaired])
    _, header = read_nifti(as_file(tmp_path, content))
    path = tmp_path / "x.nii"
    path.write_bytes(content)
    image: Any = nib.load(path)
    np.testing.assert_array_equal(header.affine, image.affine)
    written: Any = nib.load(
        _write(tmp_path / "mask.nii.gz", encode_nifti(VOXELS.astype(np.uint8), header.geometry))
    )
    np.testing.assert_array_equal(written.affine, image.affine)
    np.testing.assert_array_equal(nib.io_orientation(written.affine), nib.io_orientation(image.affine))
    assert difference(content, tmp_path) == ""


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("size", [0, 540, -1])
def test_a_nifti_1_file_is_known_by_its_magic_whatever_the_size_of_its_header(tmp_path: Path, size: int) -> None:
    content = nifti(sizeof_hdr=size)
    _, header = read_nifti(as_file(tmp_path, content))
    assert header.geometry["sizeof_hdr"] == 348
    assert difference(content, tmp_path) == ""


def test_repairs_are_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(1, "nibabel.global"):
        read_nifti(as_file(tmp_path, nifti(pixdim=[0, -1, 2, 3, 0, 0, 0, 0], sform_code=77, bitpix=1)))
    assert not caplog.records


NO_MAGIC = (
    "not a NIfTI file: it begins with b'\\\\\\x01\\x00\\x00\\x00\\x00\\x00\\x00' and has the magic b'n+3\\x00'"
)
NO_EOL = "impossible header (EOL check not 0 or 13, 10, 26, 10; data may be corrupted by EOL conversion)"
CIFTI = "a CIFTI-2 file (intent code 3001), where one 3-D volume is expected"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"magic": b"n+3"}, NO_MAGIC),
        ({"version": 2, "eol_check": 7}, NO_EOL),
        ({"version": 2, "intent_code": 3001}, CIFTI),
    ],
)
def test_what_nibabel_refuses_is_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    content = nifti(**fields)
    assert reason(tmp_path, content) == message
    (tmp_path / "x.nii").write_bytes(content)
    with pytest.raises((ImageFileError, HeaderDataError, ValueError)):
        nib.load(tmp_path / "x.nii")


def test_an_axis_of_more_voxels_than_tables_count_is_refused(tmp_path: Path) -> None:
    content = nifti(np.zeros((1, 1, 32768), np.uint8), version=2)
    assert reason(tmp_path, content) == "shape 1 x 1 x 32768; an axis has 32767 voxels at most"


def test_a_surface_of_freesurfer_is_refused(tmp_path: Path) -> None:
    content = nifti(dim=[3, 27307, 1, 6, 1, 1, 1, 1])
    assert reason(tmp_path, content) == ("shape 27307 x 1 x 6 stands for a surface of FreeSurfer, not for a volume")


@settings(mutations(250))
@given(mutated_files())
def test_a_mutated_file_is_read_as_nibabel_reads_it_or_refused_in_one_line(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        assert difference(content, Path(folder)) == ""


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (128, "NIfTI data type 128; integers or floats of at most 64 bits are expected"),  # RGB
        (32, "NIfTI data type 32; integers or floats of at most 64 bits are expected"),  # complex
        (
            1536,
            "NIfTI data type 1536; integers or floats of at most 64 bits are expected",
        ),  # float of 128 bits
        (77, "unknown NIfTI data type 77"),
    ],
)
def test_voxels_that_are_no_plain_numbers_are_refused(tmp_path: Path, code: int, message: str) -> None:
    assert reason(tmp_path, nifti(datatype=code)) == message


def test_an_impossible_intercept_is_refused(tmp_path: Path) -> None:
    assert reason(tmp_path, nifti(scl_slope=1, scl_inter=np.inf)) == "impossible scl_inter inf in its header"


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e7, 1e38])
def test_an_affine_that_is_not_finite_or_absurd_is_refused(tmp_path: Path, value: float) -> None:
    assert reason(tmp_path, nifti(srow_x=[1, 0, 0, value])).startswith(
        "its affine is not finite, or exceeds 1 km: [[1.0, 0.0, 0.0, "
    )


@pytest.mark.parametrize("srow_x", [[0, 0, 0, 5], [0, 2, 0, 0], [1e-4, 0, 0, 0]])
def test_a_singular_affine_is_refused(tmp_path: Path, srow_x: list[float]) -> None:
    assert reason(tmp_path, nifti(srow_x=srow_x)).startswith(
        "its affine is singular: an axis has no length, or its axes are not independent: [["
    )


@pytest.mark.parametrize("fields", [{"quatern_b": 2}, {"quatern_b": 1e38}])
def test_an_impossible_qform_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    content = nifti(sform_code=0, qform_code=1, **fields)
    assert reason(tmp_path, content).startswith("impossible qform in its header (")


@pytest.mark.parametrize(("code", "unit"), [(1, "metres"), (3, "micrometres")])
def test_other_units_than_mm_are_refused(tmp_path: Path, code: int, unit: str) -> None:
    assert reason(tmp_path, nifti(xyzt_units=code + 8)) == (
        f"its header gives lengths in {unit}, where mm are expected"
    )


def test_a_missing_file_is_a_passing_error(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="cannot read it: no longer there") as caught:
        read_nifti(FileInfo(str(tmp_path / "x.nii.gz"), 100))
    assert caught.value.transient


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "x_flair.nii.gz"
    folder.mkdir()
    with pytest.raises(CaseError) as caught:
        read_nifti(FileInfo(str(folder), 4096))
    assert str(caught.value) == f"{folder}: cannot read: Is a directory"


def test_a_read_error_half_way_is_a_passing_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("brats.storage.files.open", fail, raising=False)
    error = refusal(tmp_path, nifti())
    assert error.reason == "cannot read: Input/output error"
    assert error.transient


def test_an_error_of_the_storage_is_a_passing_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> bytes:
        raise StorageError(f"{path}: cannot read: connection reset")

    monkeypatch.setattr(storage, "read_bytes", fail)
    error = refusal(tmp_path, nifti())
    assert error.reason == "cannot read: connection reset"
    assert error.transient


def test_fewer_bytes_than_listed_are_a_passing_error(tmp_path: Path) -> None:
    file = as_file(tmp_path, nifti()[:200])
    with pytest.raises(CaseError, match="cannot read it: 200 of 400 bytes came back") as caught:
        read_nifti(FileInfo(file.path, 400))
    assert caught.value.transient


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_an_encoded_file_has_the_geometry_of_the_other(tmp_path: Path, version: int, byte_order: str) -> None:
    source = nifti(
        version=version,
        byte_order=byte_order,
        descrip=b"patient 7",
        qform_code=2,
        quatern_d=1,
        qoffset_y=239,
        sform_code=4,
        srow_x=[-1, 0, 0, 0.1],
        xyzt_units=10,
        pixdim=[-1, 1, 2, 3, 9, 0, 0, 0],
        scl_slope=3,
    )
    _, header = read_nifti(as_file(tmp_path, source))
    mask = (VOXELS % 4).astype(np.uint8)
    encoded = encode_nifti(mask, header.geometry)
    stored, own_header = read_nifti(as_file(tmp_path, encoded))
    np.testing.assert_array_equal(stored.reshape(2, 3, 4, order="F"), mask)
    assert own_header.geometry == header.geometry
    assert own_header.affine == header.affine
    assert own_header.dtype == np.uint8
    assert (own_header.slope, own_header.inter) == (1, 0)


def test_an_encoded_file_is_read_alike_by_nibabel_and_holds_no_text(tmp_path: Path) -> None:
    source = nifti(descrip=b"patient 7", aux_file=b"scan", intent_name=b"who", db_name=b"where")
    _, header = read_nifti(as_file(tmp_path, source))
    mask = (VOXELS % 4).astype(np.uint8)
    encoded = encode_nifti(mask, header.geometry)
    image = nib.Nifti1Image.from_bytes(gzip.decompress(encoded))
    np.testing.assert_array_equal(np.asarray(image.dataobj), mask)
    assert image.get_data_dtype() == np.uint8
    own_header = nib.Nifti1Header(gzip.decompress(encoded)[:348])
    assert (own_header["scl_slope"], own_header["scl_inter"]) == (1, 0)
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        assert image.header[field].item() == b""


def test_encoding_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    _, header = read_nifti(as_file(tmp_path, nifti()))
    mask = (VOXELS % 4).astype(np.uint8)
    encoded = encode_nifti(mask, header.geometry)
    assert encoded == encode_nifti(mask, header.geometry)
    assert encoded[4:8] == bytes(4)  # the time in the gzip header
