"""Labels: regions and counts."""

import numpy as np
import pytest

from brats.labels import (
    ED,
    ET,
    NCR,
    REGIONS,
    TISSUE_FULL_NAMES,
    TISSUES,
    bounding_box,
    count_regions,
    count_tissues,
    region_index,
    region_mask,
    tissue_name,
)

LABELS = np.array([[0, NCR], [ED, ET]], np.uint8)


@pytest.mark.parametrize(
    ("region", "expected"),
    [("WT", [[False, True], [True, True]]), ("TC", [[False, True], [False, True]]), ("ET", [[0, 0], [0, 1]])],
)
def test_a_region_is_the_union_of_its_tissues(region: str, expected: list[list[bool]]) -> None:
    np.testing.assert_array_equal(region_mask(LABELS, region), expected)


def test_every_label_belongs_to_a_region_and_no_two_regions_look_alike() -> None:
    assert {label for region in REGIONS.values() for label in region.labels} == set(TISSUES.values())
    for looks in ("full_name", "colour", "marker"):
        assert len({getattr(region, looks) for region in REGIONS.values()}) == len(REGIONS)


def test_every_tissue_has_a_name_and_a_full_name() -> None:
    assert [tissue_name(label) for label in (NCR, ED, ET)] == ["NCR", "ED", "ET"]
    assert TISSUE_FULL_NAMES.keys() == TISSUES.keys()


def test_a_region_added_behind_the_others_leaves_them_their_places(resection_cavity: int) -> None:
    assert [region_index(name) for name in ("WT", "TC", "ET", "RC")] == [0, 1, 2, 3]
    assert tissue_name(resection_cavity) == "RC"
    labels = np.array([ED, resection_cavity], np.uint8)
    assert region_mask(labels, "RC").tolist() == [False, True]
    assert region_mask(labels, "WT").tolist() == [True, False]


def test_the_bounding_box_holds_the_mask_and_nothing_more() -> None:
    mask = np.zeros((9, 9, 9), bool)
    mask[1, 2, 3] = mask[4, 4, 4] = True
    assert bounding_box(mask) == (slice(1, 5), slice(2, 5), slice(3, 5))


def test_the_bounding_box_of_an_empty_mask_has_no_voxels() -> None:
    empty = np.zeros((5, 5, 5), bool)
    assert empty[bounding_box(empty)].size == 0


def test_tissues_and_regions_are_counted() -> None:
    labels = np.array([[0, 0, NCR, NCR, NCR], [ED, ED, ED, ED, ET]], np.uint8)
    tissues = count_tissues(labels)
    assert tissues == {"ncr": 3, "ed": 4, "et": 1}
    assert count_regions(tissues) == {"WT": 8, "TC": 4, "ET": 1}


def test_counts_without_tumour_are_zero() -> None:
    tissues = count_tissues(np.zeros((2, 2), np.uint8))
    assert count_regions(tissues) == {"WT": 0, "TC": 0, "ET": 0}
