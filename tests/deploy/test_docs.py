"""The documents: README's length, links that lead somewhere, and docs/architecture.md beside the code."""

import importlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from brats.storage import TableKind
from tests.support import ROOT

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
FOLDERS = ("jobs", "brats", "benchmarks", "examples")
ASSETS = "brats/report/assets"
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
ROOMS_WITH_TABLES = ("data", "score", "model/history.py")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def described_files() -> list[str]:
    """The files that docs/architecture.md has a line for, below the heading of their folder."""
    sections = re.findall(r"^### `([\w/]+)/`$(.*?)(?=^#)", ARCHITECTURE, flags=re.DOTALL | re.MULTILINE)
    return [
        f"{folder}/{file}"
        for folder, section in sections
        for file in re.findall(r"^    (\w+\.\w+)  +\S", section, flags=re.MULTILINE)
    ]


def table_kinds() -> Iterator[TableKind]:
    """Every kind of table that a module of these rooms defines and whose columns are fixed."""
    for entry in ROOMS_WITH_TABLES:
        place = ROOT / "brats" / entry
        for path in sorted(place.glob("*.py")) if place.is_dir() else [place]:
            module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
            yield from (kind for kind in vars(module).values() if isinstance(kind, TableKind) and kind.schema.names)


def headings(document: Path) -> set[str]:
    """The anchors of a document, as GitHub makes them of its headings."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_module_document_and_asset_has_one_line_in_the_architecture() -> None:
    modules = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path.name != "__init__.py"]
    others = [path for folder in ("docs", ASSETS) for path in (ROOT / folder).glob("[!.]*")]
    described = Counter(described_files())
    assert set(described) ^ {name(path) for path in [*modules, *others]} == set()
    assert [path for path, n_lines in described.items() if n_lines > 1] == []


def test_every_column_of_a_table_is_described() -> None:
    words = set(re.findall(r"\w+", ARCHITECTURE.partition("## The files that the jobs write")[2]))
    kinds = {kind.name: set(kind.schema.names) - words for kind in table_kinds()}
    assert len(kinds) >= 8
    assert {kind: columns for kind, columns in kinds.items() if columns} == {}


def test_readme_has_at_most_250_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_relative_links_lead_to_files_and_headings(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if not re.match(r"\w+:", link):
            path, _, anchor = link.partition("#")
            target = document.parent / path if path else document
            assert target.is_file(), link
            assert not anchor or anchor in headings(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_lines_have_at_most_116_columns(document: Path) -> None:
    lines = document.read_text().splitlines()
    assert [line for line in lines if len(line) > 116 and not line.startswith("|")] == []  # rows cannot be wrapped


def test_tests_that_the_list_of_checks_names_are_there() -> None:
    named = re.findall(r"`(\w+)/(\w+)::(\w+)` \|", (ROOT / "docs" / "checks.md").read_text())
    assert len(named) >= 15
    for room, module, fact in named:
        path = ROOT / "tests" / ("" if room == "ray" else "unit") / room / f"test_{module}.py"
        assert f"\ndef test_{fact}(" in path.read_text(), f"{room}/{module}::{fact}"
