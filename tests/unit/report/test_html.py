"""HTML from values: nothing from data becomes a tag, an attribute or a script."""

import json

import pytest

from brats.report.html import (
    DASH,
    code,
    counted,
    facts,
    json_script,
    listing,
    number,
    paragraph,
    picture,
    section,
    table,
    text,
)

EVIL = "<script>alert('1')</script>\"&"
HARMLESS = "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&quot;&amp;"


def test_text_is_escaped_for_elements_and_attributes() -> None:
    assert text(EVIL) == HARMLESS


@pytest.mark.parametrize(
    "html",
    [
        paragraph(EVIL),
        table([EVIL], [[EVIL]], EVIL),
        facts({EVIL: EVIL}),
        listing([EVIL]),
        code(EVIL),
        picture("data:,", EVIL, EVIL),
        section("a", EVIL, "x"),
    ],
)
def test_blocks_escape_what_they_are_given(html: str) -> None:
    assert HARMLESS in html
    assert "<script" not in html
    assert '"&"' not in html


def test_json_in_a_script_cannot_end_it_and_reads_back() -> None:
    html = json_script("data", {"name": "</script><!--&"})
    assert html.count("</script>") == 1
    assert "<!--" not in html
    content = html.partition(">")[2].removesuffix("</script>")
    assert json.loads(content) == {"name": "</script><!--&"}


def test_nan_is_refused_in_json() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        json_script("data", float("nan"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, DASH), (float("nan"), DASH), (1234, "1,234"), (0.12345, "0.123"), (1234.5, "1,234.500")],
)
def test_numbers_have_decimals_and_a_dash_stands_for_none(value: float | None, expected: str) -> None:
    assert number(value) == expected


def test_things_are_counted_in_the_singular_and_the_plural() -> None:
    assert [counted(n, "case") for n in (0, 1, 1200)] == ["0 cases", "1 case", "1,200 cases"]


def test_a_section_without_content_is_left_out() -> None:
    assert section("a", "title", "", "") == ""
    assert section("a", "title", "", "x") == '<section id="a"><h2>title</h2>\nx\n</section>'


def test_an_empty_list_is_left_out() -> None:
    assert listing([]) == ""
