"""Surface metrics: hand-computed distances, areas and empty masks, and parity with surface-distance and MONAI.

`surface_distance` 0.1 fails on empty masks under NumPy 2, so parity is taken on pairs that are not empty.
"""

import math
from glob import glob

import nibabel as nib
import numpy as np
import pytest
import surface_distance
from scipy import ndimage
from surface_distance import lookup_tables

from brats.data.codings import BRATS_2018
from brats.labels import REGIONS, Labels, region_mask
from brats.score import surface
from brats.score.surface import (
    HD95_ONE_EMPTY_MM,
    AreaWithin,
    Mask,
    Spacing,
    assd_mm,
    element_areas_mm2,
    surface_dice,
    surface_distances,
)

UNIT = (1.0, 1.0, 1.0)
SPACINGS = [UNIT, (1.0, 1.3, 1.7), (0.5, 5.0, 2.0), (3.0, 0.9, 0.9)]
TOLERANCES_MM = (0.5, 1.0, 4.0)  # the last is beyond the reach of offsets
EMPTY = np.zeros((5, 5, 5), bool)

uses_surface_distance = pytest.mark.filterwarnings(
    "ignore:Please import .* from the `scipy.ndimage`:DeprecationWarning"
)


def block(shape: tuple[int, int, int], *corners: tuple[int, int, int], size: int = 1) -> Mask:
    """A mask with a cube of `size` voxels at each corner."""
    mask = np.zeros(shape, bool)
    for x, y, z in corners:
        mask[x : x + size, y : y + size, z : z + size] = True
    return mask


def ball(shape: tuple[int, int, int], centre: tuple[int, int, int], radius: float) -> Mask:
    grid = np.indices(shape) - np.array(centre)[:, None, None, None]
    return np.asarray((grid**2).sum(axis=0) <= radius**2)


def noise(shape: tuple[int, int, int], density: float) -> Mask:
    return np.asarray(np.random.default_rng(0).random(shape) < density)


def hd95_mm(reference: Mask, predicted: Mask, spacing_mm: Spacing) -> float:
    return surface.hd95_mm(surface_distances(reference, predicted, spacing_mm))


def metrics(reference: Mask, predicted: Mask, spacing_mm: Spacing) -> dict[str, float]:
    distances = surface_distances(reference, predicted, spacing_mm)
    return {
        "hd95_mm": surface.hd95_mm(distances),
        "assd_mm": assd_mm(distances),
        **{f"nsd at {mm} mm": surface_dice(distances, mm) for mm in TOLERANCES_MM},
    }


def peer_metrics(reference: Mask, predicted: Mask, spacing_mm: Spacing) -> dict[str, float]:
    distances = surface_distance.compute_surface_distances(reference, predicted, spacing_mm)
    nsd = {mm: surface_distance.compute_surface_dice_at_tolerance(distances, mm) for mm in TOLERANCES_MM}
    return {
        "hd95_mm": float(surface_distance.compute_robust_hausdorff(distances, 95)),
        "assd_mm": float(np.mean(surface_distance.compute_average_surface_distance(distances))),
        **{f"nsd at {mm} mm": float(value) for mm, value in nsd.items()},
    }


@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_every_code_has_the_area_of_the_peers_table(spacing_mm: Spacing) -> None:
    expected = lookup_tables.create_table_neighbour_code_to_surface_area(spacing_mm)
    np.testing.assert_allclose(element_areas_mm2(spacing_mm), expected, rtol=1e-12)


def test_one_corner_is_cut_off_by_a_triangle_between_edge_midpoints() -> None:
    assert element_areas_mm2(UNIT)[0b10000000] == pytest.approx(math.sqrt(3) / 8)


def test_a_flat_face_has_the_area_of_the_voxel_side_it_cuts() -> None:
    areas = element_areas_mm2((2.0, 3.0, 5.0))
    assert areas[0b11110000] == pytest.approx(15)
    assert areas[0b11001100] == pytest.approx(10)
    assert areas[0b10101010] == pytest.approx(6)


