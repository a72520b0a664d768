"""Stacks: slices put together, one behind the other, in a number type that holds them all."""

import numpy as np
import pytest

from brats.data.case import Case
from brats.data.stacks import Stack, common_dtype, stack_slices
from tests.support.volumes import assert_same_batch, case_of, image


def stack_of(case: Case, rows: slice) -> Stack:
    return Stack(
        channels=[voxels[rows] for voxels in case.images.values()],
        intensities=[case.intensities[name] for name in case.images],
    )


@pytest.mark.parametrize("dtypes", [("int16", "uint8"), ("int16", "float64"), ("uint16", "float32")])
def test_stack_of_several_slices_is_as_many_stacks_of_one(dtypes: tuple[str, str]) -> None:
    flair, t1 = (image(seed, dtype, 10, 99, background=3) for seed, dtype in enumerate(dtypes))
    case = case_of(flair=flair, t1=t1, slope=0.5, inter=7)
    together = stack_slices([stack_of(case, slice(None))], (8, 6))
    one_by_one = stack_slices([stack_of(case, slice(row, row + 1)) for row in range(3)], (8, 6))
    assert together.images.shape == (3, 2, 8, 6)
    assert_same_batch(together, one_by_one)


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ({"<i2"}, "int16"),
        ({"|u1", "|i1", "<i2"}, "int16"),
        ({"<u2"}, "float32"),
        ({"<i2", "<f4"}, "float32"),
        ({"<i4"}, "float32"),
        ({"<f8"}, "float32"),
    ],
)
def test_batches_are_int16_where_that_holds_every_number_else_float32(dtypes: set[str], expected: str) -> None:
    assert common_dtype(dtypes) == np.dtype(expected)
