"""The background of an image: its level and tolerance, for whole numbers, noise, ringing, scores and spikes."""

import numpy as np
import numpy.typing as npt
import pytest

from brats.data.background import MAX_TOLERANCE, Background, find_background, find_reach, has_whole_values
from brats.data.case import Array
from brats.data.volume import Volume
from tests.support.volumes import ORIENTATIONS, oriented_grid, stored, volume_of

SHAPE = (24, 20, 16)
RANDOM = np.random.default_rng(0)
NOISE = RANDOM.normal(size=SHAPE)
RINGING = RANDOM.uniform(-1, 1, SHAPE)


def brain(dtype: npt.DTypeLike = np.int16, background: float = 0, top: float = 500) -> Array:
    """Background around a block of 12 x 10 x 8 voxels with values from 100 to `top`."""
    voxels = np.full(SHAPE, background, dtype)
    voxels[6:18, 5:15, 4:12] = np.linspace(100, top, 960).astype(dtype).reshape(12, 10, 8)
    return voxels


def around(air: Array, top: float = 500) -> Array:
    """The same block in float32 with whole numbers, among these values."""
    voxels = np.round(brain(np.float32, top=top))
    return np.where(voxels == 0, air, voxels).astype(np.float32)


def background_of(voxels: Array, slope: float = 1, inter: float = 0) -> Background:
    return find_background(volume_of(voxels, slope, inter))


def assert_same_brain(voxels: Array, slope: float = 1, inter: float = 0) -> Background:
    """The brain of an image is that block and nothing else."""
    background = background_of(voxels, slope, inter)
    np.testing.assert_array_equal(background.is_brain(voxels), brain() != 0)
    return background


# What is brain


@pytest.mark.parametrize("dtype", ["int16", "float32", "float64"])
def test_brain_is_farther_from_the_level_than_the_tolerance(dtype: str) -> None:
    voxels = np.arange(-8, 3).astype(dtype)
    assert voxels[~Background(-4, 2).is_brain(voxels)].tolist() == [-6, -5, -4, -3, -2]
    assert voxels[~Background(-4, 1.5).is_brain(voxels)].tolist() == [-5, -4, -3]
    assert voxels[~Background(-4, 0).is_brain(voxels)].tolist() == [-4]


def test_background_may_lie_outside_the_numbers_of_a_type() -> None:
    voxels = np.array([0, 1, 3, 255], np.uint8)
    assert voxels[~Background(0, 2).is_brain(voxels)].tolist() == [0, 1]
    assert Background(-300, 2).is_brain(voxels).all()
    assert Background(0.5).is_brain(voxels).all()  # no integer is 0.5


# Whole numbers


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32", "float64"])
@pytest.mark.parametrize("level", [0, 3])
def test_whole_numbers_are_compared_exactly_whatever_their_type(dtype: str, level: float) -> None:
    assert assert_same_brain(brain(dtype, level, top=250).round()) == Background(level)


def test_whole_numbers_under_a_scaling_are_compared_exactly() -> None:
    assert assert_same_brain((brain(top=250) * 2).astype(np.int16), slope=0.5) == Background(0)
    assert assert_same_brain(brain(), slope=-3, inter=7) == Background(0)


@pytest.mark.parametrize(
    ("values", "slope", "inter", "expected"),
    [
        ([0, 1, 2], 1, 0, True),
        ([0.0, 1.0, 2.0], 1, 0, True),
        ([0.0, 1.0, 2.5], 1, 0, False),
        ([0.0, 1e-6, 2.0], 1, 0, False),
        ([0, 2, 4], 0.5, 3, True),
        ([0, 2, 5], 0.5, 3, False),
        ([1, 2, 3], 1, 0.25, False),
    ],
)
def test_values_are_whole_after_the_scaling(
    values: list[float], slope: float, inter: float, expected: bool
) -> None:
    volume = volume_of(np.array(values).reshape(1, 1, 3), slope, inter)
    assert has_whole_values(volume) == expected


