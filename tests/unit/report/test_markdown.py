"""Tables in Markdown: columns of one width, and what stands for an undefined value."""

import pytest

from brats.report.markdown import interval, number, p_value, table_of


def test_columns_are_padded_and_figures_stand_to_the_right() -> None:
    assert table_of(["preset", "Dice"], [["`a`", "0.5"], ["`longer`", "0.123"]]).splitlines() == [
        "| preset   |  Dice |",
        "| :------- | ----: |",
        "| `a`      |   0.5 |",
        "| `longer` | 0.123 |",
    ]


def test_a_table_without_rows_has_its_header_and_a_rule() -> None:
    assert table_of(["a", "b"], []).splitlines() == ["| a  |  b |", "| :- | -: |"]


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0.12345, "0.123"), (-2.0, "-2.000")])
def test_a_number_has_three_decimals_and_none_is_a_dash(value: float | None, text: str) -> None:
    assert number(value) == text


def test_an_interval_stands_behind_its_mean_where_there_is_one() -> None:
    assert interval({"mean": 0.7, "ci95_low": 0.61, "ci95_high": 0.78}) == "0.700 [0.610, 0.780]"
    assert interval({"mean": 12.34, "ci95_low": None, "ci95_high": None}, digits=1) == "12.3"
    assert interval({"mean": None, "ci95_low": None, "ci95_high": None}) == "-"


def test_a_p_below_a_thousandth_is_called_so() -> None:
    assert [p_value(0.0009), p_value(0.04), p_value(1.0)] == ["< .001", "0.040", "1.000"]
