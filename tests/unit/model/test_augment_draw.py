"""The draws of augmentation: pure, the same in any batch, and as often and as strong as stated."""

import math

import numpy as np
import numpy.typing as npt
import pytest

from brats.config import Augmentation
from brats.model import augment_draw
from brats.model.augment_draw import (
    ELASTIC,
    FLIPS,
    IMAGE_COLUMNS,
    INTENSITY,
    MATRIX,
    N_POSITIONS,
    SLICE_COLUMNS,
    Range,
    draw,
)

Matrix = npt.NDArray[np.float32]
GOLDEN = [
    -0.9682605, 0.2499433, -1.215588, 0.2499433, 0.9682605, -2.602491, 0.0, 11549.13,
    1.170202, -0.2226105, 0.9069194, 0.0, 16272.28, 0.0, 1.0, 0.1890299, 8107.618,
]  # fmt: skip
SLICES = [(f"case{number // 20}", number % 20) for number in range(60)]


def full(slices: list[tuple[str, int]], n_channels: int = 2, seed: int = 0, epoch: int = 1) -> Matrix:
    return draw(slices, seed=seed, epoch=epoch, n_channels=n_channels, kind="full")


@pytest.fixture(scope="module")
def many() -> Matrix:
    return full([(f"case{number}", 0) for number in range(20_000)])


# Purity


def test_the_order_and_the_company_of_slices_change_no_draw() -> None:
    whole = full(SLICES)
    np.testing.assert_array_equal(full(SLICES[::-1]), whole[::-1])
    for rank in range(3):
        np.testing.assert_array_equal(full(SLICES[rank::3]), whole[rank::3])
    np.testing.assert_array_equal(np.concatenate([full([entry]) for entry in SLICES]), whole)


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 2}])
def test_another_seed_or_epoch_draws_anew(other: dict[str, int]) -> None:
    assert (full(SLICES, **other) != full(SLICES)).any(axis=1).all()


def test_every_slice_of_every_case_has_draws_of_its_own() -> None:
    assert len(np.unique(full(SLICES), axis=0)) == len(SLICES)


def test_a_slice_that_comes_again_is_drawn_anew_by_its_occurrence() -> None:
    again = full([SLICES[0], SLICES[1], SLICES[0], SLICES[0]])
    assert len(np.unique(again, axis=0)) == 4
    kinds: list[Augmentation] = ["flips", "full"]
    for kind in kinds:
        one_by_one = [
            draw([SLICES[0]], seed=0, epoch=1, n_channels=2, kind=kind, occurrences=[count]) for count in range(3)
        ]
        at_once = draw([SLICES[0]] * 3, seed=0, epoch=1, n_channels=2, kind=kind)
        np.testing.assert_array_equal(np.concatenate(one_by_one), at_once)


def test_another_modality_changes_no_draw_of_the_others() -> None:
    np.testing.assert_array_equal(full(SLICES, 4)[:, : len(SLICE_COLUMNS) + len(IMAGE_COLUMNS)], full(SLICES, 1))


def test_another_parameter_changes_no_draw_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    before = full(SLICES, 1)
    monkeypatch.setattr(augment_draw, "INTENSITY", {"sharpness": Range(0.5, 1, 2), **INTENSITY})
    np.testing.assert_array_equal(np.delete(full(SLICES, 1), len(SLICE_COLUMNS), axis=1), before)


def test_the_flips_of_full_are_those_of_flips(many: Matrix) -> None:
    flips = draw([(f"case{number}", 0) for number in range(20_000)], seed=0, epoch=1, n_channels=2, kind="flips")
    mirrored = np.sign(np.linalg.det(matrices(many))) < 0
    np.testing.assert_array_equal(mirrored, flips.sum(axis=1) == 1)


def test_the_draws_of_a_slice_never_change() -> None:
    drawn = draw([("BraTS2021_00006", 115)], seed=3, epoch=5, n_channels=1, kind="full", occurrences=[2])
    np.testing.assert_allclose(drawn, [GOLDEN], rtol=1e-6)


# The matrix


@pytest.mark.parametrize(("kind", "n_columns"), [("none", 0), ("flips", 2), ("full", 8 + 4 * 9)])
@pytest.mark.parametrize("n_slices", [0, 1, 5])
def test_the_matrix_has_a_row_per_slice_and_the_columns_of_its_kind(
    kind: Augmentation, n_columns: int, n_slices: int
) -> None:
    drawn = draw(SLICES[:n_slices], seed=0, epoch=1, n_channels=4, kind=kind)
    assert drawn.shape == (n_slices, n_columns)
    assert drawn.dtype == np.float32
    assert drawn.flags.c_contiguous


def column(drawn: Matrix, name: str, channel: int = 0) -> Matrix:
    if name in SLICE_COLUMNS:
        return drawn[:, SLICE_COLUMNS.index(name)]
    return drawn[:, len(SLICE_COLUMNS) + channel * len(IMAGE_COLUMNS) + IMAGE_COLUMNS.index(name)]


def matrices(drawn: Matrix) -> Matrix:
    """From where each pixel is taken, (B, 2, 2)."""
    return drawn[:, : len(MATRIX)].reshape(-1, 2, 3)[:, :, :2]


# Modality dropout


