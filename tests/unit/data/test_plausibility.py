"""What is implausible about a case: every warning with its file and figure, and none for usual cases."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from brats.data.case import Array
from brats.data.cases import find_cases
from brats.data.plausibility import SHOWN, Warned, warning_lines
from brats.data.preprocess import read_case
from brats.labels import ED, Labels
from tests.support.synthetic import write_case
from tests.support.volumes import case_of, grid_of

SHAPE = (20, 20, 20)
NUMBERS = np.arange(8000).reshape(SHAPE)


def block(size: int, *, start: int = 2, dtype: npt.DTypeLike = np.int16) -> Array:
    """A cube of brain with this edge, of values from 100 to 299, over a background of 0."""
    inside = slice(start, start + size)
    voxels = np.zeros(SHAPE, dtype)
    voxels[inside, inside, inside] = 100 + NUMBERS[inside, inside, inside] % 200
    return voxels


def warnings_of(tumour: Labels | None = None, spacing_mm: float = 1, **images: Array) -> tuple[str, ...]:
    grid = grid_of(SHAPE, np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0]))
    return case_of("case", tumour, slope=1, inter=0, grid=grid, **images).warnings


def tumour_of(n_inside: int, n_outside: int) -> Labels:
    """Labels of which so many voxels lie in `block(16)` and so many in its background."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[5, 5, 2 : 2 + n_inside] = labels[0, 5, 2 : 2 + n_outside] = ED
    return labels


# The size of the brain


def test_brain_that_takes_most_of_the_volume_is_named_with_its_share() -> None:
    assert warnings_of(flair=block(17)) == ()  # 17 ** 3 of 20 ** 3: 61 %
    assert warnings_of(flair=block(17), t1=block(18)) == (
        "case_t1.nii.gz: 73% of the volume is brain, more than 70%; is what surrounds it removed?",
    )


def test_ellipsoid_in_a_volume_cut_to_it_is_a_usual_brain() -> None:
    x, y, z = np.ogrid[-1:1:20j, -1:1:20j, -1:1:20j]
    assert warnings_of(flair=np.where(x**2 + y**2 + z**2 <= 1, 100 + NUMBERS % 200, 0)) == ()


def test_brain_of_more_than_two_and_a_half_litres_is_named_with_its_volume() -> None:
    assert warnings_of(flair=block(12), spacing_mm=11) == ()  # 12 ** 3 voxels of 1.331 ml: 2300 ml
    assert warnings_of(flair=block(12), spacing_mm=12) == (
        "case_flair.nii.gz: its brain takes 2986 ml, more than 2500; is the skull removed?",
    )


# The sign of its values


def test_values_scored_in_the_brain_alone_are_named_with_the_share_of_negative_ones() -> None:
    voxels = block(12, dtype=np.float32)
    brain = voxels > 0
    voxels[brain] -= 180.25  # 100 to 180 of 100 to 299 become negative
    share = np.count_nonzero(voxels < 0) / np.count_nonzero(brain)
    (text,) = warnings_of(t2=voxels)
    assert text == (
        f"case_t2.nii.gz: {share:.0%} of its brain voxels are negative, over a background of 0: normalised "
        "values, or noise or ringing around the brain; give images that are not normalised yet, with 0 around "
        "the brain"
    )


@pytest.mark.parametrize("slope", [1, -1])
def test_values_are_negative_after_the_scaling(slope: int) -> None:
    for sign, n_warnings in ((1, 0), (-1, 1)):
        assert len(case_of(slope=slope, flair=sign * slope * block(12)).warnings) == n_warnings


def test_few_negative_values_and_noise_around_the_brain_are_usual() -> None:
    voxels = block(12, dtype=np.float32)
    voxels[voxels == 0] = np.random.default_rng(0).uniform(-0.2, 0.2, np.count_nonzero(voxels == 0))
    voxels[2, 2:14, 2:14] = -5.5  # 144 of 1728: 8 %
    assert warnings_of(flair=voxels) == ()


def test_values_scored_with_their_background_are_usual() -> None:
    voxels = block(12, dtype=np.float64)
    assert warnings_of(flair=(voxels - voxels.mean()) / voxels.std()) == ()


def test_ringing_that_is_negative_too_has_the_same_warning_alone() -> None:
    voxels = block(12, dtype=np.float32)
    voxels[1, 2:16, 2:16] = -3.5  # 196 of 1924: 10.2 %
    (text,) = warnings_of(flair=voxels)
    assert text.startswith("case_flair.nii.gz: 10% of its brain voxels are negative, over a background of 0: norm")


# Faint voxels and a second background


def shell(values: float | Array, *, thickness: int = 1, dtype: npt.DTypeLike = np.float32) -> Array:
    """`block(12)` with these values around it, that the corners do not show."""
    voxels, inside = block(12, dtype=dtype), slice(2 - thickness, 14 + thickness)
    near = np.zeros(SHAPE, bool)
    near[inside, inside, inside] = True
    return np.where(near & (voxels == 0), values, voxels).astype(dtype)


def test_haze_around_the_brain_is_named_with_its_share_and_what_to_do() -> None:
    haze = 0.5 + NUMBERS % 50 / 20  # 0.5 to 2.95 of 299; 14 ** 3 - 12 ** 3 of 14 ** 3 voxels: 37 %
    assert warnings_of(flair=shell(0), t1=shell(haze)) == (
        "case_t1.nii.gz: 37% of its brain voxels are nearly background, less than 2% of the brightest away from 0; "
        "if noise or ringing surrounds the brain, set what surrounds it to 0",
    )


