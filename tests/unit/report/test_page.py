"""The page as a whole: sections, what it carries, and that data cannot break out of their places."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from brats.data.plausibility import Warned
from brats.data.rejects import Reject
from brats.report.findings import Findings, read_findings
from brats.report.page import SCRIPTS, Content, asset, page
from brats.report.viewer import ViewCase
from tests.support.reports import write_run

EVIL = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return read_findings(write_run(tmp_path_factory.mktemp("run") / "run", (0, 3)))


def sections(html: str) -> list[str]:
    return re.findall(r'<section id="(\w+)">', html)


def test_a_run_has_its_sections_and_links_to_them(run: Findings) -> None:
    html, _ = page(Content(findings=run))
    expected = ["glance", "results", "cases", "view", "volumes", "curves", "flow", "rejects", "methods"]
    assert sections(html) == expected
    assert re.findall(r'<a href="#(\w+)">', html) == expected


def test_a_folder_with_nothing_but_a_history_has_a_page(run: Findings) -> None:
    bare = Findings(folder="/run", histories=run.histories)
    html, carried = page(Content(findings=bare, why_no_viewer="Nothing is predicted here"))
    assert "Nothing is scored here" in html
    assert "Nothing is predicted here" in html
    assert carried == []


def test_cases_are_carried_and_their_scripts_with_them(run: Findings) -> None:
    case = ViewCase(case_id="case_0", role="best", dice=1.0, n_bytes=3, packed=b"abc")
    html, carried = page(Content(findings=run, cases=[case]))
    assert carried == [case]
    assert '<script type="text/plain" id="volume-0">YWJj</script>' in html
    assert 'class="open" data-case="case_0"' in html
    data = json.loads(re.findall(r'id="report-data">(.*?)</script>', html)[0])
    assert data["viewer"]["cases"][0]["inline"] == "volume-0"
    assert set(data["values"]) == {"case_0", "case_1"}
    assert "function drawPlane" in html
    assert "function drawPlane" not in page(Content(findings=run))[0]


def test_the_first_case_stands_before_the_scripts_that_show_it_and_the_others_behind_them(run: Findings) -> None:
    cases = [ViewCase(case_id=name, role="", dice=1.0, n_bytes=3, packed=b"abc") for name in ("case_0", "case_1")]
    html, _ = page(Content(findings=run, cases=cases))
    assert html.index('id="volume-0"') < html.index("function drawPlane") < html.index('id="volume-1"')


class Tags(HTMLParser):
    """What a browser finds in a page: its elements, and those that are not closed in their order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.scripts = 0
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        if tag not in ("meta", "link", "img", "input", "br", "path", "circle", "rect", "polygon"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()
        elif tag not in ("path", "circle", "rect", "polygon"):
            raise AssertionError(f"</{tag}> closes {self.open[-1:]}")


def test_no_text_from_data_becomes_a_script(run: Findings) -> None:
    evil = replace(
        run,
        folder=f"/run/{EVIL}",
        config={**run.config, "data": EVIL, "encoder": EVIL},
        data=EVIL,
        rejects=[Reject(case_id=EVIL, path=EVIL, stage="read", reason=EVIL)],
        warnings=[Warned(EVIL, EVIL)],
        histories={EVIL: run.histories[""]},
    )
    case = ViewCase(case_id=EVIL, role="best", dice=1.0, n_bytes=3, packed=b"abc")
    html, _ = page(Content(findings=evil, cases=[case], notes=[EVIL], prepared_rejects=[EVIL], why_no_viewer=EVIL))
    assert "<script>alert" not in html
    assert Tags(html).scripts == 3  # the data, a volume, the scripts of the page


def test_every_element_is_closed(run: Findings) -> None:
    case = ViewCase(case_id="case_0", role="best", dice=1.0, n_bytes=3, packed=b"abc")
    assert Tags(page(Content(findings=run, cases=[case]))[0]).open == []


def test_the_page_names_no_other_place_to_load_from(run: Findings) -> None:
    html, _ = page(Content(findings=run))
    sources = re.findall(r'\b(?:src|href)="([^"]+)"', html)
    assert all(source.startswith(("#", "data:")) for source in sources)
    assert not re.search(r"@import|url\(|\bimport\b *[({\"']", html)


@pytest.mark.parametrize("name", ["page.html", "viewer.html", "page.css", *SCRIPTS])
def test_assets_are_in_the_package_and_cannot_end_their_element(name: str) -> None:
    content = asset(name)
    assert content.strip()
    if not name.endswith(".html"):
        assert "</" not in content


def test_a_page_is_the_same_each_time(run: Findings) -> None:
    assert page(Content(findings=run)) == page(Content(findings=run))
