"""Predicted masks in Parquet: on the source's grid, in its axes, as the NIfTI file of the same prediction."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from brats import storage
from brats.data.case import Case
from brats.data.cases import find_cases
from brats.data.codings import CODINGS
from brats.data.masks import (
    MASK,
    PROBABILITIES,
    masks_path,
    probabilities_path,
    read_masks,
    write_masks,
    write_probabilities,
)
from brats.data.preprocess import read_case
from brats.data.volume import nifti_bytes
from brats.errors import StorageError
from brats.labels import ED, ET, NCR, Labels
from tests.support.volumes import ORIENTATIONS, oriented_affine

SHAPE = (9, 8, 7)
BOX = (slice(2, 6), slice(1, 6), slice(3, 6))  # of the brain, in source axes


def case_in(folder: Path, order: tuple[int, ...] = (0, 1, 2), flips: tuple[int, ...] = (-1, -1, 1)) -> Case:
    """A case read from a file in one of `ORIENTATIONS`."""
    voxels = np.zeros(SHAPE, np.int16)
    voxels[BOX] = np.arange(1, 61).reshape(4, 5, 3)
    nib.save(nib.Nifti1Image(voxels, oriented_affine(order, flips)), folder / "case_flair.nii.gz")
    return read_case(find_cases(str(folder), ("flair",)).cases[0], ("flair",))


def prediction(case: Case) -> Labels:
    """Labels of every kind all over the crop, without any symmetry, on the source's grid."""
    predicted = np.random.default_rng(0).integers(0, 4, case.images["flair"].shape).astype(np.uint8)
    return case.on_source_grid(predicted)


def load(path: Path, content: bytes) -> Labels:
    path.write_bytes(content)
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return np.asanyarray(image.dataobj)


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_slice_k_is_slice_k_of_the_nifti_file_of_the_same_prediction(
    order: tuple[int, ...], flips: tuple[int, ...], tmp_path: Path
) -> None:
    case = case_in(tmp_path, order, flips)
    predicted = prediction(case)
    write_masks(str(tmp_path), "case", predicted)
    nifti = load(tmp_path / "x.nii.gz", nifti_bytes(predicted, case.grid, case.coding))
    frame = pd.read_parquet(masks_path(str(tmp_path), case.case_id))
    assert frame["slice_index"].tolist() == list(range(7))
    for k, height, width, mask in frame[["slice_index", "height", "width", "mask"]].itertuples(index=False):
        labels = np.frombuffer(mask, np.uint8).reshape(height, width)
        np.testing.assert_array_equal(CODINGS[case.coding].encode(labels), nifti[:, :, k])


def test_a_mask_lies_where_the_brain_lies_in_the_source(tmp_path: Path) -> None:
    case = case_in(tmp_path)
    write_masks(str(tmp_path), "case", case.on_source_grid(np.full(case.images["flair"].shape, ED, np.uint8)))
    expected = np.zeros(SHAPE, np.uint8)
    expected[BOX] = ED
    np.testing.assert_array_equal(read_masks(masks_path(str(tmp_path), "case")), expected)


def test_masks_read_back_are_the_prediction_in_source_axes(tmp_path: Path) -> None:
    predicted = prediction(case_in(tmp_path))
    write_masks(str(tmp_path), "case", predicted)
    masks = read_masks(masks_path(str(tmp_path), "case"))
    np.testing.assert_array_equal(masks, predicted)
    assert set(np.unique(masks)) == {0, NCR, ED, ET}


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_probabilities_are_read_slice_by_slice_as_the_masks_are(
    order: tuple[int, ...], flips: tuple[int, ...], tmp_path: Path
) -> None:
    case = case_in(tmp_path, order, flips)
    predicted = prediction(case)
    wt, et = predicted * 60, 200 - predicted  # as levels of probability, to be told apart by where they lie
    write_probabilities(str(tmp_path), "case", {"WT": wt, "ET": et})
    table = storage.read_table(probabilities_path(str(tmp_path), "case"), PROBABILITIES)
    frame = table.to_pandas()
    assert frame["slice_index"].tolist() == list(range(7))
    assert frame["tc"].isna().all()
    for row in frame.itertuples():
        for found, volume in ((row.wt, wt), (row.et, et)):
            levels = np.frombuffer(found, np.uint8).reshape(row.height, row.width)
            np.testing.assert_array_equal(levels, volume[:, :, row.slice_index])


def test_the_file_says_how_a_mask_is_decoded(tmp_path: Path) -> None:
    case = case_in(tmp_path)
    write_masks(str(tmp_path), "case", prediction(case))
    path = masks_path(str(tmp_path), "case")
    assert path == storage.join(str(tmp_path), "masks", "case.parquet")
    table = storage.read_table(path, MASK)
    metadata = storage.read_metadata(table.schema, path, MASK)
    assert table.column_names == ["case_id", "slice_index", "height", "width", "mask"]
    assert table["case_id"].unique().to_pylist() == ["case"]
    assert "np.frombuffer(mask, 'uint8').reshape(height, width)" in metadata["conventions"]["mask"]


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(StorageError, match=r"x\.parquet: not a whole Parquet file"):
        read_masks(str(tmp_path / "x.parquet"))
