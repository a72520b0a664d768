"""The viewer within the page: which cases it carries, which lie beside it, and what its scripts are given."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from brats.labels import REGIONS, TISSUES
from brats.report.html import paragraph, section
from brats.report.panels import CONFUSED_COLOUR, FALSE_COLOUR, MISSED_COLOUR

CASES_DIR, ENDING = "cases", ".view.gz"  # of the cases beside the page
PAGE_LIMIT_BYTES = 40_000_000
ROOM_BYTES = 200_000  # of the page, for what comes around the volumes
ERRORS: Mapping[str, str] = {
    "missed (false negative)": MISSED_COLOUR,
    "false (false positive)": FALSE_COLOUR,
    "another tissue": CONFUSED_COLOUR,
}
"""The colours of errors, by their names."""


@dataclass(frozen=True, kw_only=True)
class ViewCase:
    """A case of the viewer.

    role:     best, median or worst; "" for the others
    dice:     the mean of its regions; None without a reference
    packed:   its file, to be carried by the page where there is room; None where it was written beside
    n_bytes:  of its file
    """

    case_id: str
    role: str
    dice: float | None
    n_bytes: int
    packed: bytes | None = None

    @property
    def file(self) -> str:
        """Its place beside the page."""
        return f"{CASES_DIR}/{self.case_id}{ENDING}"

    @property
    def title(self) -> str:
        """As the list of the viewer has it."""
        score = "no reference" if self.dice is None else f"Dice {self.dice:.3f}"
        return ", ".join(filter(None, [self.case_id, score, self.role]))


def fit_in(cases: Sequence[ViewCase], n_page_bytes: int) -> list[ViewCase]:
    """The cases that a page of this many bytes can carry: in their order, as long as it stays below its limit."""
    left, fitting = PAGE_LIMIT_BYTES - ROOM_BYTES - n_page_bytes, []
    for case in cases:
        n_characters = 4 * ((case.n_bytes + 2) // 3)
        if case.packed is not None and n_characters <= left:
            left -= n_characters
            fitting.append(case)
    return fitting


def viewer_data(cases: Sequence[ViewCase], carried: Sequence[ViewCase]) -> dict[str, Any]:
    """What the scripts are given of the cases, the regions and the colours."""
    places = {case.case_id: f"volume-{number}" for number, case in enumerate(carried)}
    return {
        "cases": [
            {
                "id": case.case_id,
                "title": case.title,
                "inline": places.get(case.case_id),
                "file": None if case.case_id in places else case.file,
            }
            for case in cases
        ],
        "regions": [
            {
                "name": name,
                "full_name": region.full_name,
                "colour": region.colour,
                "labels": list(region.labels),
                "label": region.label,
            }
            for name, region in REGIONS.items()
        ],
        "tissues": {str(label): name.upper() for name, label in TISSUES.items()},
        "errors": {"missed": MISSED_COLOUR, "false": FALSE_COLOUR, "confused": CONFUSED_COLOUR},
    }


def volume_scripts(carried: Sequence[ViewCase]) -> list[str]:
    """The files of the cases that the page carries, in base64, an element for each."""
    return [
        f'<script type="text/plain" id="volume-{number}">{base64.b64encode(case.packed or b"").decode()}</script>'
        for number, case in enumerate(carried)
    ]


def viewer_section(controls: str, cases: Sequence[ViewCase], carried: Sequence[ViewCase], why_none: str) -> str:
    """The viewer, or why there is none.

    controls: its HTML
    """
    if not cases:
        return section("view", "Viewer", paragraph(why_none, "note"))
    n_beside = len(cases) - len(carried)
    where = (
        f"{len(carried)} of {len(cases)} cases are in this file. The others lie beside it in cases/: where the "
        "page is served over HTTP they open by themselves, from disk they are dropped on the viewer."
        if n_beside
        else ""
    )
    return section("view", "Viewer", paragraph(where, "note") if where else "", controls, legends())


def legends() -> str:
    """What the colours of lines, of fills and of errors mean."""
    regions = {f"{name} {region.full_name}": region.colour for name, region in REGIONS.items()}
    by_label = {region.label: region.colour for region in REGIONS.values()}
    tissues = {name.upper(): by_label[label] for name, label in TISSUES.items()}
    return legend("Lines", regions) + legend("Fills", tissues) + legend("Errors", ERRORS)


def legend(title: str, colours: Mapping[str, str]) -> str:
    """Names beside their colours."""
    entries = "".join(f'<span><i style="background:{colour}"></i>{name}</span>' for name, colour in colours.items())
    return f'<p class="legend"><b>{title}</b>{entries}</p>'
