"""The order of channels, held against the tumour."""

import itertools

import numpy as np
import pytest

from brats.config import MODALITIES
from brats.data.cases import find_cases
from brats.data.channel_order import channel_warnings, likely_order
from brats.data.preprocess import read_case
from brats.labels import ED
from tests.support.forms import normalise
from tests.support.synthetic import make_images


@pytest.mark.parametrize("order", [*itertools.permutations(MODALITIES)], ids=" ".join)
def test_order_of_a_phantom_is_found(order: tuple[str, ...]) -> None:
    images, labels = make_images(0)
    assert likely_order(np.stack([normalise(images[name]) for name in order]), labels) == order


def test_order_that_is_stated_rightly_is_not_warned_of() -> None:
    images, labels = make_images(0)
    assert channel_warnings("x", np.stack([images[name] for name in MODALITIES]), labels, MODALITIES) == []


def test_warning_names_both_orders_and_the_option() -> None:
    images, labels = make_images(0)
    (line,) = channel_warnings(
        "x", np.stack([images[name] for name in MODALITIES]), labels, ("t1", "t1ce", "t2", "flair")
    )
    assert line == (
        "x: by its tumour its channels look like flair t1 t1ce t2, but are taken for t1 t1ce t2 flair; where most "
        "cases say so, add --hdf5-channels flair t1 t1ce t2"
    )


def test_tumour_without_enhancement_tells_nothing() -> None:
    images, labels = make_images(0)
    assert likely_order(np.stack([*images.values()]), np.where(labels > 0, ED, 0).astype(np.uint8)) is None


@pytest.mark.real
def test_order_of_most_real_cases_is_found(real_data_dir: str) -> None:
    right = []
    for files in find_cases(real_data_dir).cases:
        case = read_case(files, MODALITIES)
        assert case.labels is not None
        images = np.stack([np.pad(case.images[name], 1) for name in MODALITIES])
        right.append(likely_order(images, np.pad(case.labels, 1)) in (None, MODALITIES))
    assert sum(right) > len(right) / 2
