"""The MetaImage format: what is read from good files, and what is said about bad ones."""

import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brats.data.mha import LINES, encode_mha, read_mha
from brats.data.nifti import MAX_FILE_BYTES, encode_nifti
from brats.errors import CaseError
from brats.storage import FileInfo
from tests.support.mha_files import TYPES, mha

VOXELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
MASK = (VOXELS % 4).astype(np.uint8)


def as_file(folder: Path, content: bytes) -> FileInfo:
    path = folder / "VSD.Brain.XX.O.MR_Flair.684.mha"
    path.write_bytes(content)
    return FileInfo(str(path), len(content))


def reason(folder: Path, content: bytes) -> str:
    """What is said of a file that is refused for good."""
    file = as_file(folder, content)
    with pytest.raises(CaseError) as caught:
        read_mha(file)
    assert caught.value.path == file.path
    assert not caught.value.transient
    assert "\n" not in caught.value.reason
    return caught.value.reason


@pytest.mark.parametrize("big_endian", ["True", "False"])
@pytest.mark.parametrize("dtype", TYPES)
def test_numbers_come_back_in_their_own_type_and_native_bytes(tmp_path: Path, dtype: str, big_endian: str) -> None:
    voxels = VOXELS.astype(dtype)
    stored, header = read_mha(as_file(tmp_path, mha(voxels, BinaryDataByteOrderMSB=big_endian)))
    assert stored.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(stored, voxels.ravel(order="F"))
    assert header.shape == (2, 3, 4)
    assert (header.slope, header.inter) == (1, 0)


def test_positions_turn_from_lps_to_ras(tmp_path: Path) -> None:
    content = mha(VOXELS, Offset="10 -20 30", ElementSpacing="1 2 3")
    _, header = read_mha(as_file(tmp_path, content))
    np.testing.assert_array_equal(header.affine, [[-1, 0, 0, -10], [0, -2, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]])


def test_each_row_of_the_transform_is_the_direction_of_one_axis(tmp_path: Path) -> None:
    content = mha(VOXELS, TransformMatrix="0 0 1 1 0 0 0 1 0", ElementSpacing="2 3 4")
    _, header = read_mha(as_file(tmp_path, content))
    np.testing.assert_array_equal(  # the first axis runs to the head, the second to the left, the third to the back
        header.affine, [[0, -3, 0, 0], [0, 0, -4, 0], [2, 0, 0, 0], [0, 0, 0, 1]]
    )


@pytest.mark.parametrize(
    "lines",
    [
        {"Offset": None, "Position": "1 2 3"},
        {"Offset": None, "Origin": "1 2 3"},
        {"TransformMatrix": None, "Rotation": "0 1 0 1 0 0 0 0 1"},
        {"BinaryDataByteOrderMSB": None, "ElementByteOrderMSB": "False"},
        {"CenterOfRotation": None, "AnatomicalOrientation": None, "CompressedData": None},
    ],
)
def test_older_names_of_keys_mean_the_same(tmp_path: Path, lines: dict[str, str | None]) -> None:
    newer = {
        "Position": "Offset",
        "Origin": "Offset",
        "Rotation": "TransformMatrix",
        "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
    }
    same = {newer.get(key, key): value for key, value in lines.items() if value is not None}
    stored, header = read_mha(as_file(tmp_path, mha(VOXELS, **lines)))
    np.testing.assert_array_equal(stored, VOXELS.ravel(order="F"))
    assert header.affine == read_mha(as_file(tmp_path, mha(VOXELS, **same)))[1].affine


def test_a_nifti_file_of_the_geometry_lies_on_the_same_grid(tmp_path: Path) -> None:
    content = mha(VOXELS, TransformMatrix="0.8 0.6 0 -0.6 0.8 0 0 0 1", Offset="1 2 3", ElementSpacing="0.5 2 3")
    _, header = read_mha(as_file(tmp_path, content))
    (tmp_path / "mask.nii.gz").write_bytes(encode_nifti(MASK, header.geometry))
    image = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(image.affine, header.affine)
    np.testing.assert_allclose(image.header.get_qform(), header.affine, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(image.dataobj), MASK)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_sheared_axes_have_no_qform(tmp_path: Path) -> None:
    _, header = read_mha(as_file(tmp_path, mha(VOXELS, TransformMatrix="1 0 0 0.5 1 0 0 0 1")))
    assert (header.geometry["qform_code"], header.geometry["sform_code"]) == (0, 1)
    assert header.affine[0][1] == -0.5


def test_an_encoded_mask_keeps_the_lines_of_the_geometry_to_the_letter_and_no_text(tmp_path: Path) -> None:
    own = {"Offset": "0 -239.000 0", "ElementSpacing": "1.0 1 1.000", "Comment": "patient 7"}
    _, header = read_mha(as_file(tmp_path, mha(VOXELS, **own)))
    encoded = encode_mha(MASK, header.geometry)
    assert b"\nOffset = 0 -239.000 0\n" in encoded
    assert b"\nElementSpacing = 1.0 1 1.000\n" in encoded
    assert b"patient" not in encoded
    stored, own_header = read_mha(as_file(tmp_path, encoded))
    np.testing.assert_array_equal(stored.reshape(2, 3, 4, order="F"), MASK)
    assert own_header.dtype == np.uint8
    assert own_header.geometry == header.geometry
    assert own_header.affine == header.affine


