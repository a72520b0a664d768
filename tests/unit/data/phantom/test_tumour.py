"""A tumour grown in brains so simple that its extent is known."""

import numpy as np
import pytest
from scipy import ndimage

from brats.data.phantom.anatomy import Brain, Field
from brats.data.phantom.tumour import Design, Kind, Tumour, design_tumour, grow_tumour
from brats.labels import ED, ET, NCR

SIDE = 80
BOX = (slice(30, 30 + SIDE), slice(40, 40 + SIDE), slice(20, 20 + SIDE))
MIDDLE = np.array([[70.0, 80.0, 60.0]])
SITES = np.stack(np.meshgrid(*3 * [np.arange(0.0, 150, 5)]), -1).reshape(-1, 3)


def brain_of(white: Field, grey: Field) -> Brain:
    return Brain(
        box=BOX,
        inside=np.ones(white.shape, bool),
        ventricles=np.zeros(white.shape, np.float32),
        contents={"csf": 1 - white - grey, "gm": grey, "wm": white},
    )


def uniform(value: float) -> Field:
    return np.full((SIDE, SIDE, SIDE), value, np.float32)


def grow(brain: Brain, *, rim_mm: float = 3.0, volume_ml: float = 20.0) -> Tumour:
    design = Design(volume_ml=volume_ml, core_fraction=0.3, rim_mm=rim_mm, foci=MIDDLE)
    return grow_tumour(np.random.default_rng(0), design, brain)


@pytest.fixture(scope="module")
def in_white_matter() -> Tumour:
    return grow(brain_of(uniform(1), uniform(0)))


def test_volume_and_composition_are_as_designed(in_white_matter: Tumour) -> None:
    labels = in_white_matter.labels
    assert 0.95 * 20_000 < np.count_nonzero(labels) <= 20_000  # oedema apart from the core is left out
    assert np.count_nonzero((labels == NCR) | (labels == ET)) == pytest.approx(6_000, abs=5)


def test_tumour_lies_around_its_focus(in_white_matter: Tumour) -> None:
    centre = np.argwhere(in_white_matter.labels > 0).mean(0)
    np.testing.assert_allclose(centre, [40, 40, 40], atol=5)


def test_enhancing_rim_lies_between_necrosis_and_oedema(in_white_matter: Tumour) -> None:
    labels = in_white_matter.labels
    from_middle = np.linalg.norm(np.indices(labels.shape).reshape(3, -1) - 40.0, axis=0).reshape(labels.shape)
    ncr, et, ed = (from_middle[labels == label].mean() for label in (NCR, ET, ED))
    assert ncr < et < ed


def test_rim_of_0_mm_means_no_et() -> None:
    labels = grow(brain_of(uniform(1), uniform(0)), rim_mm=0).labels
    assert set(np.unique(labels)) == {0, NCR, ED}


def test_strength_is_1_in_the_core_0_outside_and_between_in_the_oedema(in_white_matter: Tumour) -> None:
    labels, strength = in_white_matter.labels, in_white_matter.strength
    assert (strength[(labels == NCR) | (labels == ET)] == 1).all()
    assert (strength[labels == 0] == 0).all()
    assert 0 <= strength[labels == ED].min() < strength[labels == ED].max() < 1


def test_strength_of_oedema_falls_towards_its_edge(in_white_matter: Tumour) -> None:
    oedema = in_white_matter.labels == ED
    depth = ndimage.distance_transform_edt(in_white_matter.labels > 0)
    inner, edge = (in_white_matter.strength[oedema & where].mean() for where in (depth > 4, depth < 2))
    assert inner > 1.5 * edge


def test_oedema_spreads_along_white_matter_rather_than_grey() -> None:
    white = uniform(0)
    white[: SIDE // 2] = 1
    labels = grow(brain_of(white, 1 - white)).labels
    n_white, n_grey = (np.count_nonzero(half == ED) for half in (labels[: SIDE // 2], labels[SIDE // 2 :]))
    assert n_white > 2 * n_grey


def test_oedema_does_not_cross_fluid() -> None:
    white = uniform(1)
    white[60:66] = 0  # 20 mm from the focus, beyond the core
    labels = grow(brain_of(white, uniform(0)), volume_ml=60).labels
    assert (labels[:60] == ED).any()
    assert not labels[60:].any()


def test_core_leaves_the_ventricles_free() -> None:
    brain = brain_of(uniform(1), uniform(0))
    brain.ventricles[:40] = 1
    labels = grow(brain).labels
    assert not np.isin(labels[:40], (NCR, ET)).any()
    assert (labels[40:] == ET).any()


def test_every_part_of_the_tumour_has_core(in_white_matter: Tumour) -> None:
    labels = in_white_matter.labels
    parts, n_parts = ndimage.label(labels)
    assert set(parts[labels != ED]) - {0} == set(range(1, n_parts + 1))


@pytest.mark.parametrize(
    ("kind", "lowest_ml", "highest_ml", "has_rim"),
    [("usual", 20, 140, True), ("no ET", 20, 140, False), ("multifocal", 20, 140, True), ("tiny", 0.45, 0.9, True)],
)
def test_designs_of_each_kind(kind: Kind, lowest_ml: float, highest_ml: float, has_rim: bool) -> None:
    designs = [design_tumour(np.random.default_rng(seed), kind, SITES) for seed in range(50)]
    volumes = [design.volume_ml for design in designs]
    assert lowest_ml <= min(volumes) < max(volumes) <= highest_ml
    assert {design.rim_mm > 0 for design in designs} == {has_rim}
    assert {len(design.foci) for design in designs} == ({2, 3} if kind == "multifocal" else {1})


def test_other_foci_stay_clear_of_the_main_core() -> None:
    for seed in range(50):
        design = design_tumour(np.random.default_rng(seed), "multifocal", SITES)
        distances_mm = np.linalg.norm(design.foci[1:] - design.foci[0], axis=1)
        assert distances_mm.min() > 2 * design.core_radius_mm


def test_core_radius_is_that_of_a_ball() -> None:
    design = Design(volume_ml=8 * 4.18879, core_fraction=1 / 8, rim_mm=0, foci=MIDDLE)
    assert design.core_radius_mm == pytest.approx(10, abs=1e-3)  # 4/3 pi cm3
