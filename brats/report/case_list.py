"""The table of cases, worst first, and what the scripts of the page need to sort it and to show another metric."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from brats.labels import REGIONS
from brats.report.findings import Scores
from brats.report.html import number, paragraph, section, text
from brats.report.results import digits_of

SHOWN_FIRST = "hd95_mm"  # of the metrics, beside Dice
KEYS = ("case_id", "patient_id", "split", "region")


def worst_first(cases: pd.DataFrame) -> list[str]:
    """The scored cases by the mean Dice of their regions, the lowest first, then by id."""
    means = cases.groupby("case_id")["dice"].mean().dropna()
    return [str(case_id) for case_id in means.sort_index().sort_values(kind="stable").index]


def metrics_of(cases: pd.DataFrame) -> list[str]:
    """The columns of `metrics/cases.parquet` that are numbers with at least one value, whichever they are."""
    return [
        name for name in cases if name not in KEYS and is_numeric_dtype(cases[name]) and cases[name].notna().any()
    ]


def cases_section(scores: Scores | None, viewable: Sequence[str]) -> str:
    """The table of cases with its filters. A row with a button opens the viewer.

    viewable: the cases that the viewer can show
    """
    cases = scores.table("cases") if scores else pd.DataFrame()
    names = worst_first(cases) if len(cases) else []
    if not names:
        return ""
    shown = default_metric(cases)
    return section(
        "cases",
        "Cases, worst first",
        _filters(cases, shown),
        paragraph("", "convention"),
        _table(cases, names, set(viewable), shown),
        paragraph("A click on a column sorts by it; a click on a case opens it below where its error is largest."),
    )


def default_metric(cases: pd.DataFrame) -> str:
    names = metrics_of(cases)
    return SHOWN_FIRST if SHOWN_FIRST in names else names[0]


def case_data(scores: Scores | None) -> dict[str, Any]:
    """The values of every metric by case and region, and what each metric means, for the scripts of the page."""
    if scores is None or scores.table("cases").empty:
        return {"metrics": [], "values": {}}
    cases = scores.table("cases")
    names = metrics_of(cases)
    values: dict[str, dict[str, list[float | None]]] = {}
    for case_id, rows in cases.groupby("case_id", sort=False):
        by_region = rows.set_index("region").reindex(list(REGIONS))
        values[str(case_id)] = {name: [_value(value) for value in by_region[name]] for name in names}
    metrics = [
        {"name": name, "convention": scores.convention("cases", name), "digits": _digits(name)} for name in names
    ]
    return {"metrics": metrics, "values": values}


def _value(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _digits(name: str) -> int:
    return 0 if name.startswith("n_") else digits_of(name)


def _filters(cases: pd.DataFrame, shown: str) -> str:
    splits = [str(name) for name in cases["split"].dropna().unique()]
    return (
        '<form class="filters" id="filters">'
        '<label>Case or patient <input type="search" id="filter-text" placeholder="part of an id"></label>'
        '<label>Split <select id="filter-split"><option value="">all</option>'
        f"{_options(splits, '')}</select></label>"
        '<label>Mean Dice at most <input type="number" id="filter-dice" min="0" max="1" step="0.05"></label>'
        f'<label>Metric <select id="metric">{_options(metrics_of(cases), shown)}</select></label>'
        '<output id="n-shown"></output></form>'
    )


def _options(names: Sequence[str], chosen: str) -> str:
    return "".join(
        f'<option value="{text(name)}"{" selected" if name == chosen else ""}>{text(name)}</option>'
        for name in names
    )


def _table(cases: pd.DataFrame, names: Sequence[str], viewable: set[str], shown: str) -> str:
    by_case = {str(case_id): rows.set_index("region") for case_id, rows in cases.groupby("case_id", sort=False)}
    header = ["Case", "Patient", "Split", "Mean Dice", *(f"Dice {name}" for name in REGIONS)]
    head = "".join(_head(name) for name in header)
    head += "".join(_head(f"{shown} {name}", f' class="metric" data-region="{name}"') for name in REGIONS)
    body = "\n".join(_row(name, by_case[name], name in viewable, shown) for name in names)
    return (
        f'<div class="wide tall"><table id="case-table"><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody>'
        "</table></div>"
    )


def _head(name: str, more: str = "") -> str:
    return f'<th scope="col"{more}><button type="button">{text(name)}</button></th>'


def _row(case_id: str, rows: pd.DataFrame, can_open: bool, shown: str) -> str:
    patient, split = (_text_of(rows[name].iloc[0]) for name in ("patient_id", "split"))
    name = text(case_id)
    opener = f'<button type="button" class="open" data-case="{name}">{name}</button>' if can_open else name
    numbers = [_number_cell(rows["dice"].mean(), "dice")]
    numbers += [_number_cell(_at(rows, region, "dice"), "dice") for region in REGIONS]
    numbers += [_number_cell(_at(rows, region, shown), shown, ' class="metric"') for region in REGIONS]
    first = f'<td data-value="{name}">{opener}</td><td data-value="{patient}">{patient}</td>'
    return f'<tr data-case="{name}">{first}<td data-value="{split}">{split}</td>{"".join(numbers)}</tr>'


def _at(rows: pd.DataFrame, region: str, column: str) -> Any:
    return rows[column].get(region)


def _text_of(value: Any) -> str:
    return "" if pd.isna(value) else text(value)


def _number_cell(value: Any, metric: str, more: str = "") -> str:
    empty = value is None or pd.isna(value)
    sortable = "" if empty else repr(float(value))
    return f'<td data-value="{sortable}"{more}>{number(None if empty else float(value), digits_of(metric))}</td>'


def role_of(chosen: Mapping[str, str], case_id: str) -> str:
    """Whether a case is the best, the median or the worst; "" for the others."""
    return next((role for role, name in chosen.items() if name == case_id), "")
