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


def read(
    folder: Path, content: bytes | str, case_ids: tuple[str, ...] = CASE_IDS, name: str = "name_mapping.csv"
) -> NameMapping:
    path = folder / name
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


@pytest.mark.parametrize("mark", ["-999", "-1", "999", "1.5"])
def test_number_joins_no_patients(tmp_path: Path, mark: str) -> None:
    mapping = read(tmp_path, TEXT.replace("NA", mark))
    assert mapping.patient_of("BraTS20_Training_001") == "A"
    assert mapping.patient_of("BraTS20_Training_002") == "BraTS20_Training_002"
    assert dict(mapping.grades) == {"A": "HGG", "BraTS20_Training_002": "LGG"}
    assert mapping.notes == ()


def test_word_that_is_no_id_joins_no_patients_and_is_said(tmp_path: Path) -> None:
    mapping = read(tmp_path, "A_subject_ID,B_subject_ID\nmissing1,x1\nmissing1,x2\n", ("x1", "x2"))
    assert [mapping.patient_of(case_id) for case_id in ("x1", "x2")] == ["x1", "x2"]
    assert [note.removeprefix(f"{tmp_path}/") for note in mapping.notes] == [
        "name_mapping.csv: 'missing1' in 2 rows of the column A_subject_ID is no id known here; these rows are not "
        "taken for one patient"
    ]


def test_id_of_an_archive_joins_the_rows_that_have_it(tmp_path: Path) -> None:
    mapping = read(tmp_path, "A_subject_ID,B_subject_ID\nTCGA-02-0006,x1\ntcga-02-0006,x2\n", ("x1", "x2"))
    assert {mapping.patient_of(case_id) for case_id in ("x1", "x2")} == {"TCGA-02-0006"}
    assert mapping.notes == ()


def test_ids_of_cases_in_a_column_of_another_name_are_said(tmp_path: Path) -> None:
    mapping = read(tmp_path, TEXT.replace("BraTS_2020_subject_ID", "BraTS_2020_subjectID"))
    assert [note.removeprefix(f"{tmp_path}/") for note in mapping.notes] == [
        "name_mapping.csv: the column 'BraTS_2020_subjectID' holds ids of cases found here, but is not named like "
        "BraTS_2020_subject_ID; it is not used"
    ]


def test_numbers_of_rows_are_no_ids_of_cases(tmp_path: Path) -> None:
    assert read(tmp_path, "No,A_subject_ID\n1,2\n2,1\n", ("1", "2")).notes == ()


def test_patient_of_two_grades_is_said(tmp_path: Path) -> None:
    mapping = read(tmp_path, TEXT + "LGG,Brats17_A_1,NA,NA,NA,NA\n")
    assert mapping.grades["A"] == "LGG"
    assert mapping.notes == ("name mappings: patient A is both HGG and LGG; the last is used",)
    more = read(tmp_path, TEXT + "LGG,Brats17_A_1,NA,NA,NA,NA\nHGG,NA,NA,NA,NA,BraTS20_Training_002\n")
    assert more.notes == ("name mappings: patient A is both HGG and LGG; the last is used, as for 1 more",)


def test_letter_case_of_ids_is_no_matter(tmp_path: Path) -> None:
    mapping = read(tmp_path, HEADER + ROWS.lower())
    assert [mapping.patient_of(case_id) for case_id in CASE_IDS] == ["A", "A", "BraTS20_Training_002"]
    assert dict(mapping.grades) == {"A": "HGG", "BraTS20_Training_002": "LGG"}
    assert mapping.notes == ()


def test_cases_that_differ_in_letter_case_stay_two_patients(tmp_path: Path) -> None:
    mapping = read(tmp_path, "Grade,A_subject_ID\nHGG,x1\nLGG,X1\n", ("x1", "X1"))
    assert dict(mapping.grades) == {"x1": "HGG", "X1": "LGG"}


@pytest.mark.parametrize("column", ["Tumor_Grade", "grade", "TUMOUR GRADE", "WHOgrade"])
def test_column_that_ends_in_grade_gives_the_grade(tmp_path: Path, column: str) -> None:
    mapping = read(tmp_path, TEXT.replace("Grade", column))
    assert dict(mapping.grades) == {"A": "HGG", "BraTS20_Training_002": "LGG"}


def test_column_grade_goes_before_others_that_end_so(tmp_path: Path) -> None:
    mapping = read(tmp_path, "Old_grade,Grade,A_subject_ID\nLGG,HGG,x1\n", ("x1",))
    assert dict(mapping.grades) == {"x1": "HGG"}


@pytest.mark.parametrize(
    "name",
    [
        "NAME-MAPPING.CSV",
        "BraTS20_name_mapping.csv",
        "name_mapping.tsv",
        "name_mapping.csv.txt",
        "x-Mapping (1).csv",
    ],
)
def test_table_called_alike_is_read(tmp_path: Path, name: str) -> None:
    mapping = read(tmp_path, TEXT, name=name)
    assert mapping.patient_of("BraTS20_Training_001") == "A"
    assert mapping.notes == ()


@pytest.mark.parametrize(
    ("name", "content", "note"),
    [
        (
            "BraTS21-17_Mapping.csv",
            "BraTS2021,BraTS2020\nx,y\n",
            "no column such as BraTS_2020_subject_ID in its first line, 'BraTS2021,BraTS2020', whether it is "
            "separated by commas, semicolons, tabs or bars; it is not used",
        ),
        ("mapping.tsv", HEADER + "HGG\n", "line 2 has 1 fields for 6 columns; it is not used"),
        ("name_mapping.xlsx", "PK", "a workbook is not read, save it as name_mapping.csv; it is not used"),
    ],
)
def test_table_called_alike_that_cannot_be_read_is_said(tmp_path: Path, name: str, content: str, note: str) -> None:
    assert read(tmp_path, content, name=name).notes == (f"{tmp_path}/{name}: {note}",)


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
        ("BraTS24-GLI-00005-101", "BraTS24-GLI-00005"),
        ("C-BraTS-2024-PED-00001-000", "C-BraTS-2024-PED-00001"),
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


@pytest.mark.parametrize(
    ("case_id", "patient"),
    [
        ("UPENN-GBM-00001_11", "UPENN-GBM-00001"),
        ("UPENN-GBM-00001_21", "UPENN-GBM-00001"),
        ("UCSF-PDGM-0138_FU003d", "UCSF-PDGM-0138"),
        ("sub-001_ses-02", "sub-001"),
        ("sub-001", "sub-001"),
        ("HGG_brats_tcia_pat105_0283", "HGG_brats_tcia_pat105"),
        ("HG_0001", "HG_0001"),
        ("BRATS_001", "BRATS_001"),
        ("volume_41", "volume_41"),
    ],
)
def test_patient_of_a_collection_is_its_id_without_the_visit(case_id: str, patient: str) -> None:
    assert patient_in(case_id) == patient
