"""The page of a report: one HTML file that carries its styles, scripts, pictures and the volumes of some cases."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from string import Template
from typing import Any

from brats.report.case_list import case_data, cases_section
from brats.report.course import curves_section, flow_section, glance_section
from brats.report.findings import Findings
from brats.report.gallery import Example, Samples, examples_section, samples_section
from brats.report.html import json_script, picture, text
from brats.report.provenance import provenance_section
from brats.report.reliability import Calibration, reliability_section
from brats.report.results import rejects_section, results_section, volumes_section
from brats.report.viewer import ViewCase, fit_in, viewer_data, viewer_section, volume_scripts

SCRIPTS = ("table.js", "volume.js", "slice.js", "viewer.js", "controls.js")  # each builds on those before it


@dataclass(frozen=True, kw_only=True)
class Content:
    """All that a page shows.

    card:               content of `model.json`; empty without a model
    network:            the drawing of the network, as HTML
    distributions:      the picture of all scores, as a data: URL; "" without scores
    cases:              of the viewer, those to carry first, in their order
    n_calibrated:       of them those whose voxels `calibration` counts
    why_no_viewer:      where there are none
    notes:              what is missing from the page, and why
    prepared_rejects:   a line for each case that the prepared dataset left out
    """

    findings: Findings
    card: Mapping[str, Any] = field(default_factory=dict)
    network: str = ""
    distributions: str = ""
    cases: Sequence[ViewCase] = ()
    examples: Mapping[str, Example] = field(default_factory=dict)
    samples: Samples | None = None
    calibration: Calibration = field(default_factory=dict)
    n_calibrated: int = 0
    why_no_viewer: str = ""
    notes: Sequence[str] = ()
    prepared_rejects: Sequence[str] = ()


def page(content: Content) -> tuple[str, list[ViewCase]]:
    """The HTML of a report, and the cases that it carries. Cases without room in it must lie beside it."""
    before, after = _before_the_viewer(content), _after_the_viewer(content)
    carried = fit_in(content.cases, len((before + after).encode()))
    viewer = viewer_section(asset("viewer.html"), content.cases, carried, content.why_no_viewer)
    body = "\n".join(filter(None, [before, viewer, after]))
    data = {**case_data(content.findings.scores), "viewer": viewer_data(content.cases, carried)}
    volumes = volume_scripts(carried)
    html = Template(asset("page.html")).substitute(
        title=text(f"Report of {content.findings.folder.rstrip('/').rpartition('/')[2]}"),
        nav=_links(body),
        css=asset("page.css"),
        body=body,
        data="\n".join([json_script("report-data", data), *volumes[:1]]),
        script="\n".join(asset(name) for name in _scripts(content)),
        volumes="\n".join(volumes[1:]),  # behind the script, which shows the first one meanwhile
    )
    return html, carried


def asset(name: str) -> str:
    """A file of the package that every page carries."""
    return files("brats.report").joinpath("assets", name).read_text("utf-8")


def _scripts(content: Content) -> Sequence[str]:
    return SCRIPTS if content.cases else SCRIPTS[:1]


def _before_the_viewer(content: Content) -> str:
    found = content.findings
    picture_of_scores = (
        picture(content.distributions, "Dice and HD95 of each case") if content.distributions else ""
    )
    sections = (
        glance_section(found, content.card),
        results_section(found.scores, picture_of_scores),
        cases_section(found.scores, [case.case_id for case in content.cases]),
    )
    return "\n".join(filter(None, sections))


def _after_the_viewer(content: Content) -> str:
    found = content.findings
    rejects = {
        "preparing": content.prepared_rejects,
        "predicting": [str(reject) for reject in found.rejects],
    }
    sections = (
        examples_section(content.examples),
        volumes_section(found.case_table),
        reliability_section(found.scores, content.calibration),
        curves_section(found.histories),
        samples_section(content.samples),
        flow_section(found, len(content.prepared_rejects), content.network),
        rejects_section(
            {stage: lines for stage, lines in rejects.items() if lines},
            [f"{warning.case_id}: {warning.text}" for warning in found.warnings],
            content.notes,
        ),
        provenance_section(found, content.card),
    )
    return "\n".join(filter(None, sections))


def _links(body: str) -> str:
    """Links to the sections, by one word each."""
    found = re.findall(r'<section id="(\w+)">', body)
    return "".join(f'<a href="#{anchor}">{anchor.capitalize()}</a>' for anchor in found)