def kept(many_slices: list[tuple[str, int]], dropout: float, n_channels: int = 4) -> Matrix:
    """1 or 0 for each slice and modality, the only parameters without augmentation."""
    return draw(many_slices, seed=0, epoch=1, n_channels=n_channels, kind="none", modality_dropout=dropout)


def test_modality_dropout_changes_no_other_draw_and_comes_behind_them() -> None:
    kinds: list[Augmentation] = ["none", "flips", "full"]
    for kind in kinds:
        plain = draw(SLICES, seed=0, epoch=1, n_channels=4, kind=kind)
        dropped = draw(SLICES, seed=0, epoch=1, n_channels=4, kind=kind, modality_dropout=0.3)
        np.testing.assert_array_equal(dropped[:, :-4], plain)
        np.testing.assert_array_equal(dropped[:, -4:], kept(SLICES, 0.3))
        nothing = draw(SLICES, seed=0, epoch=1, n_channels=4, kind=kind, modality_dropout=0.0)
        np.testing.assert_array_equal(nothing, plain)


def test_a_slice_loses_the_same_modalities_in_any_batch() -> None:
    whole = kept(SLICES, 0.5)
    np.testing.assert_array_equal(kept(SLICES[::-1], 0.5), whole[::-1])
    np.testing.assert_array_equal(np.concatenate([kept([entry], 0.5) for entry in SLICES]), whole)


def test_each_modality_is_dropped_with_the_stated_probability_and_never_all_of_them() -> None:
    found = kept([("case", row) for row in range(20_000)], 0.3)
    assert set(np.unique(found)) == {0, 1}
    assert found.sum(axis=1).min() == 1
    # One of the four is kept, each as often, where all would have been dropped.
    np.testing.assert_allclose(1 - found.mean(axis=0), 0.3 - 0.3**4 / 4, atol=0.01)
    assert (found.sum(axis=1) == 4).mean() == pytest.approx(0.7**4, abs=0.01)


def test_with_certain_dropout_one_modality_is_left_each_as_often() -> None:
    found = kept([("case", row) for row in range(20_000)], 1.0, n_channels=3)
    assert (found.sum(axis=1) == 1).all()
    np.testing.assert_allclose(found.mean(axis=0), 1 / 3, atol=0.015)


# Frequencies and strengths


@pytest.mark.parametrize("channel", [0, 1])
@pytest.mark.parametrize("name", [*ELASTIC, *INTENSITY])
def test_a_parameter_is_drawn_as_often_and_as_strong_as_stated(many: Matrix, name: str, channel: int) -> None:
    stated, drawn = {**ELASTIC, **INTENSITY}[name], column(many, name, channel)
    applied = drawn[drawn != stated.neutral]
    assert len(applied) / len(drawn) == pytest.approx(stated.probability, abs=0.015)
    assert stated.low <= applied.min() + 1e-6
    assert applied.max() <= stated.high + 1e-6
    middle = math.sqrt(stated.low * stated.high) if stated.log else (stated.low + stated.high) / 2
    assert (applied <= middle).mean() == pytest.approx(1 if stated.low == stated.high else 0.5, abs=0.03)


def test_half_of_the_slices_are_flipped_along_each_axis_independently() -> None:
    flips = draw([("case", row) for row in range(20_000)], seed=0, epoch=1, n_channels=1, kind="flips")
    assert set(np.unique(flips)) == {0, 1}
    np.testing.assert_allclose(flips.mean(axis=0), FLIPS["flip_h"].probability, atol=0.02)
    assert flips.all(axis=1).mean() == pytest.approx(0.25, abs=0.02)


def test_a_slice_is_turned_and_scaled_but_not_sheared(many: Matrix) -> None:
    found = matrices(many)
    scale = 1 / np.sqrt(np.abs(np.linalg.det(found)))
    product = found @ found.transpose(0, 2, 1) * scale[:, None, None] ** 2
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(2), product.shape), atol=1e-5)
    assert 0.75 - 1e-5 <= scale.min() < 0.76
    assert 1.29 < scale.max() <= 1.3 + 1e-5
    assert (np.abs(scale - 1) > 1e-4).mean() == pytest.approx(0.3, abs=0.015)
    angle = np.arccos(np.clip(np.abs(found[:, 0, 0]) * scale, 0, 1))
    assert np.degrees(angle.max()) == pytest.approx(30, abs=0.2)
    assert (angle > 2e-3).mean() == pytest.approx(0.3, abs=0.015)


def test_slices_are_shifted_by_at_most_five_pixels_and_most_not_at_all(many: Matrix) -> None:
    for name in ("h_from_1", "w_from_1"):
        shift = column(many, name)
        assert 4.9 < np.abs(shift).max() <= 5
        assert (shift != 0).mean() == pytest.approx(0.3, abs=0.015)


def test_draws_of_parameters_and_modalities_are_independent(many: Matrix) -> None:
    names = [(name, channel) for name in INTENSITY for channel in (0, 1) if name != "low_resolution"]
    columns = np.stack([column(many, name, channel) for name, channel in names])
    correlated = np.abs(np.corrcoef(columns)) - np.eye(len(columns))
    assert correlated.max() < 0.04


def test_positions_are_read_exactly_from_float32(many: Matrix) -> None:
    for name in ("elastic_at", "field_at", "noise_at"):
        assert column(many, name).max() < N_POSITIONS + 1 < 2**24
        assert len(np.unique(column(many, name).astype(int))) > 0.6 * N_POSITIONS