def test_a_file_in_other_bytes_and_line_ends_gives_a_mask_in_one_form(tmp_path: Path) -> None:
    text, voxels = mha(VOXELS, BinaryDataByteOrderMSB="True").split(b"LOCAL\n", 1)
    stored, header = read_mha(as_file(tmp_path, text.replace(b"\n", b"\r\n") + b"LOCAL\r\n" + voxels))
    np.testing.assert_array_equal(stored, VOXELS.ravel(order="F"))
    encoded = encode_mha(MASK, header.geometry)
    assert b"\r" not in encoded[:-24]
    assert b"BinaryDataByteOrderMSB = False\n" in encoded
    assert header.geometry[LINES]["DimSize"] == "2 3 4"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"ObjectType": "Tube"}, "ObjectType = 'Tube' in its header; an image is expected"),
        ({"NDims": "4"}, "NDims = '4' in its header; one 3-D volume is expected"),
        ({"BinaryData": "False"}, "BinaryData = 'False' in its header; save it as binary data"),
        ({"CompressedData": "True"}, "CompressedData = 'True' in its header; save it without compression"),
        (
            {"ElementDataFile": "x.raw"},
            "ElementDataFile = 'x.raw' in its header; its voxels are in another file: save both as one .mha file",
        ),
        (
            {"ElementNumberOfChannels": "3"},
            "ElementNumberOfChannels = '3' in its header; one value for each voxel is expected",
        ),
        ({"HeaderSize": "-1"}, "HeaderSize = '-1' in its header; voxels are read from the end of the header on"),
        ({"DistanceUnits": "cm"}, "DistanceUnits = 'cm' in its header; lengths in mm are expected"),
        ({"DimSize": "2 3"}, "DimSize = '2 3' in its header; three sizes are expected"),
        ({"DimSize": "2 3 0"}, "DimSize = '2 3 0' in its header; three sizes are expected"),
        ({"DimSize": "1 1 32768"}, "shape 1 x 1 x 32768; an axis has 32767 voxels at most"),
        ({"Offset": "1 2 nan"}, "Offset = '1 2 nan' in its header; 3 numbers are expected"),
        ({"TransformMatrix": "1 0 0"}, "TransformMatrix = '1 0 0' in its header; 9 numbers are expected"),
        ({"ElementSpacing": "1 1 -1"}, "ElementSpacing = '1 1 -1' in its header; it must be positive"),
        (
            {"BinaryDataByteOrderMSB": None},
            "BinaryDataByteOrderMSB = '' in its header; True or False is expected",
        ),
        ({"Offset": None, "ElementSpacing": None}, "no Offset, ElementSpacing in its header"),
        ({"Position": "0 0 0"}, "its header has Offset twice: '0 0 0' and '0 0 0'"),
        ({"Comment": "two\nlines"}, "a line of its header is no `key = value`: 'lines'"),
    ],
)
def test_what_is_refused_is_named_with_its_key_and_value(
    tmp_path: Path, lines: dict[str, str | None], message: str
) -> None:
    assert reason(tmp_path, mha(VOXELS, **lines)) == message


def test_an_unknown_element_type_is_refused(tmp_path: Path) -> None:
    assert reason(tmp_path, mha(VOXELS, ElementType="MET_STRING")).startswith(
        "ElementType = 'MET_STRING' in its header; one of MET_CHAR, MET_UCHAR, MET_SHORT, "
    )


@pytest.mark.parametrize("matrix", ["0 0 0 0 0 0 0 0 0", "1 0 0 1 0 0 0 0 1"])
def test_axes_that_are_not_independent_are_refused(tmp_path: Path, matrix: str) -> None:
    assert reason(tmp_path, mha(VOXELS, TransformMatrix=matrix)).startswith(
        "its affine is singular: an axis has no length, or its axes are not independent: [["
    )


def test_an_absurd_position_is_refused(tmp_path: Path) -> None:
    assert reason(tmp_path, mha(VOXELS, Offset="0 1e300 0")).startswith("its affine is not finite, or exceeds 1 km")


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08\x00more", b"<html>not found</html>", b"x"])
def test_a_file_that_is_no_metaimage_is_refused_with_its_first_bytes(tmp_path: Path, content: bytes) -> None:
    assert reason(tmp_path, content) == f"not a MetaImage file: it begins with {content[:8]!r}"


def test_a_header_without_end_is_refused(tmp_path: Path) -> None:
    assert reason(tmp_path, mha(VOXELS)[:200]) == "no line ElementDataFile within its first 65536 bytes"


def test_a_file_of_another_size_than_its_header_claims_is_refused(tmp_path: Path) -> None:
    content = mha(VOXELS)
    assert reason(tmp_path, content[:-5]) == f"truncated: 5 of {len(content)} bytes are missing"
    assert reason(tmp_path, content + b"more") == "4 bytes more than its DimSize and ElementType give"


def test_a_header_that_claims_terabytes_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    content = mha(VOXELS, DimSize="30000 30000 30000")
    tracemalloc.start()
    try:
        claimed = "its header claims 30000 x 30000 x 30000 voxels; at most 134217728 are read"
        assert reason(tmp_path, content) == claimed
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_file_that_is_gone_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="cannot read it: no longer there") as caught:
        read_mha(FileInfo(str(tmp_path / "x.mha"), 100))
    assert caught.value.transient
    with pytest.raises(CaseError, match=f"a volume has {MAX_FILE_BYTES} at most"):
        read_mha(FileInfo(str(tmp_path / "x.mha"), MAX_FILE_BYTES + 1))
