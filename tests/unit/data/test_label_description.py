"""Label descriptions: each written code once, with the colours of the regions."""

from dataclasses import replace
from pathlib import Path

import pytest

from brats.data.codings import CODINGS
from brats.data.label_description import label_description, write_label_descriptions


def codes(coding: str) -> dict[int, str]:
    """The code of each tissue in a description, by the first word of its name."""
    lines = label_description(CODINGS[coding]).splitlines()[1:]
    return {int(line.split()[0]): line.split('"')[1].split()[0] for line in lines}


@pytest.mark.parametrize(
    ("coding", "expected"),
    [
        ("brats2018", {0: "background", 1: "NCR", 2: "ED", 4: "ET"}),
        ("brats2023", {0: "background", 1: "NCR", 2: "ED", 3: "ET"}),
        ("brats2024-ped", {0: "background", 1: "ET", 2: "NCR", 4: "ED"}),
    ],
)
def test_every_code_that_is_written_has_its_tissue(coding: str, expected: dict[int, str]) -> None:
    assert codes(coding) == expected


def test_a_code_of_several_tissues_names_them_all() -> None:
    (line,) = [line for line in label_description(CODINGS["brats2012"]).splitlines() if line.startswith("    2 ")]
    assert line.endswith('"NCR necrotic tumour core, ET enhancing tumour"')


def test_a_tissue_is_described_where_a_coding_writes_it(resection_cavity: int) -> None:
    without, of = CODINGS["brats2018"], CODINGS["brats2024-gli"]
    with_cavity = replace(of, codes={**of.codes, 4: resection_cavity})
    assert label_description(without).count("\n") == 2 + 3
    assert label_description(with_cavity).endswith('    4    0  158  115  1  1  1  "RC resection cavity"\n')


def test_a_line_has_the_eight_fields_of_itk_snap_and_the_colour_of_the_pictures() -> None:
    (line,) = [line for line in label_description(CODINGS["brats2018"]).splitlines() if "ET enhancing" in line]
    assert line.split(maxsplit=7) == ["4", "213", "94", "0", "1", "1", "1", '"ET enhancing tumour"']  # #D55E00


def test_each_coding_has_a_file_beside_the_masks(tmp_path: Path) -> None:
    write_label_descriptions(str(tmp_path), {"brats2018", "brats2023"})
    names = {path.name for path in (tmp_path / "nifti").iterdir()}
    assert names == {"labels_brats2018.txt", "labels_brats2023.txt"}
