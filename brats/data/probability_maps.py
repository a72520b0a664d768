"""Probabilities as NIfTI: one file for each region of a case, on the grid of its source."""

import numpy as np

from brats import storage
from brats.data.masks import nifti_dir, probabilities_dir, probabilities_path, read_probabilities
from brats.data.mha import read_mha
from brats.data.nifti import encode_nifti, read_nifti
from brats.errors import CaseError
from brats.storage import FileInfo

# The `scl_slope` of levels from 0 to 255: the largest float32 below 1/255. The nearest one lies above, and would
# make a probability of 1.00000006 of the highest level, whose log(1 - p) is not a number.
SLOPE = float(np.nextafter(np.float32(1 / 255), np.float32(0)))

NIFTI, MHA = ".nii.gz", ".mha"
ENDINGS = (NIFTI, MHA)
AGAIN = "run predict.py again with {} and the same --out, which adds them"


def map_name(case_id: str, region: str) -> str:
    """The file of a region: BraTS-GLI-00005-000_wt.nii.gz."""
    return f"{case_id}_{region.lower()}{NIFTI}"


def find_grids(out: str) -> dict[str, FileInfo]:
    """The masks in the form of their images in a folder of `predict`, which have its grids, by case id."""
    try:
        files = storage.list_files(nifti_dir(out))
    except FileNotFoundError:
        return {}
    found = (
        (file.name.removesuffix(ending), file) for file in files for ending in ENDINGS if file.name.endswith(ending)
    )
    return dict(found)


def has_probabilities(out: str) -> bool:
    """Whether a folder of `predict` has the probabilities of any case."""
    try:
        return bool(storage.list_files(probabilities_dir(out)))
    except FileNotFoundError:
        return False


def probability_maps(out: str, case_id: str, mask: FileInfo | None) -> dict[str, bytes]:
    """The NIfTI files of a case in a folder of `predict`, by their names: uint8, scaled to probabilities by SLOPE.

    Shape and geometry are those of its mask, hence of its source. A region that the model does not tell has none.

    mask: the case's, of `find_grids`

    Raises CaseError for a case without probabilities, without a mask, and with one on another grid.
    """
    path = probabilities_path(out, case_id)
    if not storage.exists(path):
        raise CaseError("", f"it has no probabilities; {AGAIN.format('--probabilities')}")
    if mask is None:
        raise CaseError("", f"it has no NIfTI mask, whose grid its probabilities take; {AGAIN.format('--nifti')}")
    _, header = read_mha(mask) if mask.name.endswith(MHA) else read_nifti(mask)
    maps = {}
    for region, levels in read_probabilities(path).items():
        if levels.shape != header.shape:
            raise CaseError(path, f"shape {levels.shape}, but {mask.name} has {header.shape}; predict it again")
        maps[map_name(case_id, region)] = encode_nifti(levels, header.geometry, slope=SLOPE)
    return maps