def test_haze_is_measured_from_the_background() -> None:
    voxels = shell(0.5 + NUMBERS % 50 / 20) + np.float32(1000.25)
    (text,) = warnings_of(flair=voxels)
    assert "37% of its brain voxels are nearly background" in text
    assert "away from 1000.25; if" in text


def test_few_faint_voxels_and_brighter_ones_around_the_brain_are_usual() -> None:
    assert warnings_of(flair=shell(20 + NUMBERS % 50)) == ()  # 7 % of the brightest: partial volume
    voxels = block(12)
    voxels[2, 2:14, 2:14] = 1 + NUMBERS[2, 2:14, 2:14] % 4  # 144 of 1728: 8 %
    assert warnings_of(flair=voxels) == ()


@pytest.mark.parametrize("slope", [1, -2])
def test_value_that_much_of_the_brain_has_is_named_with_its_share(slope: int) -> None:
    voxels = shell(1, dtype=np.int16)
    (text,) = case_of(slope=slope, inter=0, flair=voxels * np.sign(slope)).warnings
    assert text == (
        f"case_flair.nii.gz: 37% of its brain voxels have the one value {abs(slope)}, over a background of 0; if "
        "they surround the brain, set them to 0"
    )


def test_air_inside_a_padding_of_another_value_is_named() -> None:
    voxels = np.pad(block(12)[1:16, 1:16, 1:16], 3, constant_values=-1000)  # 15 ** 3 voxels, of which 12 ** 3 brain
    (text,) = case_of(slope=1, inter=0, flair=voxels).warnings
    assert text == (
        "case_flair.nii.gz: 49% of its brain voxels have the one value 0, over a background of -1000; if they "
        "surround the brain, set them to -1000"
    )


# The brains of two modalities


def test_modality_whose_brain_lies_elsewhere_is_named_with_its_dice() -> None:
    brain, shifted = block(8), block(8, start=6)  # 4 ** 3 of 8 ** 3 voxels in common: 0.125
    (text,) = warnings_of(flair=brain, t1=brain, t1ce=shifted, t2=brain)
    assert text == (
        "case_t1ce.nii.gz: the Dice of its brain with that of other modalities is 0.12, less than 0.7; are they of "
        "one patient, registered, and without the skull?"
    )


def test_of_two_modalities_that_differ_both_are_named_and_of_four_in_two_groups_all() -> None:
    brain, shifted = block(8), block(8, start=6)
    assert len(warnings_of(flair=brain, t1=shifted)) == 2
    assert len(warnings_of(flair=brain, t1=brain, t1ce=shifted, t2=shifted)) == 4
    assert len(warnings_of(flair=brain, t1=brain, t1ce=shifted)) == 1


def test_brains_that_differ_by_a_shell_are_usual() -> None:
    assert warnings_of(flair=block(14), t1=block(13), t1ce=block(14)) == ()  # 2 * 2197 / (2744 + 2197): 0.89


# The tumour


def test_tumour_that_lies_outside_the_brain_is_named_with_its_share() -> None:
    assert warnings_of(tumour_of(10, 1), flair=block(16)) == ()
    assert warnings_of(tumour_of(6, 2), flair=block(16)) == (
        "case_seg.nii.gz: 25% of its tumour lies outside the brain, more than 10%",
    )


def test_brain_of_any_modality_is_brain_for_the_tumour() -> None:
    wider = block(16)
    wider[0, 5] = 150
    assert warnings_of(tumour_of(6, 2), flair=block(16), t1=wider) == ()


def test_tumour_that_fills_the_brain_is_named_with_its_share() -> None:
    half, more = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    half[2:10, 2:18, 2:18] = more[2:12, 2:18, 2:18] = ED  # 8 and 10 of the 16 planes of the brain
    assert warnings_of(half, flair=block(16)) == ()
    assert warnings_of(more, flair=block(16)) == (
        "case_seg.nii.gz: its tumour fills 62% of the brain, over 50%; are its labels tissues?",
    )


def test_segmentation_without_tumour_is_usual() -> None:
    assert warnings_of(np.zeros(SHAPE, np.uint8), flair=block(12)) == ()


# Slices looked at


def test_the_figures_are_of_all_slices_though_only_some_are_looked_at() -> None:
    voxels = np.zeros((20, 20, 200), np.int16)
    voxels[1:19, 1:19, 2:198] = 100 + np.arange(196)  # 79 % of the volume
    assert case_of(flair=voxels).warnings[0].startswith("case_flair.nii.gz: 79% of the volume is brain")


# Usual cases


def test_synthetic_cases_have_no_warnings(tmp_path: Path) -> None:
    write_case(str(tmp_path), "case")
    write_case(str(tmp_path), "BraTS-GLI-00001-000", edition=2023, with_et=False)
    for files in find_cases(str(tmp_path)).cases:
        assert read_case(files, list(files.images)).warnings == ()


@pytest.mark.real
def test_real_cases_have_no_warnings(real_data_dir: str) -> None:
    for files in find_cases(real_data_dir).cases:
        assert read_case(files, list(files.images)).warnings == ()


# On the console


def test_the_first_warnings_are_lines_and_the_others_a_number() -> None:
    warnings = [Warned(f"case_{number}", "a.nii: odd") for number in range(SHOWN + 2)]
    assert warning_lines(warnings[:1], "t.parquet") == ["  warning case_0: a.nii: odd"]
    assert len(warning_lines(warnings[:SHOWN], "t.parquet")) == SHOWN
    assert warning_lines(warnings, "t.parquet")[SHOWN:] == ["  and 2 more warnings, see t.parquet"]
    assert warning_lines([], "t.parquet") == []
