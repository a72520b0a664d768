"""From files to a crop: the brain's box, what counts as background, and how intensities are normalised."""

import math
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import xxhash

from brats.data.background import Background
from brats.data.case import Array, Box, crop
from brats.data.cases import CaseFiles, find_cases
from brats.data.preprocess import crop_case, hash_brain, measure_intensity, read_case
from brats.data.sources import content_hash, source_bytes
from brats.data.trim import trim
from brats.errors import CaseError
from brats.labels import ED, ET, NCR
from tests.support.volumes import case_of, files_of, grid_of, volume_of

SHAPE = (6, 5, 4)
GRID = grid_of(SHAPE)
ZERO = Background(0)
LPS = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])


def brain(dtype: npt.DTypeLike = np.int16, background: float = 0) -> Array:
    """Background but for a box of 2 x 3 x 2 voxels with the numbers 1 to 12, away from every border."""
    voxels = np.full(SHAPE, background, dtype)
    voxels[2:4, 1:4, 1:3] = np.arange(1, 13).reshape(2, 3, 2)
    return voxels


# The box


@pytest.mark.parametrize("label", [NCR, ED, ET])
def test_a_labelled_voxel_outside_the_brain_is_in_the_box(label: int) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[0, 0, 3] = label
    case = case_of(labels=labels, flair=brain())
    assert case.box == Box(start=(0, 0, 1), stop=(4, 4, 4))
    assert case.labels is not None
    np.testing.assert_array_equal(case.on_source_grid(case.labels), labels)


def test_the_box_holds_what_any_modality_shows() -> None:
    other = np.zeros(SHAPE, np.int16)
    other[5, 0, 0:2] = (7, 9)
    assert case_of(flair=brain(), t1=other).box == Box(start=(2, 0, 0), stop=(6, 4, 3))


# Intensities


def test_mean_and_deviation_are_of_the_values_that_are_not_background() -> None:
    voxels = np.zeros((1, 1, 6), np.int16)
    voxels[0, 0, :4] = (2, 4, 4, 6)
    intensity = measure_intensity(voxels, volume_of(voxels), ZERO, "x.nii")
    assert (intensity.mean, intensity.std) == (4, 2**0.5)
    assert (intensity.dtype, intensity.slope, intensity.inter, intensity.background) == ("<i2", 1, 0, 0)


@pytest.mark.parametrize(("slope", "inter"), [(1.0, 0.0), (0.5, 0.0), (2.0, -1000.0), (-3.0, 40.0), (1e-4, 1e4)])
@pytest.mark.parametrize("dtype", ["int16", "uint8", "uint16", "float32", "float64"])
def test_normalisation_is_that_of_the_values_in_real_units(dtype: str, slope: float, inter: float) -> None:
    voxels = brain(dtype)
    case = case_of(slope=slope, inter=inter, flair=voxels)
    offset, scale = case.intensities["flair"].raw_offset_scale()
    normalised = (case.images["flair"].astype(np.float64) - offset) / scale
    values = slope * voxels[voxels != 0].astype(np.float64) + inter
    naive = (slope * crop(voxels, case.box).astype(np.float64) + inter - values.mean()) / values.std()
    np.testing.assert_allclose(normalised, naive, rtol=0, atol=1e-7)
    assert case.intensities["flair"].mean == pytest.approx(values.mean())
    assert case.intensities["flair"].std == pytest.approx(values.std())


def test_large_numbers_are_summed_without_overflow_or_loss() -> None:
    voxels = np.zeros((1, 1, 200_000), np.uint16)
    voxels[0, 0, ::2], voxels[0, 0, 1::4] = 65535, 65533
    intensity = measure_intensity(voxels, volume_of(voxels), ZERO, "x.nii")
    assert intensity.mean == pytest.approx((2 * 65535 + 65533) / 3, abs=1e-6)
    assert intensity.std == pytest.approx((8 / 9) ** 0.5, abs=1e-6)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int8, np.uint8])
@pytest.mark.parametrize("background", [0, 1])
def test_mean_and_deviation_of_whole_numbers_are_exact(dtype: type[np.integer[Any]], background: int) -> None:
    limits = np.iinfo(dtype)
    voxels = np.random.default_rng(0).integers(limits.min, limits.max, (3, 90, 400), dtype, endpoint=True)
    intensity = measure_intensity(voxels, volume_of(voxels), Background(background), "x.nii")
    values = [value for value in voxels.ravel().tolist() if value != background]
    n, total, squares = len(values), sum(values), sum(value**2 for value in values)
    assert intensity.mean == total / n
    assert intensity.std == math.sqrt(n * squares - total**2) / n