def test_one_value_that_is_not_whole_is_found_wherever_it_lies() -> None:
    for place in ((0, 0, 0), (23, 19, 15), (12, 10, 8)):
        voxels = np.round(brain(np.float32))
        assert has_whole_values(volume_of(voxels))
        voxels[place] += 0.25
        assert not has_whole_values(volume_of(voxels))


# Values that are not whole


def test_the_tolerance_is_a_thousandth_of_how_far_the_values_go() -> None:
    for level, tolerance in ((0, 0.4005), (50, 0.3505)):
        background = assert_same_brain(brain(np.float32, level, top=400.5))
        assert background.level == level
        assert background.tolerance == pytest.approx(tolerance)


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e-3])
def test_noise_around_the_brain_is_background(size: float) -> None:
    assert assert_same_brain(around(size * NOISE)).level == 0


def test_noise_that_is_never_negative_is_background() -> None:
    assert_same_brain(around(1e-6 * np.abs(NOISE)))


@pytest.mark.parametrize("size", [0.5, 2.0])
def test_ringing_around_the_brain_is_background(size: float) -> None:
    background = assert_same_brain(around(size * RINGING))
    assert background.level == 0
    assert background.tolerance == pytest.approx(2 * size, rel=0.1)


def test_ringing_in_whole_numbers_is_background_whatever_their_type() -> None:
    voxels = around(np.round(2 * RINGING))
    assert assert_same_brain(voxels) == assert_same_brain(voxels.astype(np.int16)) == Background(0, 4)


def test_ringing_at_the_brain_alone_leaves_the_tolerance_at_a_thousandth() -> None:
    voxels = around(np.zeros(SHAPE))
    voxels[5, 5:15, 4:12] = -0.4
    assert assert_same_brain(voxels) == Background(0, 0.5)


def test_noise_in_an_image_that_was_scored_with_its_background_is_background() -> None:
    values = around(np.zeros(SHAPE)).astype(np.float64)
    scored = (values - values.mean()) / values.std()
    assert assert_same_brain(scored).level == scored.min()
    noisy = np.where(values == 0, scored + 1e-6 * NOISE, scored)
    background = assert_same_brain(noisy)
    assert background.level == pytest.approx(scored.min(), abs=1e-5)
    assert background.tolerance == pytest.approx(1e-3 * np.ptp(scored), rel=1e-4)


def test_noise_in_scaled_integers_is_background() -> None:
    """As nibabel stores floats in int16: noise of a few raw units, and no raw value that is exactly 0."""
    values = around(0.03 * NOISE)
    slope, inter = float(np.ptp(values)) / 65000, 240.0
    raw = np.round((values - inter) / slope).astype(np.int16)
    assert len(np.unique(raw[brain() == 0])) > 10
    background = assert_same_brain(raw, slope, inter)
    assert slope * background.level + inter == pytest.approx(0, abs=slope)


def test_one_spike_does_not_make_the_brain_background() -> None:
    voxels = np.pad(around(1e-3 * NOISE), 20)
    voxels[32, 30, 28] = 1e7
    background = background_of(voxels)
    np.testing.assert_array_equal(background.is_brain(voxels), np.pad(brain(), 20) != 0)
    assert background.tolerance == pytest.approx(0.5, rel=0.01)


# The corners


def test_the_level_is_what_most_corners_have() -> None:
    for level in (0, -7):
        voxels = brain(background=level)
        voxels[0, 0, 0] = voxels[-1, 0, 0] = voxels[0, -1, -1] = 90
        assert background_of(voxels) == Background(level)


def test_corners_that_hold_brain_too_are_judged_by_their_outermost_voxel() -> None:
    voxels = np.full(SHAPE, 300, np.int16)
    voxels[:, ::2] = 400
    voxels[:: SHAPE[0] - 1, :: SHAPE[1] - 1, :: SHAPE[2] - 1] = -5
    assert background_of(voxels) == Background(-5)


