"""A submission to a BraTS challenge: one zip archive of NIfTI masks, checked as the challenge checks it.

What is asked for, by the challenges' own pages and validation scripts (Sage-Bionetworks-Challenges): one archive
with ID.nii.gz for each case, where ID is the name of its folder; from 2023 on a name that ends with the five digits
of the patient and the three of the visit, none twice. Masks are on the grid of the images: 240 x 240 x 155 (SRI24),
or 182 x 218 x 182 for gliomas after treatment.
"""

import io
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from brats import storage
from brats.data.codings import BRATS_2024_GLI
from brats.data.layouts import BRATS_SHAPE
from brats.data.masks import nifti_dir
from brats.data.volume import read_segmentation
from brats.errors import CaseError
from brats.storage import FileInfo

SUFFIX = ".nii.gz"
SHAPE_AFTER_TREATMENT = (182, 218, 182)
# BraTS2021_00001, BraTS20_Validation_001; BraTS-GLI-00005-000
NAMES = re.compile(r"BraTS(1[7-9]|20|2021)_\w+|BraTS[\w-]*-(?P<scan>\d{5}-\d{3})", re.IGNORECASE)
TIME = (1980, 1, 1, 0, 0, 0)  # of every file in the archive, so that the same masks give the same bytes


def find_masks(out: str) -> dict[str, FileInfo]:
    """The NIfTI masks in a folder of `predict`, by case id; none where none was written."""
    try:
        files = storage.list_files(nifti_dir(out))
    except FileNotFoundError:
        return {}
    return {file.name.removesuffix(SUFFIX): file for file in files if file.name.endswith(SUFFIX)}


def doubled_scans(case_ids: Collection[str]) -> dict[str, str]:
    """The cases whose patient and visit another case has too, as BraTS-GLI-00005-000 and BraTS-SSA-00005-000.

    By case id the digits. A challenge takes them for one case, so they are of two challenges.
    """
    scans = {name: found["scan"] for name in case_ids if (found := NAMES.fullmatch(name)) and found["scan"]}
    counts = Counter(scans.values())
    return {name: scan for name, scan in scans.items() if counts[scan] > 1}


def read_mask(file: FileInfo, case_id: str, coding: str) -> bytes:
    """The content of a mask that a challenge takes.

    coding: of the case

    Raises CaseError for a name that no challenge gives, another grid, and codes that the coding does not define.
    """
    if not NAMES.fullmatch(case_id):
        raise CaseError(
            file.path,
            "no challenge names its cases so; a submission has names such as BraTS-GLI-00005-000 or "
            "BraTS2021_00001: rename the case folder and predict it again",
        )
    shape = SHAPE_AFTER_TREATMENT if coding == BRATS_2024_GLI.name else BRATS_SHAPE
    content = storage.read_bytes(file.path)
    found = read_segmentation(file, coding, content).grid.shape
    if found != shape:
        raise CaseError(
            file.path,
            f"grid {_by(found)}, where the challenge asks for {_by(shape)}; predict the images as the challenge "
            "gives them, not resampled or cropped",
        )
    return content


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def archive(masks: Mapping[str, bytes], others: Iterable[tuple[str, bytes]] = ()) -> bytes:
    """A zip archive with a mask for each case id at its root. The masks are compressed already.

    others: more files, by their paths in the archive
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as file:
        for case_id, mask in sorted(masks.items()):
            file.writestr(zipfile.ZipInfo(f"{case_id}{SUFFIX}", TIME), mask)
        for path, other in others:
            file.writestr(zipfile.ZipInfo(path, TIME), other)
    return content.getvalue()
