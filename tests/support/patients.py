"""The table of a prepared dataset of patients who exist in it alone, for what deals and splits them."""

from collections.abc import Sequence
from typing import Any

from brats import storage
from brats.data.dataset import PREPARED_CASES, cases_path
from brats.data.planes import COUNT_COLUMNS
from tests.support.prepared import MODALITIES


def patient_row(number: int, *, with_et: bool = True, **changes: Any) -> dict[str, Any]:
    """The row of a labelled case, `case_0` and on, in the train split; tumours grow with the number."""
    row = {
        "case_id": f"case_{number}",
        "patient_id": f"patient_{number}",
        "split": "train",
        "fold": 0,
        "modalities": list(MODALITIES),
        "coding": "brats2018",
        "height": 40,
        "width": 36,
        "volume_ml_wt": float(number + 1),
        "n_voxels_et": 100 if with_et else 0,
        **{column: [0, number + 1] for column in COUNT_COLUMNS},
        "voxel_hash": f"voxels {number}",
        "source_hash": f"files {number}",
    }
    return {**row, **changes}


def write_patients(prepared: str, rows: Sequence[dict[str, Any]]) -> str:
    """Write the table of cases; returns the folder."""
    storage.write_table(cases_path(prepared), PREPARED_CASES, PREPARED_CASES.table(rows))
    return prepared
