"""Charts as inline SVG: lines, points and bars, readable on a screen, in print and without colours."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from brats.report.html import text

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 20, 30, 44
EDGE, GRID, INK = "#333333", "#DDDDDD", "#222222"
RADIUS = 4.0
N_MARKED = 16  # of the points of a line, about

Limits = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one kind; those with a NaN are left out.

    marker: as matplotlib names it: o, s, ^, D; "" for none
    hints:  what a pointer that rests on a point is shown, one for each; none at all for a line
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    marker: str = "o"
    line: bool = True
    dashed: bool = False
    hints: Sequence[str] = ()

    def points(self) -> list[tuple[float, float, str]]:
        hints = self.hints or [""] * len(self.x)
        found = zip(self.x, self.y, hints, strict=True)
        return [(x, y, hint) for x, y, hint in found if math.isfinite(x) and math.isfinite(y)]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """From values to places along an axis of the drawing.

    log:   powers of ten
    whole: no ticks between whole numbers
    """

    low: float
    high: float
    start: float
    stop: float
    log: bool = False
    whole: bool = False

    def place(self, value: float) -> float:
        low, high, value = (self._in(number) for number in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.stop - self.start)

    def ticks(self) -> list[float]:
        if self.log:
            first, last = (round(math.log10(number)) for number in (self.low, self.high))
            return [10.0**power for power in range(first, last + 1)]
        ticks = nice_ticks(self.low, self.high)
        return [tick for tick in ticks if tick == round(tick)] if self.whole else ticks

    def _in(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.log else value


def nice_ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high, about six of them."""
    span = high - low
    if span <= 0:
        return [low]
    unit = 10.0 ** math.floor(math.log10(span / 4))
    step = next(unit * factor for factor in (1, 2, 5, 10) if span / (unit * factor) <= 6)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    x_limits: Limits | None = None,
    y_limits: Limits | None = None,
    log_x: bool = False,
    log_y: bool = False,
    whole_x: bool = False,
    diagonal: bool = False,
    mark_x: float | None = None,
) -> str:
    """A chart with its legend, as a figure; a note in its place where there is no point.

    log_x, log_y: powers of ten on an axis; values of 0 and less stand at its lower edge
    whole_x:      whole numbers alone beneath the axis
    diagonal:     a dashed line of equal x and y
    mark_x:       where a dashed line stands upright
    """
    points = [point for one in series for point in one.points()]
    if not points:
        return f'<figure class="chart"><p class="note">{text(title)}: no values</p></figure>'
    low_x, high_x = x_limits or _span([point[0] for point in points], log=log_x)
    low_y, high_y = y_limits or _span([point[1] for point in points], log=log_y)
    across = Scale(low=low_x, high=high_x, start=LEFT, stop=WIDTH - RIGHT, log=log_x, whole=whole_x)
    up = Scale(low=low_y, high=high_y, start=HEIGHT - BOTTOM, stop=TOP, log=log_y)
    parts = [*_axes(across, up, title, x_label, y_label)]
    if diagonal:
        ends = max(low_x, low_y), min(high_x, high_y)
        parts.append(_path([(across.place(end), up.place(end)) for end in ends], EDGE, dashed=True, width=1))
    if mark_x is not None:
        parts.append(_path([(across.place(mark_x), up.place(end)) for end in (low_y, high_y)], EDGE, dashed=True))
    for one in series:
        parts += _drawn(one, across, up)
    name = f"{title}: {y_label} by {x_label}"
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(name)}">{"".join(parts)}</svg>'
    return f'<figure class="chart">{drawing}{legend(series)}</figure>'


def legend(series: Iterable[Series]) -> str:
    """The names of the series beside their marks."""
    entries = []
    for one in series:
        line = _path([(1, 7), (25, 7)], one.colour, dashed=one.dashed) if one.line else ""
        sample = (
            f'<svg viewBox="0 0 26 14" width="26" height="14">{line}{_mark(one.marker, 13, 7, one.colour)}</svg>'
        )
        entries.append(f"<span>{sample}{text(one.name)}</span>")
    return f'<figcaption class="legend">{"".join(entries)}</figcaption>'


def _span(values: Sequence[float], *, log: bool) -> Limits:
    """Limits around values: from 0 on, with room above; whole powers of ten where logarithmic."""
    low, high = min(values), max(values)
    if log:
        powers = [math.log10(value) for value in values if value > 0] or [0.0]
        return 10.0 ** math.floor(min(powers)), 10.0 ** (math.floor(max(powers)) + 1)
    return min(low, 0.0), high * 1.05 if high > 0 else 1.0


def _axes(across: Scale, up: Scale, title: str, x_label: str, y_label: str) -> Iterable[str]:
    yield f'<text x="{LEFT}" y="18" class="title">{text(title)}</text>'
    for value in across.ticks():
        x = across.place(value)
        yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>'
        yield _path([(x, TOP), (x, HEIGHT - BOTTOM)], GRID, width=1)
    for value in up.ticks():
        y = up.place(value)
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
        yield _path([(LEFT, y), (WIDTH - RIGHT, y)], GRID, width=1)
    middle = (TOP + HEIGHT - BOTTOM) / 2
    yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{text(x_label)}</text>'
    yield (
        f'<text x="13" y="{middle}" text-anchor="middle" transform="rotate(-90 13 {middle})">{text(y_label)}</text>'
    )


def _drawn(series: Series, across: Scale, up: Scale) -> Iterable[str]:
    """The line and the marks of a series; a light line lies on a dark one, to show on white."""
    points = [(across.place(x), up.place(y), hint) for x, y, hint in series.points()]
    line = [(x, y) for x, y, _ in points]
    if series.line and len(line) > 1:
        if not series.dashed:
            yield _path(line, EDGE, width=3.2)
        yield _path(line, series.colour, dashed=series.dashed, width=2)
    marked = points[:: 1 + len(points) // N_MARKED] if series.line else points
    yield from (_mark(series.marker, x, y, series.colour, hint) for x, y, hint in marked)


def _path(points: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False, width: float = 1.6) -> str:
    way = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path d="{way}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>'


def _mark(marker: str, x: float, y: float, colour: str, hint: str = "") -> str:
    """A mark of a point, as matplotlib names it."""
    r, title = RADIUS, f"<title>{text(hint)}</title>" if hint else ""
    look = f'fill="{colour}" stroke="{EDGE}"'
    corners = {
        "s": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "^": [(0, -1.1), (1.1, 0.9), (-1.1, 0.9)],
        "D": [(0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)],
    }.get(marker)
    if not marker:
        return ""
    if corners is None:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" {look}>{title}</circle>'
    place = " ".join(f"{x + r * across:.1f},{y + r * down:.1f}" for across, down in corners)
    return f'<polygon points="{place}" {look}>{title}</polygon>'
