"""Results of an earlier start: kept or removed by the files they were made from; lesions on the source grid."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brats import storage
from brats.config import PredictConfig
from brats.data.items import Item
from brats.data.masks import masks_path, mha_path, nifti_path, probabilities_path
from brats.data.rejects import Reject
from brats.data.sources import SourceFile
from brats.pipeline.predict import lacks_files, score_case, settle_items
from brats.score.parts import Part, part_path, read_parts, write_part
from tests.support.prepared import tiny_case
from tests.support.volumes import files_of

IMAGE = SourceFile(kind="t1", size=9, hash="ab", path="/data/a_t1.nii", stamp="7")
PATHS = (part_path, masks_path, nifti_path, mha_path, probabilities_path)


def item_of(*sources: SourceFile, coding: str = "brats2018") -> Item:
    source = files_of(["t1"], "a")
    return Item(case_id="a", patient_id="p", split=None, source=source, sources=sources, coding=coding)


@pytest.fixture
def out(tmp_path: Path) -> str:
    """Results of the case a, made from `IMAGE`."""
    for path_of in PATHS:
        storage.write_bytes(path_of(str(tmp_path), "a"), b"")
    write_part(str(tmp_path), Part(case_id="a", sources=(IMAGE,), coding="brats2018"))
    return str(tmp_path)


def settle(item: Item, out: str) -> tuple[Item, dict[str, Part]]:
    """The case, and the parts that count after it was settled, in memory and on disk alike."""
    parts = read_parts(out)
    (settled,) = settle_items([item], parts, out)
    assert read_parts(out) == parts
    return settled, parts


def test_result_of_files_where_and_as_they_were_stays(out: str) -> None:
    settled, parts = settle(item_of(replace(IMAGE, hash="")), out)
    assert settled.sources == parts["a"].sources == (IMAGE,)


def test_result_of_equal_files_elsewhere_stays_and_notes_their_place(out: str) -> None:
    prepared = IMAGE.content
    settled, parts = settle(item_of(prepared), out)
    assert settled.sources == parts["a"].sources == (prepared,)
    assert all(storage.exists(path_of(out, "a")) for path_of in PATHS)


@pytest.mark.parametrize(
    "item",
    [
        item_of(replace(IMAGE, hash="cd", stamp="8")),
        item_of(replace(IMAGE, hash="", size=10)),
        item_of(IMAGE, replace(IMAGE, kind="seg")),
        item_of(IMAGE, coding="brats2023"),
    ],
    ids=["other content", "other size", "new segmentation", "other coding"],
)
def test_results_made_from_anything_else_are_removed_by_name(
    item: Item, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, parts = settle(item, out)
    assert parts == {}
    assert not any(storage.exists(path_of(out, "a")) for path_of in PATHS)
    assert "made from other files than these, predicted again: a\n" in capsys.readouterr().out


def test_reject_stays_until_its_file_is_touched(out: str) -> None:
    unread = replace(IMAGE, hash="")
    reject = Reject(case_id="a", path="", stage="read", reason="damaged")
    write_part(out, Part(case_id="a", sources=(unread,), coding="brats2018", reject=reject))
    assert "a" in settle(item_of(unread), out)[1]
    assert settle(item_of(replace(unread, stamp="8")), out)[1] == {}


def test_lesions_lie_on_the_source_grid_and_are_scored_by_the_rules_that_are_asked_for() -> None:
    case = tiny_case("a")
    assert case.labels is not None
    part = score_case(item_of(), case, case.labels, rules="men")
    assert {row["challenge_rules"] for row in part.cases} == {"men"}
    volume = case.on_source_grid(case.labels)
    (whole,) = (row for row in part.lesions if (row["region"], row["convention"]) == ("WT", "panoptic-2026"))
    centroid = [whole["centroid_i"], whole["centroid_j"], whole["centroid_k"]]
    assert centroid == pytest.approx(np.argwhere(volume > 0).mean(axis=0))


@pytest.mark.parametrize(
    ("there", "nifti", "probabilities", "lacks"),
    [
        ((), False, False, False),
        ((), True, False, True),
        ((nifti_path,), True, False, False),
        ((mha_path,), True, False, False),
        ((mha_path,), True, True, True),
        ((probabilities_path,), False, True, False),
    ],
)
def test_case_that_is_done_lacks_what_is_asked_for_in_neither_form(
    tmp_path: Path, there: tuple[Callable[[str, str], str], ...], nifti: bool, probabilities: bool, lacks: bool
) -> None:
    for path_of in there:
        storage.write_bytes(path_of(str(tmp_path), "a"), b"")
    config = PredictConfig(model="run", data="cases", out=str(tmp_path), nifti=nifti, probabilities=probabilities)
    assert lacks_files(Part(case_id="a"), config) == lacks
