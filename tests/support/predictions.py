"""A finished prediction on disk, made without a network, and made to look as an earlier version left it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from brats.config import PredictConfig
from brats.data.items import find_items, read_source
from brats.labels import ED, Labels
from brats.pipeline.predict import write_case
from brats.saved_config import SavedConfig
from brats.score.lesion_tables import CASE_COLUMNS
from brats.score.results import Results, write_results

MODALITIES = ("flair", "t1ce")
ADDED = (
    *("nsd_at_half_mm", "nsd_at_1_mm", "assd_mm", "relative_volume_difference"),
    *(name for name, _ in CASE_COLUMNS),
)


def shifted(labels: Labels, steps: int) -> Labels:
    """A prediction: the reference moved along its slices' rows, and a voxel of false oedema."""
    predicted = np.roll(labels, steps, axis=1)
    predicted[0, 0, 0] = ED
    return predicted


def write_prediction(data: Path, out: Path, *, steps: int = 1, split: str = "all") -> Results:
    """What predict.py leaves of all cases in case folders, or of a prepared dataset; their masks are `shifted`."""
    config = PredictConfig(model="/models/run/model", data=str(data), out=str(out), split=split)  # type: ignore[arg-type]
    SavedConfig.of("predict", config, weights="x").claim(str(out))
    items = find_items(str(data), str(out), MODALITIES, "all").items
    for item in items:
        case = read_source(item.source, MODALITIES)
        labels = np.zeros(case.images["flair"].shape, np.uint8) if case.labels is None else case.labels
        write_case(str(out), item, case, shifted(labels, steps), nifti=False)
    return write_results(str(out), {item.case_id for item in items}, [], config={**asdict(config), "decoding": {}})


def forget(out: Path, columns: tuple[str, ...] = ADDED) -> None:
    """Take columns out of the parts, as in those of before they were known, and write the tables without them."""
    for path in (out / "parts").iterdir():
        part = read_part(path)
        part["cases"] = [{name: row[name] for name in row if name not in columns} for row in part["cases"]]
        path.write_text(json.dumps({**part, "lesions": []}))
    ids = {path.stem for path in (out / "parts").iterdir()}
    config = json.loads((out / "config.json").read_text())
    write_results(str(out), ids, [], config={**config["result"], **config["execution"], "decoding": {}})


def read_part(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document
