"""The tables name_mapping*.csv of BraTS and alike: which ids are one patient, and of what grade the tumour is."""

import codecs
import csv
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from brats import storage
from brats.errors import ConfigError
from brats.storage import FileInfo

GRADES = ("HGG", "LGG")

_FILE_NAME = re.compile(r"name_mapping.*\.csv", re.IGNORECASE)  # one that cannot be read is an error
_LIKELY_NAME = re.compile(
    r".*mapping.*\.(csv|tsv|txt|xlsx?|ods)", re.IGNORECASE
)  # one that cannot be read is noted
_WORKBOOK = re.compile(r".*\.(xlsx?|ods)", re.IGNORECASE)
_REMEDY = "; correct or remove the file"
_ID_COLUMN = re.compile(r"\w+_subject_ID", re.IGNORECASE)
_ID = re.compile(r"(BraTS|TCGA|TCIA|CBICA|UPENN|UCSF|CPTAC|C3[LN]).*[1-9].*", re.IGNORECASE)
_NUMBER = re.compile(r"[-+\d.,]*")
_DELIMITERS = ",;\t|"
_EXCEL_HINT = re.compile(r'"?sep=.?"?', re.IGNORECASE)  # a first line that names the delimiter
_NO_GRADE = ("", "NA", "N/A", "NAN")
_PATIENT_IN_CASE_ID = (
    re.compile(r"BraTS1[789]_(.+)_\d+", re.IGNORECASE),  # edition, patient, scan: 2017 to 2019 share patients
    re.compile(  # patient, visit: from 2023 on
        r"((?:.*[-_.])?BraTS(?:-?(?:20)?\d\d)?-[A-Z]+-\d+)-\d+", re.IGNORECASE
    ),
    re.compile(r"(UPENN-GBM-\d+)_\d+", re.IGNORECASE),  # patient, visit
    re.compile(r"(UCSF-PDGM-\d+)_FU\w+", re.IGNORECASE),  # a follow-up
    re.compile(r"(sub-[a-z0-9]+)_ses-[a-z0-9]+", re.IGNORECASE),  # of BIDS: patient, session
    re.compile(r"((?:[HL]GG?_)?brats_tcia_pat\d+)_\d+", re.IGNORECASE),  # patient, visit: 2014 and 2015
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
    """What one row says of a patient: the names of the patient in its ids, and the grade as written."""

    ids: set[str]
    names: set[str]
    grade: str


class _Known:
    """The cases found, by ids in any letter case, and the one spelling of every name of a patient."""

    def __init__(self, case_ids: Iterable[str]) -> None:
        ids = sorted(case_ids, reverse=True)
        self.patients = {patient_in(case_id) for case_id in ids}
        self._ids = {case_id.lower() for case_id in ids}
        self._spellings = {name.lower(): name for name in map(patient_in, ids)}

    def has(self, cell: str) -> bool:
        """Whether a cell is the id of a case found."""
        return cell.lower() in self._ids

    def is_id(self, cell: str) -> bool:
        """Whether a cell is an id, found or not. NA, -999 and missing1 are none: they would join strangers."""
        return self.has(cell) or _ID.fullmatch(cell) is not None

    def patient(self, cell: str) -> str:
        """The patient that an id names, spelt as in the cases found."""
        name = patient_in(cell)
        return name if name in self.patients else self._spellings.setdefault(name.lower(), name)


def read_name_mapping(files: Iterable[FileInfo], case_ids: Collection[str]) -> NameMapping:
    """Read every name_mapping*.csv among the files, and others called alike. `case_ids` are of the cases found.

    Raises ConfigError for a name_mapping*.csv that cannot be understood; others that cannot are noted.
    """
    known = _Known(case_ids)
    rows: list[_Row] = []
    notes: list[str] = []
    for file in files:
        if not _LIKELY_NAME.fullmatch(file.name):
            continue
        try:
            table = _read_table(file)
        except ConfigError as error:
            if _FILE_NAME.fullmatch(file.name):
                raise
            notes.append(f"{str(error).removesuffix(_REMEDY)}; it is not used")
            continue
        own = _rows(table, known)
        rows += own
        notes += [*_notes(file, own, known), *_cell_notes(file, table, known)]
    patients = _patients(rows)
    grades, grade_notes = _grades(rows, patients)
    return NameMapping(patients=patients, grades=grades, notes=(*notes, *grade_notes))


def _patients(rows: Iterable[_Row]) -> dict[str, str]:
    """From every name to the one in use: rows that share a name are of one patient."""
    namesakes: dict[str, set[str]] = {}
    for row in rows:
        joined = row.names.union(*(namesakes[name] for name in row.names if name in namesakes))
        namesakes |= dict.fromkeys(joined, joined)
    return {name: min(joined) for name, joined in namesakes.items()}


def _grades(rows: Iterable[_Row], patients: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The grade of every patient, the last one said, and a note on those with two."""
    said: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.names and row.grade.upper() in GRADES:
            said[patients[min(row.names)]].append(row.grade.upper())
    both = sorted(name for name, grades in said.items() if len(set(grades)) > 1)
    notes = [f"name mappings: patient {name} is both {' and '.join(GRADES)}; the last is used" for name in both[:1]]
    if len(both) > 1:
        notes = [f"{notes[0]}, as for {len(both) - 1} more"]
    return {name: grades[-1] for name, grades in said.items()}, notes


def _notes(file: FileInfo, rows: Sequence[_Row], known: _Known) -> Iterator[str]:
    """What a table says in vain: ids of no case, and grades that are none."""
    if not any(name in known.patients for row in rows for name in row.names):
        ids = [case_id for row in rows for case_id in sorted(row.ids)]
        example = f" (the first is {ids[0]})" if ids else ""
        yield f"{file.path}: none of its {len(ids)} ids{example} is of a case found here; it is not used"
    unknown = [row.grade for row in rows if row.grade.upper() not in (*GRADES, *_NO_GRADE)]
    if unknown:
        yield (
            f"{file.path}: {len(unknown)} of {len(rows)} rows have a grade other than {' or '.join(GRADES)}, such "
            f"as {unknown[0]!r}; it is not used"
        )


def _cell_notes(file: FileInfo, table: Sequence[Sequence[str]], known: _Known) -> Iterator[str]:
    """Where a table may mean more than is read: ids in other columns, and words that several rows share."""
    header, *rows = table
    for name, *column in zip(header, *rows, strict=True):
        if _ID_COLUMN.fullmatch(name):
            counts = Counter(cell for cell in column if re.search(r"[1-9]", cell) and not _NUMBER.fullmatch(cell))
            shared = [cell for cell, n in counts.items() if n > 1 and not known.is_id(cell)]
            if shared:
                yield (
                    f"{file.path}: {shared[0]!r} in {counts[shared[0]]} rows of the column {name} is no id known "
                    "here; these rows are not taken for one patient"
                )
        elif any(known.has(cell) and not _NUMBER.fullmatch(cell) for cell in column):
            yield (
                f"{file.path}: the column {name!r} holds ids of cases found here, but is not named like "
                "BraTS_2020_subject_ID; it is not used"
            )


def _rows(table: Sequence[Sequence[str]], known: _Known) -> list[_Row]:
    """What the rows of a table say, each."""
    header, *rows = table
    columns = [column.lower() for column in header]
    graded = sorted((name != "grade", place) for place, name in enumerate(columns) if name.endswith("grade"))
    places = [place for place, name in enumerate(header) if _ID_COLUMN.fullmatch(name)]
    read = []
    for row in rows:
        ids = {row[place] for place in places if known.is_id(row[place])}
        names = {known.patient(each) for each in ids}
        read.append(_Row(ids=ids, names=names, grade=row[graded[0][1]] if graded else ""))
    return read


def _read_table(file: FileInfo) -> list[list[str]]:
    """The header of a table, then its rows that have any cell, all of one length."""
    if _WORKBOOK.fullmatch(file.name):
        raise ConfigError(f"{file.path}: a workbook is not read, save it as name_mapping.csv")
    (_, header), *rows = _read_cells(file)
    for number, row in rows:
        if len(row) != len(header):
            raise ConfigError(f"{file.path}: line {number} has {len(row)} fields for {len(header)} columns")
    return [header, *(row for _, row in rows)]


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
        raise ConfigError(f"{file.path}: not a table ({error}){_REMEDY}") from error
    tables = [[(number, row) for number, row in table if any(row)] for table in parted]
    usable = [table for table in tables if table and any(map(_ID_COLUMN.fullmatch, table[0][1]))]
    if not usable:
        seen = lines[0][1][:80] if lines else ""
        raise ConfigError(
            f"{file.path}: no column such as BraTS_2020_subject_ID in its first line, {seen!r}, whether it is "
            f"separated by commas, semicolons, tabs or bars{_REMEDY}"
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
        raise ConfigError(f"{file.path}: not a text ({error}){_REMEDY}") from error
