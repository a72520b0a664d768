"""A worker's share of a planned batch: which slices it reads, and where they stand in the whole."""

from pathlib import Path

import numpy as np
import pytest

from brats.data.batches import read_share
from brats.data.epoch import PlannedBatch
from brats.data.slices import read_batch
from tests.support.prepared import MODALITIES, SIZE, tiny_case, write_prepared

PLANNED = PlannedBatch(epoch=3, step=7, slices=(("a", 5), ("b", 4), ("a", 6)))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two prepared cases, "a" and "b"."""
    folder: Path = tmp_path_factory.mktemp("prepared")
    write_prepared(str(folder), [tiny_case("a", seed=1), tiny_case("b", seed=2)])
    return str(folder)


def test_the_shares_of_two_workers_are_the_planned_slices_in_order(prepared: str) -> None:
    shares = [read_share(prepared, PLANNED, rank, 2, MODALITIES, SIZE) for rank in range(2)]
    whole = read_batch(prepared, PLANNED.slices, MODALITIES, SIZE)
    for name in ("images", "labels", "offset", "scale", "background"):
        parts = [getattr(share.slices, name) for share in shares]
        assert [len(part) for part in parts] == [1, 2]
        np.testing.assert_array_equal(np.concatenate(parts), getattr(whole, name))


def test_a_share_says_where_it_stands_in_its_batch(prepared: str) -> None:
    share = read_share(prepared, PLANNED, 1, 2, MODALITIES, SIZE)
    assert (share.epoch, share.step, share.first, share.n_global) == (3, 7, 1, 3)


def test_a_share_has_the_modalities_and_the_size_asked_for(prepared: str) -> None:
    share = read_share(prepared, PLANNED, 0, 1, ("t1ce",), (96, 64))
    assert share.slices.images.shape == (3, 1, 96, 64)