def test_nothing_inside_or_nothing_outside_is_no_surface() -> None:
    assert element_areas_mm2(UNIT)[[0, 255]].tolist() == [0, 0]


def area_within_mm2(direction: AreaWithin, distance_mm: float) -> float:
    return float(direction.areas_mm2[direction.distances_mm <= distance_mm].max(initial=0))


def test_area_within_a_distance_is_that_of_the_elements_so_near() -> None:
    # Of the eight corners of a voxel, four are 2 mm from the other voxel, whose corners begin there, and four 3 mm.
    reference = block((9, 9, 9), (1, 1, 1))
    direction = surface_distances(reference, np.roll(reference, 3, axis=0), UNIT).reference
    corner_mm2 = math.sqrt(3) / 8
    assert direction.total_mm2 == pytest.approx(8 * corner_mm2)
    assert [area_within_mm2(direction, distance_mm) for distance_mm in (1.9, 2, 2.9, 3)] == pytest.approx(
        [0, 4 * corner_mm2, 4 * corner_mm2, 8 * corner_mm2]
    )


def test_area_beyond_the_reach_of_offsets_is_found_too() -> None:
    reference = block((30, 9, 9), (1, 1, 1))
    direction = surface_distances(reference, np.roll(reference, 20, axis=0), UNIT).predicted
    assert direction.distances_mm.max() == 20
    assert direction.areas_mm2.max() == pytest.approx(direction.total_mm2)
    assert area_within_mm2(direction, 19.5) == pytest.approx(direction.total_mm2 / 2)


def test_each_direction_is_searched_from_its_own_surface() -> None:
    one, two = block((60, 9, 9), (1, 1, 1)), block((60, 9, 9), (1, 1, 1), (50, 1, 1))
    distances = surface_distances(one, two, UNIT)
    assert distances.reference.distances_mm.max() == 0
    assert distances.predicted.distances_mm.max() == 49
    assert distances.predicted.total_mm2 == pytest.approx(2 * distances.reference.total_mm2)


def test_an_empty_mask_has_no_surface_and_leaves_the_other_without_distances() -> None:
    distances = surface_distances(block((5, 5, 5), (2, 2, 2)), EMPTY, UNIT)
    assert (distances.reference.total_mm2, distances.predicted.total_mm2) == pytest.approx((math.sqrt(3), 0))
    assert distances.reference.distances_mm.size == distances.predicted.distances_mm.size == 0


def test_both_masks_empty_are_at_distance_0() -> None:
    assert hd95_mm(EMPTY, EMPTY, UNIT) == 0


@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_one_mask_empty_is_the_fixed_distance_of_brats_2020(spacing_mm: Spacing) -> None:
    one = block((5, 5, 5), (2, 2, 2))
    assert hd95_mm(one, EMPTY, spacing_mm) == HD95_ONE_EMPTY_MM == 373.13
    assert hd95_mm(EMPTY, one, spacing_mm) == HD95_ONE_EMPTY_MM


def test_a_mask_is_at_distance_0_from_itself() -> None:
    mask = noise((9, 8, 7), 0.3)
    assert hd95_mm(mask, mask.copy(), UNIT) == 0


@pytest.mark.parametrize(("offset", "distance_mm"), [((5, 0, 0), 5), ((0, 5, 0), 10), ((0, 0, 5), 15)])
def test_voxels_5_apart_are_5_voxel_spacings_apart(offset: tuple[int, int, int], distance_mm: float) -> None:
    # half of the eight corners of the one voxel are 5 from the other, half are 4: the 95th percentile is 5
    reference = block((9, 9, 9), (1, 1, 1))
    predicted = np.roll(reference, offset, axis=(0, 1, 2))
    assert hd95_mm(reference, predicted, (1.0, 2.0, 3.0)) == pytest.approx(distance_mm)


