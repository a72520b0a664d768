"""What the page carries of the viewer."""

import base64
import re

from brats.report.html import json_script
from brats.report.viewer import (
    PAGE_LIMIT_BYTES,
    ViewCase,
    fit_in,
    legend,
    viewer_data,
    viewer_section,
    volume_scripts,
)


def case(name: str, n_bytes: int = 3, packed: bytes | None = b"abc", dice: float | None = 0.5) -> ViewCase:
    return ViewCase(case_id=name, role="", dice=dice, n_bytes=n_bytes, packed=packed)


def test_cases_are_carried_in_their_order_as_long_as_the_page_stays_below_its_limit() -> None:
    large = [case(name, n_bytes=14_000_000) for name in "abc"]  # 18.7 MB each in base64
    assert [one.case_id for one in fit_in(large, 1_000_000)] == ["a", "b"]
    assert [one.case_id for one in fit_in(large, 10_000_000)] == ["a"]
    assert fit_in(large, PAGE_LIMIT_BYTES) == []


def test_a_case_too_large_is_passed_over_for_a_smaller_one() -> None:
    assert [one.case_id for one in fit_in([case("a", n_bytes=40_000_000), case("b")], 0)] == ["b"]


def test_cases_whose_files_were_written_beside_are_not_carried() -> None:
    assert fit_in([case("a", packed=None)], 0) == []


def test_the_scripts_are_told_where_each_case_is() -> None:
    carried, beside = case("a"), case("b", packed=None, dice=None)
    data = viewer_data([carried, beside], [carried])
    assert data["cases"] == [
        {"id": "a", "title": "a, Dice 0.500", "inline": "volume-0", "file": None},
        {"id": "b", "title": "b, no reference", "inline": None, "file": "cases/b.view.gz"},
    ]
    assert [region["name"] for region in data["regions"]] == ["WT", "TC", "ET"]
    assert data["tissues"] == {"1": "NCR", "2": "ED", "3": "ET"}
    assert json_script("data", data)


def test_volumes_are_carried_in_base64() -> None:
    html = "".join(volume_scripts([case("a"), case("b", packed=b"xyz")]))
    assert [base64.b64decode(text) for text in re.findall(r'id="volume-\d">(.*?)<', html)] == [b"abc", b"xyz"]


def test_the_section_says_how_to_open_cases_beside_the_page() -> None:
    cases = [case("a"), case("b", packed=None)]
    assert "1 of 2 cases are in this file" in viewer_section("CONTROLS", cases, cases[:1], "")
    alone = viewer_section("CONTROLS", cases[:1], cases[:1], "")
    assert "cases are in this file" not in alone
    assert "CONTROLS" in alone


def test_without_cases_the_section_says_why() -> None:
    html = viewer_section("CONTROLS", [], [], "because <x>")
    assert "because &lt;x&gt;" in html
    assert "CONTROLS" not in html


def test_the_legend_names_colours() -> None:
    assert legend("Errors", {"missed": "#123456"}) == (
        '<p class="legend"><b>Errors</b><span><i style="background:#123456"></i>missed</span></p>'
    )
