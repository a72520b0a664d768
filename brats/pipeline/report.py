"""The report of a run or of predictions: pictures, a page, and the cases beside it, from the files written."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING

from brats import storage
from brats.config import FigureFormat, ReportConfig
from brats.data.rejects import read_rejects
from brats.errors import BratsError, CaseError, ConfigError

if TYPE_CHECKING:
    from brats.report.findings import Findings
    from brats.report.page import Content
    from brats.report.reading import Viewed
    from brats.report.viewer import ViewCase

    Write = Callable[[ViewCase], None]

AT_ONCE = 4  # cases read and packed at a time, at most; each takes some 100 MB meanwhile
NOTHING_PREDICTED = "Nothing is predicted here: the viewer shows the cases of masks/."
MASKS_ELSEWHERE = (
    "The viewer shows masks that predict.py wrote; those scored by evaluate.py stay in their NIfTI files."
)


def report_dir(run: str) -> str:
    """Where the page of a folder lies, unless another place is asked for."""
    return storage.join(run, "report")


def page_path(out: str) -> str:
    return storage.join(out, "index.html")


def page_of(config: ReportConfig) -> str:
    """Where `report` writes the page."""
    return page_path(config.out or report_dir(config.run))


def report(config: ReportConfig) -> list[str]:
    """Draw what a folder has (learning curves, cases, scores and what they depend on) and write its page.

    Returns the paths of the pictures; that of the page is `page_of(config)`. Raises ConfigError for a folder with
    nothing to report and, once the page is written, where a case to draw has gone or is not the one predicted.
    """
    from brats.report.figures import figures_dir
    from brats.report.findings import read_findings

    found = read_findings(config.run)
    figures = config.out or figures_dir(config.run)
    paths, pictures, lacking = list[str](), dict[str, bytes](), ""
    try:
        for name, files in draw_figures(found, config.figures):
            pictures[name] = files["png"]  # those drawn before a case that has gone stay
            paths += write_figure(figures, name, files, config.figures)
    except FileNotFoundError as error:
        lacking = f"{found.data}: the prepared cases of {config.run} are gone ({error})"
    except CaseError as error:
        lacking = str(error)
    content = write_page(found, config.out or report_dir(config.run), pictures, at_most=config.cases)
    paths += write_figure(figures, "reliability", draw_reliability(content, config.figures), config.figures)
    if lacking:
        raise ConfigError(f"{lacking}; {page_of(config)} has the rest")
    return paths


def draw_figures(
    found: "Findings", formats: Sequence[FigureFormat]
) -> Iterator[tuple[str, Mapping[FigureFormat, bytes]]]:
    """The files of each figure of a folder, by its name: in PNG, as the page shows it, and in these formats.

    Raises FileNotFoundError where a case to draw has gone, CaseError where it is not the one predicted.
    """
    from brats.report.figure_files import render
    from brats.report.figures import plots

    for name, plot in plots(found):
        yield name, render(plot, {"png", *formats})


def draw_reliability(content: "Content", formats: Sequence[FigureFormat]) -> Mapping[FigureFormat, bytes]:
    """The files of the figure of reliability; none without a case that has probabilities and a reference."""
    from brats.report.figure_files import render
    from brats.report.score_figures import plot_reliability

    if not content.calibration:
        return {}
    return render(lambda: plot_reliability(content.calibration, content.n_calibrated), formats)


def write_figure(
    figures: str, name: str, files: Mapping[FigureFormat, bytes], formats: Sequence[FigureFormat]
) -> list[str]:
    """Write the files of a figure in these formats; return their paths."""
    from brats.report.figure_files import figure_path

    paths = {figure_path(figures, name, each): files[each] for each in formats if each in files}
    for path, content in paths.items():
        storage.write_bytes(path, content)
    return list(paths)


def write_page(found: "Findings", out: str, pictures: Mapping[str, bytes], *, at_most: int) -> "Content":
    """Write the page of a folder and, beside it, the cases that it does not carry; return what it shows.

    pictures: in PNG, by the name of the figure
    """
    from brats.report.page import page

    remove_cases(out)

    def write(case: "ViewCase") -> None:
        storage.write_bytes(storage.join(out, case.file), case.packed or b"")

    content = gather(found, pictures, write, at_most)
    html, carried = page(content)
    for case in content.cases:
        if case.packed is not None and case not in carried:
            write(case)
    storage.write_bytes(page_path(out), html.encode())
    return content


def remove_cases(out: str) -> None:
    """Remove the cases beside a page of before, and no other file."""
    from brats.report.viewer import CASES_DIR, ENDING

    try:
        files = storage.list_files(storage.join(out, CASES_DIR))
    except FileNotFoundError:
        return
    for file in files:
        if file.path.endswith(ENDING):
            storage.remove(file.path)


def gather(found: "Findings", pictures: Mapping[str, bytes], write: "Write", at_most: int) -> "Content":
    """All that the page shows. Cases that it does not carry are handed to `write` one by one."""
    from brats.report.model_facts import find_card, network_drawing, read_samples
    from brats.report.page import Content
    from brats.report.panels import data_url
    from brats.report.reading import CARRIED_ROLES, UNREADABLE, with_figures
    from brats.report.reliability import add_up

    card, notes, samples = find_card(found), list[str](), None
    viewed = view_cases(found, write, at_most, notes)
    try:
        samples = read_samples(card, found) if card else None
    except UNREADABLE as error:
        notes.append(f"slices as the network sees them: {error}")
    urls = {name: data_url(picture) for name, picture in pictures.items()}
    figures = {role: urls[f"case_{role}"] for role in CARRIED_ROLES if f"case_{role}" in urls}
    examples = {one.example.role: one.example for one in viewed if one.example}
    return Content(
        findings=found,
        card=asdict(card) if card else {},
        network=network_drawing(card, found) if card else "",
        distributions=urls.get("distributions", ""),
        cases=[one.case for one in viewed],
        examples=with_figures(examples, figures),
        samples=samples,
        calibration=add_up(one.calibration for one in viewed),
        n_calibrated=sum(bool(one.calibration) for one in viewed),
        why_no_viewer=_why_no_viewer(found, notes),
        notes=notes,
        prepared_rejects=[str(reject) for reject in read_rejects(found.data)] if found.split else (),
    )


def view_cases(found: "Findings", write: "Write", at_most: int, notes: list[str]) -> "list[Viewed]":
    """Read and pack the cases of the viewer, several at a time; what cannot be shown is added to the notes."""
    from brats.report.reading import Viewed, case_reader, roles, view_case, viewing_order, without_file

    order = viewing_order(found)
    if len(order) > at_most:
        notes.append(f"{len(order) - at_most} of {len(order)} cases are not in the viewer: --cases {at_most}")
    try:
        read = case_reader(found) if order and at_most else None
    except BratsError as error:
        notes.append(f"the viewer: {error}")
        read = None
    if read is None:
        return []
    role_of = {case_id: role for role, case_id in roles(found).items()}
    carried = list(role_of) or order[:1]

    def view(case_id: str) -> Viewed | str:
        one = view_case(found, read, case_id, role_of.get(case_id, ""))
        if isinstance(one, str) or case_id in carried:
            return one
        write(one.case)
        return without_file(one)

    with ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1)) as pool:
        viewed = dict(zip(order[:at_most], pool.map(view, order[:at_most]), strict=True))
    notes += [f"{case_id}: {reason}" for case_id, reason in viewed.items() if isinstance(reason, str)]
    return [one for one in viewed.values() if isinstance(one, Viewed)]


def _why_no_viewer(found: "Findings", notes: Sequence[str]) -> str:
    if notes:
        return "No case can be shown; the section on rejects and warnings says why."
    return MASKS_ELSEWHERE if found.job == "evaluate" else NOTHING_PREDICTED
