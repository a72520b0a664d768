"""The works to cite."""

import re

import pytest

from brats.report.citations import CITATIONS


@pytest.mark.parametrize("key", CITATIONS)
def test_an_entry_is_bibtex_under_its_own_key_with_author_title_and_year(key: str) -> None:
    entry = CITATIONS[key]
    assert re.match(rf"@\w+\{{{key},\n", entry)
    assert entry.count("{") == entry.count("}")
    assert {"author", "title", "year"} <= set(re.findall(r"\b(\w+)\s+=", entry))
