"""Degraded cases: each change as strong as stated and where it belongs, the same each time."""

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from brats.config import DEGRADATION_KINDS, MODALITIES, DegradationKind
from brats.data.batches import InputSpec
from brats.data.case import Case
from brats.data.degrade import STRENGTHS, Degradation, Scan, blur, degradations, degrade, lower_resolution
from brats.errors import CaseError
from brats.model.inputs import RawCase
from tests.support.prepared import tiny_case
from tests.support.volumes import case_of

Array = npt.NDArray[np.float64]

CHANGING: list[DegradationKind] = [kind for kind in DEGRADATION_KINDS if kind != "missing"]
ALL = degradations(DEGRADATION_KINDS, ("flair", "t1ce"))
SHAPE = (24, 20, 18)


def strongest(kind: DegradationKind) -> Degradation:
    return degradations([kind], ["flair"])[-1]


def brain_case(case_id: str = "case", *, background: float = 0, dtype: type = np.float32, low: float = 400) -> Case:
    """A case of one image, a block of brain within background, of values from low to low + 400."""
    voxels: npt.NDArray[Any] = np.full(SHAPE, background, dtype)
    inner = np.random.default_rng(0).uniform(low, low + 400, (16, 14, 12))
    voxels[4:20, 3:17, 3:15] = inner.astype(dtype)
    labels = np.zeros(SHAPE, np.uint8)
    labels[0, 0, 0] = labels[-1, -1, -1] = 2  # outside of the brain, so that the crop has background
    return case_of(case_id, labels, flair=voxels)


def brain_of(case: Case, name: str = "flair") -> npt.NDArray[np.bool_]:
    return case.intensities[name].is_brain(case.images[name])


def values_of(case: Case, name: str = "flair") -> Array:
    """The raw values in the brain."""
    values: Array = case.images[name][brain_of(case, name)].astype(np.float64)
    return values


def scan_of(values: Array, brain: npt.NDArray[np.bool_] | None = None, *, z_mm: float = 1) -> Scan:
    """An image to blur, (Z, H, W), all of it brain unless stated."""
    return Scan(
        values=values.astype(np.float32),
        floor=0,
        brain=np.ones(values.shape, bool) if brain is None else brain,
        std=1,
        spacing_zhw_mm=(z_mm, 1, 1),
        random=np.random.default_rng(0),
    )


# Which there are


def test_each_kind_comes_in_two_strengths_and_each_modality_is_missing_once() -> None:
    assert [each.name for each in degradations(["noise", "missing"], ["t1", "t2"])] == [
        "noise-mild",
        "noise-strong",
        "missing-t1",
        "missing-t2",
    ]
    assert len(degradations(DEGRADATION_KINDS, MODALITIES)) == 5 * 2 + 4
    assert all(0 < mild < strong for mild, strong in STRENGTHS.values())


# All of them


@pytest.mark.parametrize("degradation", ALL, ids=lambda each: each.name)
def test_a_case_is_degraded_alike_each_time_and_stays_as_it_was(degradation: Degradation) -> None:
    case, again = tiny_case(), tiny_case()
    first, second = degrade(case, degradation), degrade(again, degradation)
    for name, image in case.images.items():
        np.testing.assert_array_equal(first.images[name], second.images[name])
        np.testing.assert_array_equal(image, tiny_case().images[name])
    changed = [name for name in case.images if not np.array_equal(first.images[name], case.images[name])]
    assert changed == ([degradation.modality] if degradation.modality else list(case.images))
    untouched = [
        item.name for item in dataclasses.fields(Case) if item.name not in ("images", "intensities", "labels")
    ]
    assert all(getattr(first, name) == getattr(case, name) for name in untouched)
    assert first.labels is case.labels


@pytest.mark.parametrize("kind", ["noise", "bias-field"])
def test_other_cases_and_other_modalities_are_degraded_with_other_numbers(kind: DegradationKind) -> None:
    case = tiny_case("a")
    twins = dataclasses.replace(case, images={"flair": case.images["flair"], "t1ce": case.images["flair"]})
    twins = dataclasses.replace(twins, intensities=dict.fromkeys(twins.images, case.intensities["flair"]))
    degraded = degrade(twins, strongest(kind))
    assert not np.array_equal(degraded.images["flair"], degraded.images["t1ce"])
    other = degrade(dataclasses.replace(twins, case_id="b"), strongest(kind))
    assert not np.array_equal(degraded.images["flair"], other.images["flair"])


