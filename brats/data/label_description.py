"""Label descriptions of ITK-SNAP: name and colour of each code of the masks that are written as NIfTI.

ITK-SNAP opens one by Segmentation > Import Label Descriptions.
"""

from collections.abc import Collection

import numpy as np

from brats import storage
from brats.data.codings import CODINGS, Coding
from brats.data.masks import nifti_dir
from brats.labels import REGIONS, TISSUE_FULL_NAMES, TISSUES

HEADER = "# ITK-SNAP label description: IDX R G B A VIS MSH LABEL"


def label_description(coding: Coding) -> str:
    """The description of the codes that masks in this coding hold, each once, with a newline at its end."""
    lines = [HEADER, '    0    0    0    0  0  0  0  "background"']
    colours = {region.label: region.colour for region in REGIONS.values()}
    written: dict[int, list[str]] = {}
    for tissue, label in TISSUES.items():
        if code := int(coding.encode(np.array([label], np.uint8))[0]):  # 0 where the coding lacks the tissue
            written.setdefault(code, []).append(tissue)
    for code, tissues in sorted(written.items()):
        red, green, blue = bytes.fromhex(colours[TISSUES[tissues[0]]].removeprefix("#"))
        name = ", ".join(f"{tissue.upper()} {TISSUE_FULL_NAMES[tissue]}" for tissue in tissues)
        lines.append(f'{code:>5} {red:>4} {green:>4} {blue:>4}  1  1  1  "{name}"')
    return "\n".join(lines) + "\n"


def description_path(out: str, coding: str) -> str:
    """Where the description of the masks in a coding lies, beside them."""
    return storage.join(nifti_dir(out), f"labels_{coding}.txt")


def write_label_descriptions(out: str, codings: Collection[str]) -> None:
    """Write the description of each of these codings, by name, beside the NIfTI masks."""
    for name in codings:
        storage.write_bytes(description_path(out, name), label_description(CODINGS[name]).encode())
