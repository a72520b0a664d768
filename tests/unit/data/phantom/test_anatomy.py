"""The healthy brain of a phantom: template, pose, deformation and smooth random fields."""

import numpy as np
import pytest

from brats.data.phantom.anatomy import (
    WORK_BOX,
    Brain,
    Pose,
    draw_pose,
    load_template,
    make_brain,
    offsets_from,
    smooth_field,
    upsample,
)

pytestmark = pytest.mark.medium

PUSH_CENTRE = np.array([90.0, 130.0, 90.0])


@pytest.fixture(scope="module")
def brain() -> Brain:
    rng = np.random.default_rng(0)
    return make_brain(rng, draw_pose(rng), PUSH_CENTRE, 20.0)


def test_template_is_the_whole_mni152_brain() -> None:
    template = load_template()
    assert np.count_nonzero(template.brain > 127) / 1000 == pytest.approx(1887, abs=15)
    assert (template.gm.astype(int) + template.wm).max() <= 255


def test_template_is_stored_lps() -> None:
    # the cerebellum and brain stem lie low and to the back, which is high Y in LPS
    brain = load_template().brain > 127
    low, high = (np.argwhere(brain[:, :, z])[:, 1].mean() for z in (10, 120))
    assert low > high


def test_sites_of_tumours_are_white_matter() -> None:
    template = load_template()
    at_sites = template.wm[tuple(template.white_sites.T)]
    assert np.mean(at_sites > 127) > 0.95


def test_ventricles_of_the_template_have_a_realistic_volume() -> None:
    assert 5 < load_template().ventricles.sum() / 1000 < 40  # ml


def test_pose_maps_there_and_back() -> None:
    voxels = np.array([[10, 20, 30], [100, 50, 70]])
    pose = draw_pose(np.random.default_rng(1))
    np.testing.assert_allclose(pose.to_template(pose.from_template(voxels)), voxels)


def test_pose_shrinks_the_template_to_its_size() -> None:
    pose = Pose(matrix=np.eye(3) / 0.5, centre=np.array([70.0, 90.0, 80.0]))
    ends = pose.from_template(np.array([[60, 90, 80], [80, 90, 80]]))
    np.testing.assert_allclose(ends, [[114, 131, 69], [124, 131, 69]])


def test_fractions_of_tissue_add_up_to_one(brain: Brain) -> None:
    total = sum((brain.contents[tissue] for tissue in ("csf", "gm", "wm")), np.float32(0))
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert min(float(brain.contents[tissue].min()) for tissue in ("csf", "gm", "wm")) >= 0


def test_brain_fills_its_box_and_lies_within_the_working_box(brain: Brain) -> None:
    assert brain.inside.shape == tuple(side.stop - side.start for side in brain.box)
    for axis, (side, work) in enumerate(zip(brain.box, WORK_BOX, strict=True)):
        others = tuple({0, 1, 2} - {axis})
        filled = np.flatnonzero(brain.inside.sum(axis=others))
        assert (filled[0], filled[-1]) == (0, side.stop - side.start - 1)
        assert work.start <= side.start < side.stop <= work.stop


def test_ventricles_are_fluid(brain: Brain) -> None:
    assert brain.contents["csf"][brain.ventricles > 0.9].min() > 0.8


def test_every_content_has_the_shape_of_the_box(brain: Brain) -> None:
    assert {content.shape for content in brain.contents.values()} == {brain.inside.shape}
    assert {content.dtype for content in brain.contents.values()} == {np.dtype(np.float32)}


def test_larger_tumour_pushes_tissue_farther() -> None:
    ventricles = []
    for radius_mm in (2.0, 25.0):
        rng = np.random.default_rng(2)
        pushed = make_brain(rng, draw_pose(rng), PUSH_CENTRE, radius_mm)
        x = np.arange(pushed.box[0].start, pushed.box[0].stop)
        weight = pushed.ventricles.sum((1, 2))
        ventricles.append((x * weight).sum() / weight.sum())
    assert ventricles[1] > ventricles[0] + 1  # away from the tumour at lower X


def test_offsets_are_measured_from_the_centre_along_each_axis() -> None:
    x, y, z = offsets_from(np.array([1.0, 5.0, 2.5]), (slice(0, 3), slice(4, 6), slice(2, 3)))
    assert x.tolist() == [[[-1]], [[0]], [[1]]]
    assert y.tolist() == [[-1], [0]]
    assert z.tolist() == [-0.5]


def test_upsampling_keeps_constants_and_slopes() -> None:
    spacing, shape = 2.5, (9, 4, 3)
    n_control = [int((n - 1) / spacing) + 4 for n in shape]
    constant = np.full(n_control, 7, np.float32)
    np.testing.assert_allclose(upsample(constant, shape, spacing), 7, rtol=1e-5)
    slope = np.broadcast_to(spacing * (np.arange(n_control[0], dtype=np.float32) - 1)[:, None, None], n_control)
    np.testing.assert_allclose(upsample(slope, shape, spacing)[:, 0, 0], np.arange(9), atol=1e-4)


def test_smooth_field_has_unit_deviation_and_varies_over_its_spacing() -> None:
    shape = (60, 50, 40)
    slow, quick = (smooth_field(np.random.default_rng(3), shape, spacing) for spacing in (20, 4))
    assert slow.dtype == np.float32
    assert slow.shape == shape
    assert slow.std() == pytest.approx(1, abs=1e-3)
    assert quick.std() == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(slow, axis=0)).mean() < 0.35 * np.abs(np.diff(quick, axis=0)).mean()


def test_smooth_field_repeats_with_its_generator() -> None:
    one, other = (smooth_field(np.random.default_rng(4), (20, 20, 20), 5) for _ in range(2))
    np.testing.assert_array_equal(one, other)
