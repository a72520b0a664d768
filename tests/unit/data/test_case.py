"""A case: boxes in either axes, the crop in its place in the source file, and its description."""

import dataclasses
import json
import math

import numpy as np
import numpy.typing as npt
import pytest

from brats.data.case import Array, Box, Case, Intensity, crop
from brats.data.grid import Grid, from_ras, to_ras
from brats.errors import CaseError
from tests.support.volumes import (
    ORIENTATIONS,
    SHAPE,
    assert_same_case,
    case_of,
    grid_of,
    image,
    labels_of,
    oriented_affine,
    oriented_grid,
    stored,
)

ODD_SHAPE = (7, 5, 9)
BACKGROUND = -7  # of the second image of `oriented_case`


def numbered(shape: tuple[int, ...]) -> Array:
    return np.arange(math.prod(shape), dtype=np.int16).reshape(shape)


def oriented_case(order: tuple[int, ...], flips: tuple[int, ...]) -> tuple[Case, dict[str, Array]]:
    """A case stored in this orientation, and its arrays in source axes: two images and the labels."""
    grid = oriented_grid(SHAPE, order, flips)
    flair, t1 = image(0, np.int16, 1, 99), image(1, np.float32, 1, 99, background=BACKGROUND)
    labels = labels_of()
    case = case_of(labels=stored(labels, grid), grid=grid, flair=stored(flair, grid), t1=stored(t1, grid))
    arrays = {"flair": flair, "t1": t1, "labels": labels}
    return case, {name: from_ras(voxels, grid) for name, voxels in arrays.items()}