def test_a_stray_voxel_counts_only_above_5_percent_of_the_surface() -> None:
    corners = [(x, y, 1) for x in range(1, 16, 3) for y in range(1, 19, 3)]
    thirty, five = block((60, 20, 4), *corners), block((60, 20, 4), *corners[-5:])
    stray = block((60, 20, 4), (50, 16, 1))
    assert hd95_mm(thirty, thirty | stray, UNIT) == 0
    assert hd95_mm(five, five | stray, UNIT) == 50 - 13


def test_the_percentile_weighs_area_and_not_the_number_of_elements() -> None:
    # The far voxel is 8 of 8 + 56 elements, 12.5 %, but 1.7 of the 1.7 + 48.4 mm² that make up the surface, 3.5 %.
    reference = block((30, 6, 6), (1, 1, 1), size=3)
    predicted = reference | block((30, 6, 6), (25, 1, 1))
    assert hd95_mm(reference, predicted, UNIT) == 0


def test_the_larger_direction_counts_whichever_mask_is_the_reference() -> None:
    one, two = block((20, 5, 5), (2, 2, 2)), block((20, 5, 5), (2, 2, 2), (12, 2, 2))
    assert hd95_mm(one, two, UNIT) == hd95_mm(two, one, UNIT) == 10


def test_masks_that_touch_the_border_of_a_crop_score_as_in_the_full_volume() -> None:
    reference, predicted = ball((9, 9, 9), (4, 4, 4), 4), ball((9, 9, 9), (4, 4, 4), 2)
    assert hd95_mm(np.pad(reference, 7), np.pad(predicted, 7), UNIT) == hd95_mm(reference, predicted, UNIT)


def test_the_memory_order_of_a_mask_does_not_matter() -> None:
    reference, predicted = noise((9, 8, 7), 0.1), ball((9, 8, 7), (4, 4, 4), 2)
    expected = hd95_mm(reference, predicted, (1.0, 1.3, 1.7))
    assert hd95_mm(np.asfortranarray(reference), np.asfortranarray(predicted), (1.0, 1.3, 1.7)) == expected


@pytest.mark.parametrize(("tolerance_mm", "share"), [(1.9, 0), (2, 0.5), (2.9, 0.5), (3, 1)])
def test_surface_dice_is_the_share_of_area_within_the_tolerance(tolerance_mm: float, share: float) -> None:
    # Of the eight corners of either voxel, four are 2 mm from the other voxel and four 3 mm.
    reference = block((9, 9, 9), (1, 1, 1))
    distances = surface_distances(reference, np.roll(reference, 3, axis=0), UNIT)
    assert surface_dice(distances, tolerance_mm) == pytest.approx(share)


def test_surface_dice_weighs_both_surfaces_by_their_area() -> None:
    one, two = block((60, 9, 9), (1, 1, 1)), block((60, 9, 9), (1, 1, 1), (50, 1, 1))
    assert surface_dice(surface_distances(one, two, UNIT), 1) == pytest.approx((1 + 1) / (1 + 2))


def test_voxels_of_1_mm_but_for_rounding_are_within_1_mm_of_their_neighbours() -> None:
    reference = block((9, 9, 9), (1, 1, 1))
    distances = surface_distances(reference, np.roll(reference, 1, axis=0), (1.0000001, 1.0, 1.0))
    assert surface_dice(distances, 1) == 1
    assert surface_dice(distances, 0.5) == pytest.approx(0.5)


def test_assd_is_the_mean_of_the_means_of_the_two_directions() -> None:
    # From the one voxel 0 mm. From the two voxels 0 mm in half of the area, 48 and 49 mm in the other half.
    one, two = block((60, 9, 9), (1, 1, 1)), block((60, 9, 9), (1, 1, 1), (50, 1, 1))
    assert assd_mm(surface_distances(one, two, UNIT)) == pytest.approx((0 + 48.5 / 2) / 2)
    assert assd_mm(surface_distances(two, one, UNIT)) == pytest.approx((0 + 48.5 / 2) / 2)


def test_assd_is_in_mm() -> None:
    reference = block((9, 9, 9), (1, 1, 1))
    distances = surface_distances(reference, np.roll(reference, 3, axis=1), (1.0, 2.0, 1.0))
    assert assd_mm(distances) == pytest.approx(2 * 2.5)


