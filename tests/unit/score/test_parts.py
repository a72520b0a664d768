"""The part of a case: written, read, and when it counts as done."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from brats.data.rejects import Reject
from brats.data.sources import SourceFile
from brats.errors import StorageError
from brats.score.lesion_tables import CASE_COLUMNS
from brats.score.metrics import METRICS
from brats.score.parts import Part, check_parts, is_done, read_parts, write_part
from brats.score.tables import CASE_METRICS

FILES = (SourceFile(kind="t1", size=9, hash="ab", path="/data/a_t1.nii", stamp="7"),)
UNREAD = (SourceFile(kind="t1", size=9, path="/data/a_t1.nii", stamp="7"),)
ROW = {"case_id": "a", "region": "WT", "dice": 0.5, "sensitivity": None}


def test_parts_come_back_as_written_in_the_order_of_their_ids(tmp_path: Path) -> None:
    second = Part(
        case_id="b",
        sources=FILES,
        coding="brats2018",
        cases=[ROW],
        slices=[{"dice": 1.0}],
        notebook=[{"value": 0.9}],
        lesions=[{"status": "found"}],
        uncertainty=[{"ece": 0.1}],
        uncertainty_curves=[{"ftp": 0.2}],
        code_counts=[[0, 4, 0, 0, 1]],
    )
    reject = Reject(case_id="a", path="a.nii", stage="read", reason="empty", transient=True)
    first = Part(case_id="a", sources=UNREAD, reject=reject, warnings=["a.nii: odd"])
    for part in (second, first):
        write_part(str(tmp_path), part)
    assert list(read_parts(str(tmp_path)).items()) == [
        (
            "a",
            dataclasses.replace(
                first,
                cases=[],
                slices=[],
                notebook=[],
                lesions=[],
                uncertainty=[],
                uncertainty_curves=[],
                code_counts=[],
            ),
        ),
        ("b", dataclasses.replace(second, warnings=[])),
    ]


def test_no_folder_has_no_parts(tmp_path: Path) -> None:
    assert read_parts(str(tmp_path / "nothing")) == {}


def test_unfinished_files_are_not_parts(tmp_path: Path) -> None:
    write_part(str(tmp_path), Part(case_id="a"))
    for name in (".partial-x", ".partial-x.json", ".partial-x.parquet"):
        (tmp_path / "parts" / name).write_bytes(b"half")
    assert list(read_parts(str(tmp_path))) == ["a"]


def test_part_is_one_json_document(tmp_path: Path) -> None:
    write_part(str(tmp_path), Part(case_id="a", cases=[ROW]))
    assert json.loads((tmp_path / "parts" / "a.json").read_text()) == {
        "format": "brats-ray part 5",
        "case_id": "a",
        "sources": [],
        "coding": "",
        "reject": None,
        "cases": [ROW],
        "slices": [],
        "notebook": [],
        "lesions": [],
        "uncertainty": [],
        "uncertainty_curves": [],
        "code_counts": [],
        "warnings": [],
    }


def test_numbers_come_back_bit_for_bit(tmp_path: Path) -> None:
    values = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2.0, 373.13]
    row = {"n": 2**53 + 1, "none": None, **{str(index): value for index, value in enumerate(values)}}
    write_part(str(tmp_path), Part(case_id="a", cases=[row]))
    part = read_parts(str(tmp_path))["a"]
    assert [part.cases[0][str(index)].hex() for index in range(len(values))] == [value.hex() for value in values]
    assert (part.cases[0]["n"], part.cases[0]["none"]) == (2**53 + 1, None)
    assert type(part.cases[0]["5"]) is float


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_value_that_json_has_not_is_refused_and_nothing_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_part(str(tmp_path), Part(case_id="a", cases=[{**ROW, "dice": value}]))
    assert read_parts(str(tmp_path)) == {}


@pytest.mark.parametrize("check", [read_parts, check_parts])
def test_part_of_an_earlier_version_is_named_with_the_remedy(
    tmp_path: Path, check: Callable[[str], object]
) -> None:
    write_part(str(tmp_path), Part(case_id="a"))
    (tmp_path / "parts" / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(StorageError) as caught:
        check(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}/parts/b.parquet: a result in Parquet, of an earlier version of brats-ray; choose another "
        f"--out, or remove {tmp_path}/parts and run again, which does its cases again"
    )


@pytest.mark.parametrize("check", [read_parts, check_parts])
def test_part_of_the_format_before_is_named_with_the_remedy(tmp_path: Path, check: Callable[[str], object]) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.json").write_text('{"format": "brats-ray part 2", "source_bytes": 1}')
    with pytest.raises(StorageError) as caught:
        check(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}/parts/a.json: a result of the format 'brats-ray part 2', of an earlier version of brats-ray; "
        f"choose another --out, or remove {tmp_path}/parts and run again, which does its cases again"
    )


@pytest.mark.parametrize(
    ("before", "lacking"),
    [
        ("brats-ray part 3", ["lesions", "uncertainty", "uncertainty_curves"]),
        ("brats-ray part 4", ["lesions"]),
    ],
)
def test_part_of_a_format_that_lacks_some_rows_is_read_without_them(
    tmp_path: Path, before: str, lacking: list[str]
) -> None:
    write_part(str(tmp_path), Part(case_id="a", cases=[ROW]))
    path = tmp_path / "parts" / "a.json"
    document = json.loads(path.read_text())
    for name in lacking:
        del document[name]
    path.write_text(json.dumps({**document, "format": before}))
    part = read_parts(str(tmp_path))["a"]
    assert (part.cases, part.lesions, part.uncertainty, part.uncertainty_curves) == ([ROW], [], [], [])


def test_part_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.json").write_text('{"format": "brats-ray part 6", "rows": {}}')
    with pytest.raises(
        StorageError, match=r"a\.json: of the format 'brats-ray part 6', this program reads .* part 5'"
    ):
        read_parts(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b'{"format": "brats-ray part 5", "case_id": "a", "sou', "Unterminated string"),
        (b"\xff\xfe\x00", "decode"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"case_id": "a"}', "it lacks format"),
        (
            b'{"format": "brats-ray part 5", "case_id": "a"}',
            "it lacks cases, code_counts, coding, lesions, notebook, reject, slices, sources, uncertainty, "
            "uncertainty_curves, warnings",
        ),
    ],
)
def test_damaged_part_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.json").write_bytes(content)
    with pytest.raises(StorageError, match=rf"a\.json: damaged, .*{reason}.*; remove it and run again"):
        read_parts(str(tmp_path))


def test_case_is_done_unless_its_reject_may_pass() -> None:
    passing = Reject(case_id="a", path="", stage="read", reason="", transient=True)
    staying = Reject(case_id="a", path="", stage="read", reason="")
    assert not is_done(None)
    assert is_done(Part(case_id="a"))
    assert is_done(Part(case_id="a", reject=staying))
    assert not is_done(Part(case_id="a", reject=passing))


def test_case_is_not_done_without_a_metric_that_there_has_always_been() -> None:
    row: dict[str, object] = {"case_id": "a", **{metric.name: 0.5 for metric in METRICS}}
    assert is_done(Part(case_id="a", cases=[row]))
    del row["iou"]
    assert not is_done(Part(case_id="a", cases=[row]))


def test_case_scored_before_there_were_scores_by_lesion_is_done_and_says_what_it_lacks() -> None:
    row: dict[str, object] = dict.fromkeys(CASE_METRICS.schema.names)
    assert Part(case_id="a", cases=[row]).has_every_convention
    before = {name: value for name, value in row.items() if name not in dict(CASE_COLUMNS)}
    part = Part(case_id="a", cases=[before])
    assert (is_done(part), part.has_every_convention) == (True, False)
    assert CASE_METRICS.table(part.cases)["lesion_dice_2023"].to_pylist() == [None]
