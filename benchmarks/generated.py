"""Prepared cases made on the spot: noise with a tumour that can be learnt. Neither phantoms nor Ray are needed.

Axes: `X Y Z` voxel axes in RAS+.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brats import storage
from brats.config import MODALITIES, TrainConfig
from brats.data.batches import TrainingSet
from brats.data.case import Case
from brats.data.cases import CaseFiles
from brats.data.dataset import PREPARED_CASES, case_row, cases_path, slices_path
from brats.data.grid import Grid
from brats.data.preprocess import crop_case
from brats.data.slices import encode_case, open_slices
from brats.data.trim import trim
from brats.data.volume import Volume
from brats.labels import ED, ET, NCR, Labels
from brats.storage import FileInfo

AFFINE = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
BRAIN, CONTRAST, NOISE = 100, 60, 40  # raw values: of the brain, more for each label, and the width of the noise

Shape = tuple[int, int, int]


def generated_case(number: int, shape: Shape, modalities: Sequence[str]) -> Case:
    """A brain that fills its volume (X, Y, Z), brighter in the tumour: an ellipsoid of three shells."""
    random = np.random.default_rng(number)
    labels = _tumour(shape, random)
    grid = Grid.of(shape, AFFINE, {})
    volumes = {
        name: Volume(
            voxels=(BRAIN + CONTRAST * labels + random.integers(0, NOISE, shape)).astype(np.int16),
            slope=1,
            inter=0,
            grid=grid,
        )
        for name in modalities
    }
    case_id = f"generated_{number:05d}"
    files = CaseFiles(
        case_id=case_id,
        patient_id=case_id,
        layout="brats2018",
        coding="brats2018",
        images={name: FileInfo(f"{case_id}_{name}.nii.gz", 1) for name in modalities},
        segmentation=None,
        grade="",
    )
    return crop_case(files, {name: trim(volume) for name, volume in volumes.items()}, labels)


def _tumour(shape: Shape, random: np.random.Generator) -> Labels:
    """Labels (X, Y, Z): enhancing tumour around necrosis, in oedema; through two thirds of the slices."""
    centre = [size * random.uniform(0.4, 0.6) for size in shape]
    axes = np.ogrid[tuple(slice(0, size) for size in shape)]
    squares: Any = sum(((axis - at) / (size / 3)) ** 2 for axis, at, size in zip(axes, centre, shape, strict=True))
    labels = np.zeros(shape, np.uint8)
    for label, radius in ((ED, 1.0), (ET, 0.7), (NCR, 0.4)):
        labels[squares < radius**2] = label
    return labels


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Prepared cases on disk.

    split: the rows of a run's split; the last case is there to validate on
    """

    folder: str
    split: tuple[dict[str, Any], ...]

    def training_set(self, config: TrainConfig) -> TrainingSet:
        """What a configuration trains on."""
        return TrainingSet.of(config, self.folder, self.split)

    @property
    def val_paths(self) -> list[str]:
        return [slices_path(self.folder, row["case_id"]) for row in self.split if row["split"] == "val"]


def generate_dataset(folder: Path, n_cases: int, shape: Shape) -> str:
    """Write so many cases of this shape (X, Y, Z) and their table below a folder; return its path."""
    generated = generate(folder, n_cases, shape)
    paths = [slices_path(str(folder), row["case_id"]) for row in generated.split]
    rows = [case_row(open_slices(path).description) for path in paths]
    storage.write_table(cases_path(str(folder)), PREPARED_CASES, PREPARED_CASES.table(rows))
    return str(folder)


def generate(folder: Path, n_cases: int, shape: Shape, modalities: Sequence[str] = MODALITIES) -> Generated:
    """Write so many cases of this shape (X, Y, Z) below a folder."""
    rows = []
    for number in range(n_cases):
        case = generated_case(number, shape, modalities)
        content, description = encode_case(case)
        path = Path(slices_path(str(folder), case.case_id))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        height, width, _ = case.box.shape
        rows.append(
            {
                "case_id": case.case_id,
                "split": "val" if number == n_cases - 1 else "train",
                "height": height,
                "width": width,
                "tumour_per_slice": description["tumour_per_slice"],
            }
        )
    return Generated(folder=str(folder), split=tuple(rows))
