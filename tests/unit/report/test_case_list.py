"""The table of cases and the data of its scripts."""

import math
import re

import pandas as pd

from brats.report.case_list import case_data, cases_section, metrics_of, worst_first
from brats.report.findings import Scores

NAN = math.nan


def rows_of(case_id: str, dice: tuple[float, float, float], patient: str = "p") -> list[dict[str, object]]:
    fixed = {"case_id": case_id, "patient_id": patient, "split": "test", "hd95_mm": 2.5, "n_new": 7, "never": NAN}
    return [
        {**fixed, "region": region, "dice": value} for region, value in zip(("WT", "TC", "ET"), dice, strict=True)
    ]


CASES = pd.DataFrame(
    [*rows_of("a", (0.9, 0.8, 0.7)), *rows_of("b", (0.2, NAN, 0.4)), *rows_of("c<", (NAN, NAN, NAN))]
)
SCORES = Scores(tables={"cases": CASES}, conventions={"cases": {"dice": "2 TP", "n_new": "what came later"}})


def test_cases_are_listed_worst_first_without_those_that_have_no_dice() -> None:
    assert worst_first(CASES) == ["b", "a"]
    equal = pd.DataFrame([*rows_of("z", (0.5,) * 3), *rows_of("y", (0.5,) * 3)])
    assert worst_first(equal) == ["y", "z"]


def test_every_column_of_numbers_is_a_metric_whichever_there_are() -> None:
    assert metrics_of(CASES) == ["hd95_mm", "n_new", "dice"]


def test_a_row_has_its_values_as_numbers_for_sorting() -> None:
    html = cases_section(SCORES, [])
    assert re.findall(r'<tr data-case="(.*?)">', html) == ["b", "a"]
    row = html.partition('<tr data-case="b">')[2].partition("</tr>")[0]
    assert re.findall(r'data-value="(.*?)"', row) == [
        "b", "p", "test", repr((0.2 + 0.4) / 2), "0.2", "", "0.4", "2.5", "2.5", "2.5"
    ]  # fmt: skip
    assert '<td data-value="">\N{EN DASH}</td>' in row


def test_cases_of_the_viewer_have_a_button() -> None:
    html = cases_section(SCORES, ["a"])
    assert re.findall(r'class="open" data-case="(.*?)"', html) == ["a"]


def test_names_are_escaped() -> None:
    evil = pd.DataFrame(rows_of('"><script>', (0.5,) * 3, patient="<i>"))
    html = cases_section(Scores(tables={"cases": evil}, conventions={}), ['"><script>'])
    assert "<script" not in html
    assert "<i>" not in html
    assert 'data-case="&quot;&gt;&lt;script&gt;"' in html


def test_the_scripts_have_every_metric_of_each_case_by_region_with_its_convention() -> None:
    data = case_data(SCORES)
    assert data["values"]["b"] == {"hd95_mm": [2.5] * 3, "n_new": [7.0] * 3, "dice": [0.2, None, 0.4]}
    assert data["metrics"] == [
        {"name": "hd95_mm", "convention": "", "digits": 1},
        {"name": "n_new", "convention": "what came later", "digits": 0},
        {"name": "dice", "convention": "2 TP", "digits": 3},
    ]


def test_without_scored_cases_there_is_no_table() -> None:
    assert cases_section(None, []) == ""
    assert case_data(None) == {"metrics": [], "values": {}}
    unscored = Scores(tables={"cases": CASES[CASES["case_id"] == "c<"]}, conventions={})
    assert cases_section(unscored, []) == ""