@pytest.mark.parametrize("kind", CHANGING)
@pytest.mark.parametrize(
    ("background", "dtype", "low"),
    [(0, np.int16, 1), (0, np.uint8, 1), (0, np.float32, 0.7), (0, np.float32, -200), (-50, np.int16, -49)],
)
def test_background_stays_background_and_brain_stays_brain(
    kind: DegradationKind, background: float, dtype: type, low: float
) -> None:
    case = brain_case(background=background, dtype=dtype, low=low if dtype != np.uint8 else 1)
    degraded = degrade(case, strongest(kind))
    np.testing.assert_array_equal(brain_of(degraded), brain_of(case))
    assert (degraded.images["flair"][~brain_of(case)] == background).all()


@pytest.mark.parametrize("kind", CHANGING)
def test_a_background_that_only_marks_itself_is_no_signal(kind: DegradationKind) -> None:
    """Values of a million above it, times a bias field or a gain, would be nothing like those of the image."""
    marked, plain = brain_case(background=-1e6), brain_case()
    degraded = degrade(marked, strongest(kind))
    np.testing.assert_array_equal(brain_of(degraded), brain_of(marked))
    assert np.abs(values_of(degraded) - values_of(plain)).max() < values_of(plain).max()


@pytest.mark.parametrize("kind", CHANGING)
def test_normalised_values_have_mean_0_and_deviation_1_again_but_after_a_gain(kind: DegradationKind) -> None:
    degraded = degrade(brain_case(), strongest(kind))
    offset, scale = degraded.intensities["flair"].raw_offset_scale()
    normalised = (values_of(degraded) - offset) / scale
    close = (abs(normalised.mean()) < 1e-3) and (abs(normalised.std() - 1) < 1e-3)
    assert close == (kind != "gain")


def test_a_scaled_image_is_normalised_by_its_scaled_values() -> None:
    voxels = np.random.default_rng(0).integers(100, 900, SHAPE).astype(np.int16)
    voxels[::23, ::19, ::17] = 0
    case = case_of("case", flair=voxels, slope=-0.5, inter=7.0)
    degraded = degrade(case, strongest("blur"))
    intensity = degraded.intensities["flair"]
    assert intensity.mean == pytest.approx(7 - 0.5 * values_of(degraded).mean())
    assert intensity.std == pytest.approx(0.5 * values_of(degraded).std())


def test_an_image_without_any_contrast_left_is_refused() -> None:
    voxels = np.full((4, 4, 4), 300, np.int16)
    voxels[0, 0, 0], voxels[::3, ::3, 3] = 340, 0
    voxels[1:, ::3, 0] = voxels[0, 3, 0] = 0
    case = case_of("case", flair=voxels)
    one_voxel = Degradation(name="low-resolution-x", kind="low-resolution", strength=1000)
    with pytest.raises(CaseError, match="no contrast left"):
        degrade(case, one_voxel)


# Each of them


@pytest.mark.parametrize("number", [0, 1])
def test_noise_has_the_stated_share_of_the_deviation_of_the_brain(number: int) -> None:
    case = brain_case(low=4000)  # so far from 0 that a magnitude has normal noise
    degraded = degrade(case, degradations(["noise"], [])[number])
    noise = (values_of(degraded) - values_of(case)) / case.intensities["flair"].std
    assert noise.std() == pytest.approx(STRENGTHS["noise"][number], rel=0.05)
    assert abs(noise.mean()) < 0.05 * STRENGTHS["noise"][number] + 0.01


def test_noise_of_a_dark_magnitude_is_rician_so_that_it_brightens() -> None:
    case = brain_case(low=1)
    dark = values_of(case) < 40
    degraded = degrade(case, strongest("noise"))
    sigma = STRENGTHS["noise"][1] * case.intensities["flair"].std
    expected = [sigma * math.sqrt(math.pi / 2) * (1 + v**2 / (4 * sigma**2)) for v in values_of(case)[dark]]
    assert values_of(degraded).min() > 0
    assert values_of(degraded)[dark].mean() == pytest.approx(np.mean(expected), rel=0.1)