def test_the_background_of_each_modality_is_left_out_of_its_own_statistics() -> None:
    flair, t1 = brain(), brain(np.float32, background=-5)
    t1[0, 0, 0] = -5
    case = case_of(flair=flair, t1=t1)
    assert case.intensities["flair"].mean == case.intensities["t1"].mean == 6.5
    assert (case.intensities["flair"].background, case.intensities["t1"].background) == (0, -5)


# Values around the brain that are nearly its background

HEAD = (24, 20, 16)
NOISE = np.random.default_rng(7).uniform(-1, 1, HEAD)


def head() -> Array:
    """A brain of 12 x 10 x 8 voxels of whole numbers from 100 to 500 in a volume of 0."""
    voxels = np.zeros(HEAD, np.int16)
    voxels[6:18, 5:15, 4:12] = np.linspace(100, 500, 960).round().reshape(12, 10, 8)
    return voxels


def scaled_by_nibabel(values: Array, path: Path) -> CaseFiles:
    """A case whose only image is stored in int16 with a scaling."""
    image = nib.Nifti1Image(values, LPS)
    image.set_data_dtype(np.int16)
    nib.save(image, path / "case_flair.nii.gz")
    return find_cases(str(path), ["flair"]).cases[0]


@pytest.mark.parametrize("size", [0, 1e-6, 0.5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_noise_and_ringing_around_the_brain_change_nothing(size: float, dtype: str) -> None:
    clean = case_of(flair=head())
    noisy = case_of(flair=np.where(head() == 0, size * NOISE, head()).astype(dtype))
    assert noisy.box == clean.box == Box(start=(6, 5, 4), stop=(18, 15, 12))
    assert noisy.voxel_hash == clean.voxel_hash
    one, other = noisy.intensities["flair"], clean.intensities["flair"]
    assert (one.mean, one.std) == pytest.approx((other.mean, other.std), rel=1e-12)
    np.testing.assert_array_equal(noisy.images["flair"], clean.images["flair"])


def test_an_image_scored_with_noise_around_the_brain_has_the_same_brain_and_the_same_input() -> None:
    clean, values = case_of(flair=head()), head().astype(np.float64)
    scored = np.where(values == 0, 1e-6 * NOISE, 0) + (values - 300) / 40
    case = case_of(flair=scored.astype(np.float32))
    assert case.box == clean.box
    inputs = []
    for one in (clean, case):
        offset, scale = one.intensities["flair"].raw_offset_scale()
        inputs.append((one.images["flair"] - offset) / scale)
    np.testing.assert_allclose(inputs[0], inputs[1], atol=1e-5)


def test_ringing_in_integers_that_are_scaled_is_background(tmp_path: Path) -> None:
    clean = case_of(flair=head())
    case = read_case(scaled_by_nibabel(np.where(head() == 0, 0.3 * NOISE, head()), tmp_path), ["flair"])
    assert case.images["flair"].dtype == np.int16
    assert case.box.shape == clean.box.shape
    intensity, expected = case.intensities["flair"], clean.intensities["flair"]
    assert intensity.slope != 1
    assert (intensity.mean, intensity.std) == pytest.approx((expected.mean, expected.std), rel=1e-4)


def test_images_are_stored_as_they_are_with_the_noise_beside_the_brain() -> None:
    voxels = np.where(head() == 0, 1e-6 * NOISE, head()).astype(np.float32)
    voxels[6, 5, 4] = 1e-6
    case = case_of(flair=voxels)
    np.testing.assert_array_equal(case.images["flair"], crop(voxels, case.box))
    assert not case.intensities["flair"].is_brain(case.images["flair"])[0, 0, 0]


# Cases that cannot be used


def test_an_image_that_is_background_everywhere_names_its_file() -> None:
    with pytest.raises(CaseError, match="every voxel is 7; the image is empty") as caught:
        case_of(flair=brain(), t1=np.full(SHAPE, 7, np.int16))
    assert caught.value.path == "/data/case_t1.nii.gz"


@pytest.mark.parametrize("value", [5, 0.1])
def test_an_image_of_one_value_has_no_contrast(value: float) -> None:
    flat = np.zeros((40, 30, 10))
    flat[1:-1, 1:-1, 1:-1] = value  # of 0.1 the mean of so many is not exactly 0.1
    with pytest.raises(CaseError, match=f"every brain voxel is {value:g}; the image has no contrast"):
        case_of(flair=flat)


def test_a_case_without_any_brain_names_its_files() -> None:
    with pytest.raises(CaseError, match="there is no brain in these images") as caught:
        case_of(flair=np.full(SHAPE, 7, np.int16), t1=np.zeros(SHAPE, np.int16))
    assert caught.value.path == "/data/case_flair.nii.gz, /data/case_t1.nii.gz"


# A case


def test_a_case_says_where_it_comes_from() -> None:
    case = case_of(labels=np.zeros(SHAPE, np.uint8), flair=brain(), t1=brain())
    assert (case.case_id, case.patient_id, case.layout) == ("case", "patient of case", "brats2018")
    assert (case.grade, source_bytes(case.sources)) == ("LGG", 25)


def test_a_case_without_segmentation_has_no_labels() -> None:
    assert case_of(flair=brain()).labels is None


# The hash of the brain


def test_the_hash_is_the_same_for_other_margins_number_types_and_scalings() -> None:
    wide = np.zeros((10, 10, 10), np.float32)
    wide[4:6, 5:8, 3:5] = brain()[2:4, 1:4, 1:3]
    halves = volume_of((brain() * 2).astype(np.uint8), slope=0.5)
    hashes = {
        case_of(flair=brain()).voxel_hash,
        case_of(flair=wide).voxel_hash,
        crop_case(files_of(("flair",)), {"flair": trim(halves)}, None).voxel_hash,
    }
    assert len(hashes) == 1


def test_the_hash_changes_with_one_voxel() -> None:
    changed = brain()
    changed[2, 1, 1] += 1
    assert case_of(flair=changed).voxel_hash != case_of(flair=brain()).voxel_hash


def test_the_hash_begins_with_its_version() -> None:
    image = np.array([[[0, 1, 2]]], np.int16)
    expected = xxhash.xxh3_128_hexdigest(np.array([1, 2], "<f4").tobytes())
    assert hash_brain(image, volume_of(image), ZERO) == f"v2:{expected}"


def test_the_hash_does_not_depend_on_labels() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[0, 0, 0] = ED
    assert case_of(labels=labels, flair=brain()).voxel_hash == case_of(flair=brain()).voxel_hash


def test_voxels_of_background_are_not_hashed() -> None:
    image = brain()[2:4, 1:4, 1:3]
    padded = np.pad(image, 1)
    assert hash_brain(image, volume_of(image), ZERO) == hash_brain(padded, volume_of(padded), ZERO)


# Reading


def save(path: Path, voxels: Array, affine: Array = LPS) -> None:
    nib.save(nib.Nifti1Image(voxels, affine), path)


def write_case(folder: Path, **images: Array) -> CaseFiles:
    for kind, voxels in images.items():
        save(folder / f"case_{kind}.nii.gz", voxels)
    return find_cases(str(folder), [kind for kind in images if kind != "seg"]).cases[0]


def test_a_case_is_read_cropped_and_labelled(tmp_path: Path) -> None:
    codes = np.zeros(SHAPE, np.uint8)
    codes[2, 1, 1], codes[3, 3, 2] = 4, 2
    files = write_case(tmp_path, flair=brain(), t1=2 * brain(), seg=codes)
    case = read_case(files, ("t1", "flair"))
    assert list(case.images) == ["t1", "flair"]
    for name, factor in (("flair", 1), ("t1", 2)):  # stored LPS: x and y run the other way in RAS+
        np.testing.assert_array_equal(case.on_source_grid(case.images[name]), factor * brain())
        np.testing.assert_array_equal(case.images[name], crop(factor * brain()[::-1, ::-1], case.box))
    assert case.labels is not None
    np.testing.assert_array_equal(case.on_source_grid(case.labels), np.where(codes == 4, ET, codes))
    assert {file.path: (file.size, file.hash) for file in case.sources} == {
        str(path): (path.stat().st_size, content_hash(path.read_bytes())) for path in tmp_path.iterdir()
    }


def test_reading_a_case_takes_the_memory_of_one_volume_and_of_its_crops(tmp_path: Path) -> None:
    voxels = np.zeros((96, 96, 96), np.int16)
    voxels[40:56, 40:56, 40:56] = np.arange(1, 4097).reshape(16, 16, 16)
    modalities = ("flair", "t1", "t1ce", "t2")
    files = write_case(tmp_path, **dict.fromkeys(modalities, voxels))
    read_case(files, modalities)
    tracemalloc.start()
    try:
        read_case(files, modalities)
        assert tracemalloc.get_traced_memory()[1] < 1.5 * voxels.nbytes
    finally:
        tracemalloc.stop()


def test_only_the_modalities_asked_for_are_read(tmp_path: Path) -> None:
    files = write_case(tmp_path, flair=brain(), t1=brain())
    (tmp_path / "case_t1.nii.gz").write_bytes(b"broken")
    assert list(read_case(files, ("flair",)).images) == ["flair"]
    with pytest.raises(CaseError, match=r"case_t1\.nii\.gz"):
        read_case(files, ("flair", "t1"))


def test_an_image_of_another_shape_is_named_with_both(tmp_path: Path) -> None:
    files = write_case(tmp_path, flair=brain(), t1=brain()[:, :, :3])
    with pytest.raises(CaseError, match=r"t1\.nii\.gz: shape \(6, 5, 3\), but case_flair\.nii\.gz has \(6, 5, 4\)"):
        read_case(files, ("flair", "t1"))


def test_a_segmentation_on_another_grid_is_named(tmp_path: Path) -> None:
    files = write_case(tmp_path, flair=brain(), seg=np.zeros(SHAPE, np.uint8))
    save(tmp_path / "case_seg.nii.gz", np.zeros(SHAPE, np.uint8), LPS + np.eye(4, k=3) * 2)
    with pytest.raises(CaseError, match="its affine differs") as caught:
        read_case(find_cases(str(tmp_path), ("flair",)).cases[0], ("flair",))
    assert caught.value.path == files.segmentation.path if files.segmentation else False


def test_a_segmentation_stored_in_another_orientation_lies_where_it_belongs(tmp_path: Path) -> None:
    codes = np.zeros(SHAPE, np.uint8)
    codes[2, 1, 1] = 2
    ras_affine = np.array([[1.0, 0, 0, -5], [0, 1, 0, 235], [0, 0, 1, 0], [0, 0, 0, 1]])
    write_case(tmp_path, flair=brain(), seg=codes)
    straight = read_case(find_cases(str(tmp_path), ("flair",)).cases[0], ("flair",))
    save(tmp_path / "case_seg.nii.gz", codes[::-1, ::-1], ras_affine)
    turned = read_case(find_cases(str(tmp_path), ("flair",)).cases[0], ("flair",))
    assert straight.labels is not None
    assert turned.labels is not None
    assert straight.labels.any()
    np.testing.assert_array_equal(turned.labels, straight.labels)


def test_labels_that_were_rounded_are_a_warning(tmp_path: Path) -> None:
    codes = np.zeros(SHAPE, np.float32)
    codes[2, 1, 1], codes[3, 3, 2], codes[3, 2, 2] = np.nextafter(np.array([4, 2, 2], np.float32), np.float32(0))
    files = write_case(tmp_path, flair=brain(), seg=codes)
    case = read_case(files, ("flair",))
    assert case.labels is not None
    assert np.bincount(case.labels.ravel()).tolist()[1:] == [0, 2, 1]
    expected = "case_seg.nii.gz: 3 voxels were not exactly at a code, and were rounded to it"
    assert expected in case.warnings
    whole = write_case(tmp_path, flair=brain(), seg=np.rint(codes))
    assert expected not in read_case(whole, ("flair",)).warnings


def test_files_at_45_degrees_that_rounding_turns_apart_are_one_case(tmp_path: Path) -> None:
    codes = np.zeros(SHAPE, np.uint8)
    codes[2, 1, 1] = 2
    affines = {}
    for degrees in (45 - 1e-5, 45 + 1e-5):
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        affines[degrees] = np.array([[c, -s, 0, 5], [s, c, 0, 7], [0, 0, 1, 9], [0, 0, 0, 1]])
    orientations = [nib.io_orientation(affine).tolist() for affine in affines.values()]
    assert orientations[0] != orientations[1]
    below, above = affines.values()
    save(tmp_path / "case_flair.nii.gz", brain(), below)
    save(tmp_path / "case_t1.nii.gz", brain(), above)
    save(tmp_path / "case_seg.nii.gz", codes, above)
    case = read_case(find_cases(str(tmp_path), ("flair", "t1")).cases[0], ("flair", "t1"))
    np.testing.assert_array_equal(case.images["t1"], case.images["flair"])
    assert case.labels is not None
    np.testing.assert_array_equal(case.on_source_grid(case.labels), codes)
    np.testing.assert_array_equal(case.on_source_grid(case.images["flair"]), brain())
    np.testing.assert_array_equal(case.grid.orientation, orientations[0])


@pytest.mark.real
def test_labelled_voxels_outside_the_brain_of_a_real_case_are_kept(real_data_dir: str) -> None:
    (files,) = (files for files in find_cases(real_data_dir).cases if files.case_id == "BraTS2021_01426")
    case = read_case(files, ("flair",))
    assert case.labels is not None
    assert np.count_nonzero(case.labels[case.images["flair"] == 0]) == 3
