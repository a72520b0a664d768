"""Charts in SVG: where points lie, which ticks there are, and that each is well-formed."""

import math
import re
from xml.etree import ElementTree

import pytest

from brats.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Scale, Series, chart, legend, nice_ticks

LINE = Series(name="a <b>", x=[1, 2, 3], y=[0.0, 0.5, 1.0], colour="#123456")
DOTS = Series(name="c", x=[1.0], y=[0.5], colour="#654321", marker="s", line=False, hints=["case <1>"])


def circles(svg: str) -> list[tuple[float, float]]:
    drawing = svg.partition("<figcaption")[0]
    return [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawing)]


def test_points_lie_between_the_limits_of_the_axes() -> None:
    svg = chart("t", [LINE], x_label="x", y_label="y", x_limits=(1, 3), y_limits=(0, 1))
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    assert circles(svg) == [(LEFT, bottom), ((LEFT + right) / 2, (TOP + bottom) / 2), (right, TOP)]


def test_points_with_nan_are_left_out() -> None:
    series = Series(name="a", x=[1, 2, 3], y=[0.5, math.nan, 0.7], colour="#000000")
    assert len(circles(chart("t", [series], x_label="x", y_label="y"))) == 2


def test_a_chart_is_well_formed_and_escapes_names() -> None:
    html = chart("t <1>", [LINE, DOTS], x_label="x & y", y_label="y", diagonal=True, mark_x=2)
    root = ElementTree.fromstring(html)
    texts = [element.text for element in root.iter() if element.text]
    assert {"t <1>", "x & y", "case <1>"} <= set(texts)


def test_a_chart_without_a_value_says_so() -> None:
    empty = Series(name="a", x=[1], y=[math.nan], colour="#000000")
    assert chart("Loss", [empty], x_label="x", y_label="y") == (
        '<figure class="chart"><p class="note">Loss: no values</p></figure>'
    )


def test_of_a_line_of_many_points_some_are_marked() -> None:
    many = Series(name="a", x=list(range(100)), y=[0.5] * 100, colour="#000000")
    assert len(circles(chart("t", [many], x_label="x", y_label="y"))) == 15


def test_an_axis_of_whole_numbers_has_no_ticks_between_them() -> None:
    assert Scale(low=0, high=2, start=0, stop=1, whole=True).ticks() == [0, 1, 2]
    assert Scale(low=0, high=2, start=0, stop=1).ticks()[1] == 0.5


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 30, [0, 5, 10, 15, 20, 25, 30]),
        (0.93, 1, [0.94, 0.96, 0.98, 1.0]),
        (2, 2, [2]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_a_logarithmic_scale_has_powers_of_ten_and_takes_zero_to_its_edge() -> None:
    scale = Scale(low=0.1, high=100, start=0, stop=300, log=True)
    assert scale.ticks() == pytest.approx([0.1, 1, 10, 100])
    assert [scale.place(value) for value in (0, 0.1, 1, 100)] == pytest.approx([0, 0, 100, 300])


def test_limits_of_a_logarithmic_axis_are_the_powers_of_ten_around_its_values() -> None:
    series = Series(name="a", x=[0.0, 3.0, 10.0], y=[1.0, 1.0, 1.0], colour="#000000", line=False)
    html = chart("t", [series], x_label="x", y_label="y", log_x=True)
    assert re.findall(r'text-anchor="middle">([\d.]+)<', html)[:3] == ["1", "10", "100"]
    assert circles(html)[0][0] == LEFT


def test_the_legend_names_each_series_with_its_mark() -> None:
    html = legend([LINE, DOTS])
    assert "a &lt;b&gt;" in html
    assert html.count("<circle") == 1
    assert html.count("<polygon") == 1