@pytest.mark.parametrize(
    ("dtype", "slope", "inter", "expected"),
    [("int16", 1, 0, 0), ("int16", 2, -10, 5), ("int16", 1, 0.4, 0), ("float32", 2, -5, 2.5), ("uint8", -1, 7, 7)],
)
def test_where_no_corners_agree_the_background_is_what_stands_for_the_value_0(
    dtype: str, slope: float, inter: float, expected: float
) -> None:
    voxels = RANDOM.integers(20, 250, SHAPE).astype(np.int16).astype(dtype)
    assert (background := background_of(voxels, slope, inter)).level == expected
    assert str(background.level) in (str(float(expected)), str(expected))  # not -0.0


def test_value_0_that_the_numbers_of_a_type_do_not_reach_is_the_nearest_of_them() -> None:
    voxels = RANDOM.integers(20, 250, SHAPE).astype(np.uint8)
    assert background_of(voxels, slope=1, inter=50).level == 0
    assert background_of(voxels, slope=1, inter=-300).level == 255


def test_corners_that_vary_as_much_as_tissue_are_no_noise() -> None:
    assert MAX_TOLERANCE * 500 < 2 * 20
    background = background_of(around(20 * RINGING))
    assert background.level == 0
    assert background.tolerance == pytest.approx(0.5, rel=0.05)


# How far the values go


def test_the_reach_is_the_distance_of_the_farthest_value_on_either_side() -> None:
    assert find_reach(volume_of(brain()), 0) == 500
    assert find_reach(volume_of(-brain()), 0) == 500
    assert find_reach(volume_of(brain()), 600) == 600


def test_the_reach_leaves_out_a_thousandth_of_the_brain_and_no_more() -> None:
    voxels = np.zeros((50, 50, 40), np.float32)
    voxels[:, :, :20] = np.linspace(1, 100, 50_000).reshape(50, 50, 20)
    voxels[0, 0, :20] = voxels[0, 1, :20] = voxels[0, 2, :9] = 1e6
    assert find_reach(volume_of(voxels), 0) == pytest.approx(100, abs=0.01)  # without 49 of 50,000
    voxels[0, 2, 9] = -2e6
    assert find_reach(volume_of(voxels), 0) == 1e6


def test_the_reach_is_that_of_the_voxels_beyond_the_noise_or_of_all_where_none_is() -> None:
    values = np.concatenate([np.ones(99_000), np.linspace(2, 1001, 1000)]).reshape(10, 100, 100)
    assert find_reach(volume_of(values), 0) == 902  # without 99 of 100,000
    assert find_reach(volume_of(values), 0, noise=1) == 1001  # without none of 1000
    assert find_reach(volume_of(values), 0, noise=2000) == 902
    assert find_reach(volume_of(np.zeros(SHAPE)), 0) == 0


@pytest.mark.parametrize(("n_spikes", "value"), [(2, 1e6), (20, 3e5)])
def test_spikes_in_a_small_volume_leave_the_brain_and_the_tolerance(n_spikes: int, value: float) -> None:
    voxels = np.zeros((64, 64, 40), np.float32)
    voxels[10:50, 10:50, 5:35] = np.linspace(100, 500, 48_000).reshape(40, 40, 30)
    brain = voxels > 0
    voxels[20, 20, 10 : 10 + n_spikes] = value
    background = background_of(voxels)
    np.testing.assert_array_equal(background.is_brain(voxels), brain)
    assert background.tolerance == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS[::5])
def test_the_background_depends_neither_on_orientation_nor_on_margins(
    order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    expected = background_of(brain(np.float32, top=400.5))
    grid = oriented_grid(SHAPE, order, flips)
    voxels = stored(brain(np.float32, top=400.5), grid)
    assert find_background(Volume(voxels=voxels, slope=1, inter=0, grid=grid)) == expected
    assert background_of(np.pad(brain(np.float32, top=400.5), 7)) == expected
