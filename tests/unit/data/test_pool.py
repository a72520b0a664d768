"""The layout of the pool, read back voxel by voxel, and a case on its way through Ray."""

import numpy as np
import pyarrow as pa
import pytest

from brats.data.pool import PoolLayout, TrainingVolume

SHAPES = [(2, 3, 4), (1, 2, 2)]  # Z H W


def layout() -> PoolLayout:
    return PoolLayout.of(["a", "b"], SHAPES, n_channels=2)


def volumes() -> dict[str, np.ndarray]:
    """(C, Z, H, W) with a different value in every voxel."""
    first = np.arange(2 * 24, dtype=np.int16).reshape(2, *SHAPES[0])
    return {"a": first, "b": 1000 + np.arange(2 * 4, dtype=np.int16).reshape(2, *SHAPES[1])}


def test_windows_name_where_each_voxel_of_a_slice_lies() -> None:
    pool = np.concatenate([volume.ravel() for volume in volumes().values()])
    labels = np.concatenate([volume[0].ravel() for volume in volumes().values()])
    slices = [("b", 0), ("a", 1), ("a", 0)]
    for (case_id, row), window in zip(slices, layout().windows(slices), strict=True):
        start, channel, down, across, label_start, height, width, along, before, after = window
        expected = volumes()[case_id][:, row]
        assert (height, width) == expected.shape[1:]
        for c, h, w in np.ndindex(expected.shape):
            assert pool[start + c * channel + h * down + w * across] == expected[c, h, w]
            assert labels[label_start + h * down + w * across] == expected[0, h, w]
            for neighbour in range(row - before, row + after + 1):
                at = start + (neighbour - row) * along + c * channel + h * down + w * across
                assert pool[at] == volumes()[case_id][c, neighbour, h, w]
        assert (before, before + after + 1) == (row, volumes()[case_id].shape[1])


def test_the_size_of_the_pool_counts_images_and_labels() -> None:
    assert layout().n_voxels == 24 + 4
    assert layout().n_bytes(2) == 28 * (2 * 2 + 1)
    assert layout().n_bytes(4) == 28 * (2 * 4 + 1)


def test_slices_are_known_by_the_position_of_their_case() -> None:
    assert layout().cases([("b", 0), ("a", 1)]).tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_case_comes_back_from_a_row_of_arrow_as_it_was(dtype: type) -> None:
    volume = TrainingVolume(
        case_id="a",
        images=volumes()["a"].astype(dtype),
        labels=np.arange(24, dtype=np.uint8).reshape(SHAPES[0]),
        numbers=np.arange(8, dtype=np.float32).reshape(4, 2),
    )
    table = pa.Table.from_pylist([volume.to_row()])
    back = TrainingVolume.from_row({name: table[name][0] for name in table.column_names})
    assert back.case_id == "a"
    for name in ("images", "labels", "numbers"):
        found, expected = getattr(back, name), getattr(volume, name)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
