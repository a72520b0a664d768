"""Tables in Markdown, and the numbers in their cells."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

DASH = "-"  # of an undefined value


def table_of(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, its columns padded so that it reads well as plain text too; all but the first to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [
        max(2, *map(len, column)) for column in zip(*lines, strict=True)
    ]  # for the colon and dash of the rule
    rule = [":".ljust(widths[0], "-"), *(":".rjust(width, "-") for width in widths[1:])]
    padded = [
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals; a dash for none."""
    return DASH if value is None else f"{value:.{digits}f}"


def interval(row: Mapping[str, Any], digits: int = 3) -> str:
    """A mean and its 95 % interval, from the columns of these names: `0.700 [0.612, 0.781]`."""
    if row["mean"] is None or row["ci95_low"] is None:
        return number(row["mean"], digits)
    return f"{number(row['mean'], digits)} [{number(row['ci95_low'], digits)}, {number(row['ci95_high'], digits)}]"


def p_value(value: float) -> str:
    """A p value, as small as is worth telling."""
    return "< .001" if value < 0.001 else f"{value:.3f}"
