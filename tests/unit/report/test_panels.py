"""Small pictures: colours of labels and errors, and slices beside each other."""

import base64
import io

import matplotlib.image
import numpy as np

from brats.labels import ED, ET, NCR
from brats.report.panels import (
    CONFUSED_COLOUR,
    FALSE_COLOUR,
    GAP,
    MISSED_COLOUR,
    OPACITY,
    Slice,
    beside,
    coloured,
    error_masks,
    error_panel,
    png_url,
    sample_row,
    tissue_masks,
    worst_slice,
    z_score_grey,
)
from tests.support.drawing import make_case
from tests.support.reports import layers_of

REFERENCE = np.array([[0, ED, ED, NCR, 0]], np.uint8)
PREDICTION = np.array([[0, ED, 0, ET, ET]], np.uint8)


def test_errors_are_missed_false_or_another_tissue() -> None:
    masks = error_masks(REFERENCE, PREDICTION)
    assert {colour: np.flatnonzero(mask).tolist() for colour, mask in masks.items()} == {
        MISSED_COLOUR: [2],
        FALSE_COLOUR: [4],
        CONFUSED_COLOUR: [3],
    }


def test_a_mask_is_blended_into_the_grey_levels() -> None:
    grey = np.array([[0, 100]], np.uint8)
    picture = coloured(grey, {"#FF0000": np.array([[False, True]])})
    assert picture.tolist() == [[[0, 0, 0], [round(100 + OPACITY * 155), 45, 45]]]


def test_tissues_have_the_colours_of_the_regions_that_end_with_them() -> None:
    masks = tissue_masks(REFERENCE)
    assert {colour: int(mask.sum()) for colour, mask in masks.items()} == {"#56B4E9": 2, "#F0E442": 1, "#D55E00": 0}


def test_pictures_beside_each_other_have_black_gaps() -> None:
    white = np.full((3, 4, 3), 255, np.uint8)
    together = beside([white, white])
    assert together.shape == (3, 4 + GAP + 4, 3)
    assert not together[:, 4 : 4 + GAP].any()


def test_a_panel_has_image_reference_prediction_and_errors() -> None:
    grey = np.full(REFERENCE.shape, 50, np.uint8)
    assert error_panel(Slice(grey, REFERENCE, PREDICTION)).shape == (1, 4 * 5 + 3 * GAP, 3)
    assert error_panel(Slice(grey, None, PREDICTION)).shape == (1, 2 * 5 + GAP, 3)


def test_the_worst_slice_is_shown_in_radiological_orientation() -> None:
    layers = layers_of(make_case())
    index, shown = worst_slice(layers)
    assert index == 3
    assert shown.reference is not None
    assert layers.reference is not None
    np.testing.assert_array_equal(shown.reference, layers.reference[3].T[::-1, ::-1])


def test_normalised_slices_are_black_in_the_background_alone() -> None:
    assert z_score_grey(np.array([0, -9, -2, 0.5, 3, 9], np.float32)).tolist() == [0, 1, 1, 128, 255, 255]


def test_samples_stand_beside_each_other() -> None:
    assert sample_row(np.ones((2, 6, 5), np.float32)).shape == (5, 6 + GAP + 6, 3)


def test_a_picture_is_a_png_in_its_url() -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    kind, _, content = png_url(picture).partition(",")
    assert kind == "data:image/png;base64"
    read = matplotlib.image.imread(io.BytesIO(base64.b64decode(content)))
    np.testing.assert_array_equal(np.rint(read[..., :3] * 255), picture)
