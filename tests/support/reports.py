"""Runs and predictions to report on, of tiny cases with known errors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brats import storage
from brats.config import TrainConfig
from brats.data.case import Case
from brats.data.dataset import case_row, slices_path
from brats.data.items import Item, PreparedCase
from brats.data.masks import write_probabilities
from brats.data.rejects import Reject
from brats.data.run_split import SPLIT, split_path, test_dir
from brats.data.segmented_case import N_LABELS, N_LEVELS, LevelCounts, SegmentedCase
from brats.data.slices import encode_case
from brats.labels import REGIONS, Labels, region_mask
from brats.model.bundle import bundle_dir, save_bundle
from brats.model.history import HISTORY, write_history
from brats.pipeline.predict import write_case
from brats.report.volumes import Layers
from brats.saved_config import SavedConfig
from brats.score.results import write_results
from tests.support.bundles import MODEL_CARD
from tests.support.drawing import make_case, reference_of
from tests.support.prepared import MODALITIES, undecided_network

CERTAIN, UNSURE = 250, 100  # levels of probability inside and outside of a predicted region


def shifted(labels: Labels, n_voxels: int) -> Labels:
    """Labels (Z, H, W) moved along W: the farther, the lower their Dice with the labels."""
    return np.roll(labels, n_voxels, axis=2)


def layers_of(case: Case, n_voxels: int = 2, *, probabilities: bool = False) -> Layers:
    """A case with a prediction that lies so many voxels off."""
    prediction = shifted(reference_of(case), n_voxels)
    levels = {name: _levels(prediction, name) for name in REGIONS} if probabilities else {}
    return Layers(case=case, prediction=prediction, probabilities=levels)


def _levels(prediction: Labels, region: str) -> Labels:
    return np.where(region_mask(prediction, region), CERTAIN, UNSURE).astype(np.uint8)


def history_rows(n_epochs: int = 3) -> list[dict[str, Any]]:
    """Epochs of 10 slices in 2 steps and 2 seconds, in which all other figures rise by a tenth."""
    fixed = {"n_slices": 10, "n_steps": 2, "elapsed_s": 2.0}
    return [
        {**dict.fromkeys(HISTORY.schema.names, 0.1 * epoch), **fixed, "epoch": epoch}
        for epoch in range(1, n_epochs + 1)
    ]


def history_frame(n_epochs: int = 3) -> pd.DataFrame:
    """The same as the rows of `history.parquet`."""
    return pd.DataFrame(history_rows(n_epochs))


def write_history_of(run: Path) -> None:
    write_history(str(run), history_rows(), {})


def write_run(
    run: Path,
    shifts: Sequence[int] = (0, 1, 3),
    *,
    probabilities: bool = False,
    rejects: Sequence[Reject] = (),
    case_ids: Sequence[str] = (),
) -> str:
    """A finished run: its test cases are predicted with masks that lie so many voxels off. Returns its folder.

    case_ids: of the test cases; by default case_0 and on
    """
    prepared, predictions = str(run / "prepared"), test_dir(str(run))
    names = list(case_ids) or [f"case_{number}" for number in range(len(shifts))]
    rows = [_prepare(prepared, "trained_on", "train")]
    for name, shift in zip(names, shifts, strict=True):
        rows.append(_prepare(prepared, name, "test"))
        predict_shifted(predictions, make_case(name, MODALITIES), shift, probabilities=probabilities)
    storage.write_table(split_path(str(run)), SPLIT, SPLIT.table(rows), prepared=prepared)
    config = TrainConfig(out=str(run), data=prepared, modalities=MODALITIES)
    SavedConfig.of("train", config).write(str(run))
    write_history_of(run)
    save_bundle(bundle_dir(str(run)), undecided_network().state_dict(), MODEL_CARD)
    if names:
        write_results(predictions, set(names), rejects, config={})
    return str(run)


def _prepare(prepared: str, case_id: str, split: str) -> dict[str, Any]:
    content, description = encode_case(make_case(case_id, MODALITIES))
    storage.write_bytes(slices_path(prepared, case_id), content)
    return {**case_row(description), "split": split}


def predict_shifted(out: str, case: Case, shift: int, *, probabilities: bool = False) -> None:
    """Write the mask and the scores of a case, and its probabilities where asked."""
    layers = layers_of(case, shift, probabilities=probabilities)
    source = PreparedCase(path="", voxel_hash="")
    item = Item(
        case_id=case.case_id,
        patient_id=f"patient of {case.case_id}",
        split="test",
        source=source,
        sources=(),
        coding="brats2018",
    )
    found = _segmentation(layers) if probabilities else None
    write_case(out, item, case, layers.prediction, nifti=False, found=found)
    if probabilities:
        volumes = {name: case.on_source_grid(levels) for name, levels in layers.probabilities.items()}
        write_probabilities(out, case.case_id, volumes)


def _segmentation(layers: Layers) -> SegmentedCase:
    """The prediction with its voxels counted by level, all of them as brain."""
    reference, prediction = reference_of(layers.case), layers.prediction
    n_slices = len(layers.case.source_slices(prediction))
    by_labels = np.zeros((len(REGIONS), 2, N_LABELS, N_LABELS, N_LEVELS), np.int64)
    by_slice = np.zeros((len(REGIONS), n_slices, N_LEVELS), np.int64)
    for number, levels in enumerate(layers.probabilities.values()):
        np.add.at(by_labels[number, 1], (reference.ravel(), prediction.ravel(), levels.ravel()), 1)
        for index, plane in enumerate(layers.case.source_slices(levels)):
            by_slice[number, index] = np.bincount(plane.ravel(), minlength=N_LEVELS)
    counts = LevelCounts(by_labels=by_labels, by_slice=by_slice)
    return SegmentedCase(labels=prediction, regions=tuple(REGIONS), counts=counts)
