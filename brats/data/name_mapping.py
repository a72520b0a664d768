"""The tables name_mapping*.csv of BraTS: which ids are one patient, and of what grade the tumour is."""

import codecs
import csv
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from brats import storage
from brats.errors import ConfigError
from brats.storage import FileInfo

GRADES = ("HGG", "LGG")

_FILE_NAME = re.compile(r"name_mapping.*\.csv", re.IGNORECASE)
_ID_COLUMN = re.compile(r"\w+_subject_ID", re.IGNORECASE)
_DELIMITERS = ",;\t|"
_EXCEL_HINT = re.compile(r'"?sep=.?"?', re.IGNORECASE)  # a first line that names the delimiter
_NO_GRADE = ("", "NA", "N/A", "NAN")
_PATIENT_IN_CASE_ID = (
    re.compile(r"BraTS1[789]_(.+)_\d+", re.IGNORECASE),  # edition, patient, scan: 2017 to 2019 share patients
    re.compile(r"(BraTS-[A-Z]+-\d+)-\d+", re.IGNORECASE),  # patient, visit: from 2023 on
)


def patient_in(case_id: str) -> str:
    """The patient that a case id names: the id without its edition and scan, or without its visit."""
    matches = (pattern.fullmatch(case_id) for pattern in _PATIENT_IN_CASE_ID)
    return next((match[1] for match in matches if match), case_id)


@dataclass(frozen=True, kw_only=True)
class NameMapping:
    """What the tables below a folder say together.

    patients: from every name of a patient to the one in use, the first by alphabet
    grades:   by the name in use
    notes:    what is odd in the tables, a line each
    """

    patients: Mapping[str, str]
    grades: Mapping[str, str]
    notes: tuple[str, ...]

    def patient_of(self, case_id: str) -> str:
        """The name in use of the patient of a case."""
        return self.patients.get(patient_in(case_id), patient_in(case_id))


class _Row(NamedTuple):
    """What one row says of a patient, as written. `names` are those of the patient in its ids."""

    ids: set[str]
    grade: str

    @property
    def names(self) -> set[str]:
        return {patient_in(case_id) for case_id in self.ids}


def read_name_mapping(files: Iterable[FileInfo], case_ids: Collection[str]) -> NameMapping:
    """Read every name_mapping*.csv among the files. `case_ids` are of the cases found.

    Raises ConfigError for a table that cannot be understood.
    """
    namesakes: dict[str, set[str]] = {}
    grades: dict[str, str] = {}
    notes: list[str] = []
    found = {patient_in(case_id) for case_id in case_ids}
    for file in files:
        if not _FILE_NAME.fullmatch(file.name):
            continue
        rows = list(_read_rows(file, case_ids))
        for row in rows:
            joined = row.names.union(*(namesakes[name] for name in row.names if name in namesakes))
            namesakes |= dict.fromkeys(joined, joined)
            if row.grade.upper() in GRADES:
                grades |= dict.fromkeys(row.names, row.grade.upper())
        notes += _notes(file, rows, found)
    patients = {name: min(joined) for name, joined in namesakes.items()}
    return NameMapping(
        patients=patients,
        grades={patients[name]: grade for name, grade in grades.items()},
        notes=tuple(notes),
    )


def _notes(file: FileInfo, rows: Sequence[_Row], found: Collection[str]) -> Iterator[str]:
    """What a table says in vain: ids of no case, and grades that are none."""
    if not any(name in found for row in rows for name in row.names):
        ids = [case_id for row in rows for case_id in sorted(row.ids)]
        example = f" (the first is {ids[0]})" if ids else ""
        yield f"{file.path}: none of its {len(ids)} ids{example} is of a case found here; it is not used"
    unknown = [row.grade for row in rows if row.grade.upper() not in (*GRADES, *_NO_GRADE)]
    if unknown:
        yield (
            f"{file.path}: {len(unknown)} of {len(rows)} rows have a grade other than {' or '.join(GRADES)}, such "
            f"as {unknown[0]!r}; it is not used"
        )


def _read_rows(file: FileInfo, case_ids: Collection[str]) -> Iterator[_Row]:
    """The rows of one table that have any cell.

    A cell of an id column is an id where it has a digit from 1 to 9, unlike NA, nan, - and 0, or is that of a case.
    """
    (_, header), *rows = _read_cells(file)
    columns = [column.lower() for column in header]
    for number, row in rows:
        if len(row) != len(header):
            raise ConfigError(f"{file.path}: line {number} has {len(row)} fields for {len(header)} columns")
        ids = {cell for column, cell in zip(header, row, strict=True) if _ID_COLUMN.fullmatch(column)}
        grade = row[columns.index("grade")] if "grade" in columns else ""
        yield _Row({each for each in ids if re.search(r"[1-9]", each) or each in case_ids}, grade)


def _read_cells(file: FileInfo) -> list[tuple[int, list[str]]]:
    """The header and the rows of a table with their line numbers, by the delimiter that gives it most columns.

    Lines without any cell are left out, as are empty cells beyond the header. Raises ConfigError where no delimiter
    gives a column of ids.
    """
    lines = [
        (number, line)
        for number, line in enumerate(re.split(r"\r\n|\r|\n", _decode(file)), start=1)
        if not (number == 1 and _EXCEL_HINT.fullmatch(line.strip()))
    ]
    for number, line in lines:
        if line.count('"') % 2:
            raise ConfigError(f"{file.path}: line {number} has a quotation mark that is not closed")
    try:
        parted = [[(number, _cells(line, delimiter)) for number, line in lines] for delimiter in _DELIMITERS]
    except csv.Error as error:
        raise ConfigError(f"{file.path}: not a table ({error}); correct or remove the file") from error
    tables = [[(number, row) for number, row in table if any(row)] for table in parted]
    usable = [table for table in tables if table and any(map(_ID_COLUMN.fullmatch, table[0][1]))]
    if not usable:
        seen = lines[0][1][:80] if lines else ""
        raise ConfigError(
            f"{file.path}: no column such as BraTS_2020_subject_ID in its first line, {seen!r}, whether it is "
            "parted at commas, semicolons, tabs or bars; correct or remove the file"
        )
    table = max(usable, key=lambda table: len(table[0][1]))
    header = _without_empty_end(table[0][1], 0)
    return [(number, _without_empty_end(row, len(header))) for number, row in table]


def _cells(line: str, delimiter: str) -> list[str]:
    row = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    return [cell.strip() for cell in row]


def _without_empty_end(row: Sequence[str], at_least: int) -> list[str]:
    """A row without its last cells while they are empty and it is longer than that."""
    length = len(row)
    while length > at_least and not row[length - 1]:
        length -= 1
    return list(row[:length])


def _decode(file: FileInfo) -> str:
    """The text of a table in UTF-8, UTF-16 or, where it is neither, the Latin-1 of old spreadsheets."""
    content = storage.read_bytes(file.path)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in content:
        encoding = "utf-16-be" if content.startswith(b"\0") else "utf-16-le"
    else:
        encoding = "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-8-sig":
            return content.decode("latin-1")
        raise ConfigError(f"{file.path}: not a text ({error}); correct or remove the file") from error
