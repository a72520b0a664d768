"""Name mappings: the dialects they come in, what they say of patients and grades, and what is odd in them."""

from pathlib import Path

import pytest

from brats import storage
from brats.data.name_mapping import NameMapping, patient_in, read_name_mapping
from brats.errors import ConfigError

HEADER = (
    "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,"
    "BraTS_2019_subject_ID,BraTS_2020_subject_ID\n"
)
ROWS = "HGG,Brats17_A_1,NA,NA,NA,BraTS20_Training_001\nLGG,NA,NA,NA,NA,BraTS20_Training_002\n"
TEXT = HEADER + ROWS
CASE_IDS = ("Brats17_A_1", "BraTS20_Training_001", "BraTS20_Training_002")


def read(folder: Path, content: bytes | str, case_ids: tuple[str, ...] = CASE_IDS) -> NameMapping:
    path = folder / "name_mapping.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_name_mapping(storage.list_files(str(folder)), case_ids)


DIALECTS = {
    "as published": TEXT.encode(),
    "byte order mark and CRLF": ("\ufeff" + TEXT.replace("\n", "\r\n")).encode(),
    "CR": TEXT.replace("\n", "\r").encode(),
    "semicolons": TEXT.replace(",", ";").encode(),
    "tabs": TEXT.replace(",", "\t").encode(),
    "bars": TEXT.replace(",", "|").encode(),
    "first line of Excel": ("sep=;\n" + TEXT.replace(",", ";")).encode(),
    "trailing commas in rows": (HEADER + ROWS.replace("\n", ",,\n")).encode(),
    "trailing commas everywhere": TEXT.replace("\n", ",,\n").encode(),
    "empty rows": (TEXT + "\n,,,,,\n\n").encode(),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16 big-endian": ("\ufeff" + TEXT).encode("utf-16-be"),
    "UTF-16 without byte order mark": TEXT.encode("utf-16-le"),
    "Latin-1": (HEADER.replace("Grade", "Grade,Ort") + ROWS.replace("GG,", "GG,Köln,")).encode("latin-1"),
    "quoted": "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in TEXT.splitlines()).encode(),
    "quoted, with spaces around": TEXT.replace("HGG,", '"HGG" , ').replace("LGG,", ' "LGG",').encode(),
    "spaces around": TEXT.replace(",", " , ").encode(),
    "grades in lower case": TEXT.replace("HGG", "hgg ").replace("LGG", "lgg").encode(),
    "header in lower case": (HEADER.lower() + ROWS).encode(),
    "other words for nothing": TEXT.replace("NA", "n/a").replace("n/a,n/a", "-,nan").encode(),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_usual_dialect_says_the_same(dialect: str, tmp_path: Path) -> None:
    mapping = read(tmp_path, DIALECTS[dialect])
    assert {case_id: mapping.patient_of(case_id) for case_id in CASE_IDS} == {
        "Brats17_A_1": "A",
        "BraTS20_Training_001": "A",
        "BraTS20_Training_002": "BraTS20_Training_002",
    }
    assert dict(mapping.grades) == {"A": "HGG", "BraTS20_Training_002": "LGG"}
    assert mapping.notes == ()


def test_cell_without_a_digit_is_an_id_where_it_is_that_of_a_case(tmp_path: Path) -> None:
    text = "Grade,BraTS_2019_subject_ID,BraTS_2020_subject_ID\nHGG,x,y\nLGG,none,none\nHGG,z,none\n"
    mapping = read(tmp_path, text, ("x", "y", "z"))
    assert [mapping.patient_of(case_id) for case_id in ("x", "y", "z")] == ["x", "x", "z"]
    assert dict(mapping.grades) == {"x": "HGG", "z": "HGG"}


def test_table_whose_ids_match_no_case_is_said(tmp_path: Path) -> None:
    (note,) = read(tmp_path, TEXT, ("BraTS2021_00006",)).notes
    assert note.removeprefix(f"{tmp_path}/") == (
        "name_mapping.csv: none of its 3 ids (the first is BraTS20_Training_001) is of a case found here; it is "
        "not used"
    )


def test_grades_that_are_none_are_said(tmp_path: Path) -> None:
    mapping = read(tmp_path, TEXT.replace("HGG", "glioblastoma"))
    assert dict(mapping.grades) == {"BraTS20_Training_002": "LGG"}
    assert [note.removeprefix(f"{tmp_path}/") for note in mapping.notes] == [
        "name_mapping.csv: 1 of 2 rows have a grade other than HGG or LGG, such as 'glioblastoma'; it is not used"
    ]


def test_table_without_grades_is_fine(tmp_path: Path) -> None:
    mapping = read(tmp_path, "BraTS_2019_subject_ID,BraTS_2020_subject_ID\nBraTS19_B_1,BraTS20_Training_001\n")
    assert mapping.patient_of("BraTS20_Training_001") == "B"
    assert mapping.notes == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "not a text"),
        (b"", "no column such as BraTS_2020_subject_ID in its first line, ''"),
        (b"Grade:BraTS_2020_subject_ID\n", "no column such as .* 'Grade:BraTS_2020_subject_ID', whether"),
        (b"Grade BraTS_2020_subject_ID\nHGG x1\n", "no column such as"),
        (b"PK\x03\x04binary", "no column such as"),
        (HEADER.encode() + b"HGG,NA\n", "line 2 has 2 fields for 6 columns"),
        (TEXT.replace(",", ";").encode() + b"HGG,NA,NA,NA,NA,x1\n", "line 4 has 1 fields for 6 columns"),
        (HEADER.encode() + b"HGG,NA,NA,NA,NA,x1,y1\n", "line 2 has 7 fields for 6 columns"),
        (HEADER.encode() + b'"HGG,NA\n', "line 2 has a quotation mark that is not closed"),
    ],
)
def test_unusable_table_is_a_configuration_error(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"name_mapping\.csv: {message}") as refused:
        read(tmp_path, content)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("case_id", "patient_id"),
    [
        ("BraTS-GLI-00005-001", "BraTS-GLI-00005"),
        ("Brats17_2013_27_1", "2013_27"),
        ("Brats18_TCIA01_131_1", "TCIA01_131"),
        ("BraTS19_CBICA_ABM_1", "CBICA_ABM"),
        ("BraTS20_Training_001", "BraTS20_Training_001"),
        ("BraTS2021_00006", "BraTS2021_00006"),
        ("BraTS-GoAT-00000", "BraTS-GoAT-00000"),
    ],
)
def test_case_id_names_its_patient(case_id: str, patient_id: str) -> None:
    assert patient_in(case_id) == patient_id