def test_surfaces_of_two_empty_masks_agree_and_those_of_one_do_not() -> None:
    one = block((5, 5, 5), (2, 2, 2))
    both_empty = surface_distances(EMPTY, EMPTY, UNIT)
    assert (surface_dice(both_empty, 1), assd_mm(both_empty)) == (1, 0)
    for reference, predicted in ((one, EMPTY), (EMPTY, one)):
        distances = surface_distances(reference, predicted, UNIT)
        assert (surface_dice(distances, 1), assd_mm(distances)) == (0, 373.13)
    same = surface_distances(one, one, UNIT)
    assert (surface_dice(same, 0.5), assd_mm(same)) == (1, 0)


PAIRS = {
    "near": (ball((24, 24, 24), (12, 12, 12), 8), ball((24, 24, 24), (13, 11, 12), 8)),
    "far": (ball((60, 60, 60), (8, 8, 8), 4), ball((60, 60, 60), (50, 51, 49), 5)),
    "partly far": (ball((60, 40, 40), (15, 20, 20), 10), ball((60, 40, 40), (28, 20, 20), 10)),
    "crowded": (block((25, 25, 25), (0, 0, 0), size=2), noise((25, 25, 25), 0.5)),
    "both crowded": (noise((20, 20, 20), 0.02), noise((20, 20, 20), 0.3)),
}


@uses_surface_distance
@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("pair", PAIRS)
def test_metrics_of_made_masks_equal_the_peers(pair: str, spacing_mm: Spacing) -> None:
    expected = peer_metrics(*PAIRS[pair], spacing_mm)
    assert metrics(*PAIRS[pair], spacing_mm) == pytest.approx(expected, abs=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch and MONAI deprecate what MONAI calls
@pytest.mark.parametrize("steps", [(0, 2, 0), (4, 0, 0), (0, 0, 7)])
def test_hd95_of_shifted_cubes_equals_monais(steps: tuple[int, int, int]) -> None:
    # MONAI weighs every edge voxel alike and measures between voxel centres, so that other shapes differ.
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    reference = block((24, 24, 24), (4, 4, 4), size=9)
    predicted = np.roll(reference, steps, axis=(0, 1, 2))
    expected = compute_hausdorff_distance(
        predicted[None, None], reference[None, None], include_background=True, percentile=95, spacing=(1, 2, 3)
    )
    assert hd95_mm(reference, predicted, (1.0, 2.0, 3.0)) == pytest.approx(float(expected))


def made_predictions(labels: Labels) -> dict[str, Labels]:
    """Label maps that differ from a real one by a little, by a lot, and in a far place."""
    stray = labels.copy()
    stray[5:17, 5:17, 5:17] = np.arange(12) // 3
    return {
        "shifted": np.roll(labels, (3, -2, 1), axis=(0, 1, 2)),
        "shifted far": np.roll(labels, (15, 0, 4), axis=(0, 1, 2)),
        "grown": ndimage.grey_dilation(labels, size=(3, 3, 3)),
        "shrunk": labels * ndimage.binary_erosion(labels > 0, iterations=2),
        "stray": stray,
    }


@pytest.mark.real
@uses_surface_distance
def test_metrics_of_real_cases_equal_the_peers(real_data_dir: str) -> None:
    n_pairs = 0
    for path in sorted(glob(f"{real_data_dir}/**/*_seg.nii*", recursive=True))[::3]:  # the peer takes seconds
        labels = BRATS_2018.decode(np.asarray(nib.Nifti1Image.from_filename(path).dataobj))
        for name, predicted in made_predictions(labels).items():
            for region in REGIONS:
                masks = region_mask(labels, region), region_mask(predicted, region)
                if masks[0].any() and masks[1].any():
                    expected = peer_metrics(*masks, UNIT)
                    assert metrics(*masks, UNIT) == pytest.approx(expected, abs=1e-6), (path, name, region)
                    n_pairs += 1
    assert n_pairs > 0
