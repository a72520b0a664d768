"""Label descriptions of ITK-SNAP: name and colour of each code of the masks that are written as NIfTI.

ITK-SNAP opens one by Segmentation > Import Label Descriptions.
"""

from collections.abc import Collection

import numpy as np

from brats import storage
from brats.data.codings import CODINGS, Coding
from brats.data.masks import nifti_dir
from brats.labels import ED, ET, NCR, REGIONS

TISSUE_NAMES = {NCR: "NCR necrotic tumour core", ED: "ED peritumoural oedema", ET: "ET enhancing tumour"}
COLOUR_OF = {region.label: region.colour for region in REGIONS.values()}
HEADER = "# ITK-SNAP label description: IDX R G B A VIS MSH LABEL"


def label_description(coding: Coding) -> str:
    """The description of the codes that masks in this coding hold, each once, with a newline at its end."""
    lines = [HEADER, '    0    0    0    0  0  0  0  "background"']
    written: dict[int, list[int]] = {}
    for label in TISSUE_NAMES:
        written.setdefault(int(coding.encode(np.array([label], np.uint8))[0]), []).append(label)
    for code, labels in sorted(written.items()):
        red, green, blue = bytes.fromhex(COLOUR_OF[labels[0]].removeprefix("#"))
        name = ", ".join(TISSUE_NAMES[label] for label in labels)
        lines.append(f'{code:>5} {red:>4} {green:>4} {blue:>4}  1  1  1  "{name}"')
    return "\n".join(lines) + "\n"


def description_path(out: str, coding: str) -> str:
    """Where the description of the masks in a coding lies, beside them."""
    return storage.join(nifti_dir(out), f"labels_{coding}.txt")


def write_label_descriptions(out: str, codings: Collection[str]) -> None:
    """Write the description of each of these codings, by name, beside the NIfTI masks."""
    for name in codings:
        storage.write_bytes(description_path(out, name), label_description(CODINGS[name]).encode())