def test_the_noise_of_both_strengths_has_one_pattern() -> None:
    case = brain_case(low=-200)  # values below the background, so that the noise is normal
    mild, strong = (values_of(degrade(case, each)) - values_of(case) for each in degradations(["noise"], []))
    np.testing.assert_allclose(strong, 3 * mild, atol=5)  # of 200: values next to the background are moved off it


def test_a_bias_field_is_a_smooth_factor_of_the_stated_deviation() -> None:
    case = brain_case()
    for each, strength in zip(degradations(["bias-field"], []), STRENGTHS["bias-field"], strict=True):
        degraded = degrade(case, each)
        factors = np.log(values_of(degraded) / values_of(case))
        assert factors.mean() == pytest.approx(0, abs=1e-4)
        assert factors.std() == pytest.approx(strength, rel=1e-3)
        inner = np.log(degraded.images["flair"][3:15, 4:20, 3:17] / case.images["flair"][3:15, 4:20, 3:17])
        assert max(np.abs(np.diff(inner, axis=axis)).max() for axis in range(3)) < strength


def test_a_gain_is_one_factor_of_a_modality_and_its_normalisation_does_not_follow() -> None:
    case = tiny_case()
    degraded = degrade(case, degradations(["gain"], [])[0])
    for name in case.images:
        factors = values_of(degraded, name) / values_of(case, name)
        assert factors.std() < 1e-6
        assert min(abs(factors[0] - 1.1), abs(factors[0] - 1 / 1.1)) < 1e-6
        assert degraded.intensities[name].mean == case.intensities[name].mean
        assert degraded.intensities[name].std == case.intensities[name].std
    random = [degrade(dataclasses.replace(case, case_id=str(n)), strongest("gain")) for n in range(20)]
    brighter = [values_of(each).mean() > values_of(case).mean() for each in random]
    assert 4 < sum(brighter) < 16


def test_blur_has_its_width_in_mm_along_every_axis() -> None:
    values = np.zeros((17, 31, 31))
    values[8, 15, 15] = 1
    blurred = blur(scan_of(values, z_mm=2), 2.0)
    assert blurred.sum() == pytest.approx(1, abs=1e-3)
    for axis, edge in enumerate((2, 1, 1)):
        profile = blurred.sum(axis=tuple({0, 1, 2} - {axis}))
        distances = edge * (np.arange(len(profile)) - len(profile) // 2)
        assert math.sqrt((profile * distances**2).sum()) == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("change", [blur, lower_resolution])
@pytest.mark.parametrize("strength", [2.0, 4.0, 5.0])
def test_the_edge_of_the_brain_is_not_mixed_with_background(change: object, strength: float) -> None:
    brain = np.zeros((9, 14, 13), bool)
    brain[2:8, 1:12, 3:11] = True
    changed = change(scan_of(300.0 * brain, brain), strength)  # type: ignore[operator]
    np.testing.assert_allclose(changed[brain], 300, rtol=1e-5)


def test_a_lower_resolution_shows_the_means_of_larger_voxels() -> None:
    board = np.indices((8, 8, 8)).sum(axis=0) % 2 * 100.0
    np.testing.assert_allclose(lower_resolution(scan_of(board), 2.0), 50, rtol=1e-5)
    ramp = np.broadcast_to(np.arange(12.0), (4, 4, 12))
    np.testing.assert_allclose(lower_resolution(scan_of(ramp), 4.0)[:, :, 2:10], ramp[:, :, 2:10], rtol=1e-5)


def test_an_axis_of_voxels_as_large_keeps_its_resolution() -> None:
    stripes = np.broadcast_to((np.arange(8) % 2 * 100.0)[:, None, None], (8, 6, 6))
    np.testing.assert_allclose(lower_resolution(scan_of(stripes, z_mm=2), 2.0), stripes, rtol=1e-5)
    np.testing.assert_allclose(lower_resolution(scan_of(stripes, z_mm=1), 2.0), 50, rtol=1e-5)


def test_the_network_sees_0_of_a_missing_modality_and_the_others_as_they_are() -> None:
    case = tiny_case()
    degraded = degrade(case, Degradation(name="missing-t1ce", kind="missing", modality="t1ce"))
    spec = InputSpec(modalities=("flair", "t1ce"))
    before, seen = (next(RawCase.of(each, spec, pinned=False).batches(10)) for each in (case, degraded))
    assert torch.equal(seen[:, 0], before[:, 0])
    assert before[:, 1].any()
    assert not seen[:, 1].any()