# Boxes


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_box_in_source_axes_cuts_the_same_voxels_out_of_the_file_and_turns_back(
    order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    grid = oriented_grid(ODD_SHAPE, order, flips)
    volume = numbered(ODD_SHAPE)
    source = from_ras(volume, grid)
    for box in (Box(start=(1, 0, 2), stop=(3, 4, 8)), Box(start=(0, 0, 0), stop=ODD_SHAPE)):
        in_source = box.in_source_axes(grid)
        np.testing.assert_array_equal(source[in_source.slices()], from_ras(volume[box.slices()], grid))
        assert in_source.in_ras_axes(grid) == box


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_box_in_ras_axes_cuts_the_same_voxels_out_of_the_volume_and_turns_back(
    order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    grid = grid_of(ODD_SHAPE, oriented_affine(order, flips))
    source = numbered(ODD_SHAPE)
    volume = to_ras(source, grid)
    for box in (Box(start=(1, 0, 2), stop=(3, 4, 8)), Box(start=(6, 4, 8), stop=ODD_SHAPE)):
        in_ras = box.in_ras_axes(grid)
        assert {*volume[in_ras.slices()].flat} == {*source[box.slices()].flat}
        assert in_ras.in_source_axes(grid) == box


def test_box_has_a_shape_and_survives_json() -> None:
    box = Box(start=(2, 1, 1), stop=(5, 3, 4))
    assert box.shape == (3, 2, 3)
    assert Box.from_json(json.loads(json.dumps({"start": box.start, "stop": box.stop}))) == box


def test_a_crop_holds_slices_along_z_with_x_down_and_y_across() -> None:
    volume = numbered((6, 5, 4))
    slices = crop(volume, Box(start=(2, 1, 1), stop=(4, 4, 3)))
    assert slices.shape == (2, 2, 3)
    assert slices.flags.c_contiguous
    np.testing.assert_array_equal(slices[0], volume[2:4, 1:4, 1])
    np.testing.assert_array_equal(slices[1], volume[2:4, 1:4, 2])


# The crop in its place in the source file


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_crop_on_the_source_grid_is_the_source_where_the_background_is_0(
    order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    case, source = oriented_case(order, flips)
    assert case.labels is not None
    np.testing.assert_array_equal(case.on_source_grid(case.images["flair"]), source["flair"])
    np.testing.assert_array_equal(case.on_source_grid(case.labels), source["labels"])
    inside = case.source_box.slices()
    np.testing.assert_array_equal(case.on_source_grid(case.images["t1"])[inside], source["t1"][inside])
    np.testing.assert_array_equal(case.on_source_grid(case.images["t1"]) == 0, source["t1"] == BACKGROUND)


@pytest.mark.parametrize("dtype", ["int16", "uint8", "uint16", "float32", "float64"])
def test_crop_on_the_source_grid_keeps_its_number_type(dtype: str) -> None:
    voxels = image(0, dtype, 1, 99)
    case = case_of(flair=voxels)
    whole = case.on_source_grid(case.images["flair"])
    assert whole.dtype == voxels.dtype
    np.testing.assert_array_equal(whole, voxels)


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_the_slice_axis_is_that_along_which_the_crop_has_the_slices_of_the_file(
    order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    case, _ = oriented_case(order, flips)
    axis, forwards = case.slice_axis
    cropped = case.images["flair"]
    along = np.moveaxis(cropped, axis, 0)[:: 1 if forwards else -1]
    for ours, of_file in zip(along, case.source_slices(cropped), strict=True):
        assert sorted(ours.ravel()) == sorted(of_file.ravel())


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_source_slices_are_those_of_the_file_from_the_first_of_the_crop(
    order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    case, source = oriented_case(order, flips)
    along_first, along_second, along_third = case.source_box.slices()
    for name, cropped in case.images.items():
        slices = case.source_slices(cropped)
        assert np.shares_memory(slices, cropped)
        for number, part in enumerate(slices, start=case.source_box.start[2]):
            np.testing.assert_array_equal(part, source[name][along_first, along_second, number])
        assert len(slices) == along_third.stop - along_third.start


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_crop_in_source_axes_is_what_the_source_box_cuts_out(
    order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    case, source = oriented_case(order, flips)
    for name, cropped in case.images.items():
        in_source = case.in_source_axes(cropped)
        assert np.shares_memory(in_source, cropped)
        np.testing.assert_array_equal(in_source, source[name][case.source_box.slices()])


# A case


def test_voxels_outside_the_crop_are_counted() -> None:
    assert case_of(flair=image(0, np.int16, 1, 99)).n_outside == 9 * 8 * 7 - 5 * 4 * 3


def test_spacing_is_in_the_order_of_the_crop() -> None:
    grid = grid_of(SHAPE, np.diag([1.0, 2, 3, 1]))
    assert case_of(grid=grid, t1=image(0, np.int16, 1, 99)).spacing_zhw_mm == (3, 1, 2)


def test_a_case_can_be_reduced_to_some_modalities_in_their_order() -> None:
    flair, t1, t2 = (image(seed, np.int16, 1, 99) for seed in range(3))
    case = case_of(flair=flair, t1=t1, t2=t2)
    reduced = case.only(("t2", "flair"))
    assert list(reduced.images) == ["t2", "flair"]
    assert reduced.images["t2"] is case.images["t2"]
    assert reduced.box == case.box


def test_modalities_that_a_case_lacks_are_named() -> None:
    case = case_of(flair=image(0, np.int16, 1, 99), t1=image(1, np.int16, 1, 99))
    with pytest.raises(CaseError, match=r"^no t1ce and no t2; the case has flair, t1$"):
        case.only(("t1ce", "flair", "t2"))


def test_offset_and_scale_undo_slope_and_intercept() -> None:
    intensity = Intensity(dtype="<i2", slope=2, inter=-10, background=0, mean=30, std=8)
    assert intensity.raw_offset_scale() == (20, 4)  # 2 * 20 - 10 is 30, and 2 * 4 is 8


def test_brain_of_an_image_is_what_lies_beyond_the_tolerance_of_its_background() -> None:
    intensity = Intensity(dtype="<f4", slope=1, inter=0, background=-2, tolerance=0.5, mean=3, std=1)
    assert intensity.is_brain(np.array([-3, -2.5, -2, -1.5, 0, 3], np.float32)).tolist() == [
        *[True, False, False, False, True, True]
    ]


@pytest.mark.parametrize(
    ("dtype", "slope", "inter", "background", "tolerance", "expected"),
    [
        ("<i2", 1, 0, 0, 0, True),
        ("<i2", 1, 0, 1, 0, False),
        ("<i2", 0.01, 2.003, -200, 0, True),  # of integers the nearest to the value 0: -200.3
        ("<i2", 0.01, 2.003, -201, 0, False),
        ("<f4", 1, 0, 1e-6, 0.5, True),
        ("<f4", 1, 0, -8, 0.01, False),
    ],
)
def test_background_stands_for_0_as_nearly_as_tolerance_and_integers_allow(
    dtype: str, slope: float, inter: float, background: float, tolerance: float, expected: bool
) -> None:
    scaling = {"dtype": dtype, "slope": slope, "inter": inter, "mean": 1, "std": 1}
    assert Intensity(background=background, tolerance=tolerance, **scaling).background_is_zero == expected  # type: ignore[arg-type]


# Its description


def oblique_grid() -> Grid:
    """A grid of numbers that text could round."""
    affine = oriented_affine((0, 1, 2), (1, 1, 1))
    affine[:3, :3] += 0.1 * np.random.default_rng(0).random((3, 3))
    return grid_of(SHAPE, affine)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_case_comes_back_from_the_text_of_its_description(dtype: npt.DTypeLike, labelled: bool) -> None:
    flair, t1 = image(0, dtype, 0.1, 99.9, background=-3.25), image(1, np.uint8, 1, 99)
    labels = labels_of() if labelled else None
    case = case_of("a", labels, slope=0.1, inter=-5, grid=oblique_grid(), flair=flair, t1=t1)
    case = dataclasses.replace(case, warnings=("a_flair.nii.gz: odd",))
    description = json.loads(json.dumps(case.describe()))
    assert_same_case(case, Case.from_description(description, case.images, case.labels))


def test_case_comes_back_with_some_of_its_images() -> None:
    case = case_of(flair=image(0, np.int16, 1, 99), t1=image(1, np.int16, 1, 99))
    back = Case.from_description(case.describe(), {"t1": case.images["t1"]}, None)
    assert list(back.images) == list(back.intensities) == ["t1"]


def test_description_counts_tissues_and_tumour_voxels_slice_by_slice() -> None:
    described = case_of(labels=labels_of(1, 2, 3), flair=image(0, np.int16, 1, 99)).describe()
    assert described["tissues"] == {"ncr": 1, "ed": 2, "et": 3}
    assert described["tumour_per_slice"] == [1, 2, 3]
    unlabelled = case_of(flair=image(0, np.int16, 1, 99)).describe()
    assert (unlabelled["tissues"], unlabelled["tumour_per_slice"]) == (None, None)
