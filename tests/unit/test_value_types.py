"""Types of values: what an annotation allows, and how what it does not is refused."""

from typing import Any, Literal

import pytest

from brats.errors import ConfigError
from brats.value_types import ValueType, value_type

Colour = Literal["red", "blue"]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, ValueType(kind=int, choices=(), several=False, optional=False)),
        (float | None, ValueType(kind=float, choices=(), several=False, optional=True)),
        (Colour, ValueType(kind=str, choices=("red", "blue"), several=False, optional=False)),
        (Colour | None, ValueType(kind=str, choices=("red", "blue"), several=False, optional=True)),
        (tuple[Colour, ...], ValueType(kind=str, choices=("red", "blue"), several=True, optional=False)),
        (
            Literal["auto", Colour],
            ValueType(kind=str, choices=("auto", "red", "blue"), several=False, optional=False),
        ),
    ],
)
def test_an_annotation_says_kind_choices_and_how_many(annotation: Any, expected: ValueType) -> None:
    assert value_type(annotation) == expected


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (str, ""),
        (int, -1),
        (float, 1.5),
        (float, 1),
        (bool, False),
        (int | None, None),
        (Colour, "blue"),
        (tuple[Colour, ...], ()),
        (tuple[float, ...], (1, 2.5)),
    ],
)
def test_values_of_the_type_pass(annotation: Any, value: Any) -> None:
    value_type(annotation).check("--x", value)


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (str, 5, "--x must be a text, not 5"),
        (int, 1.0, "--x must be a whole number, not 1.0"),
        (int, True, "--x must be a whole number, not True"),
        (int, None, "--x must be a whole number, not None"),
        (float, True, "--x must be a number, not True"),
        (float | None, "1", "--x must be a number, not '1'"),
        (bool, 1, "--x must be True or False, not 1"),
        (Colour, "RED", "--x must be one of red, blue, not 'RED'"),
        (Colour, 1, "--x must be one of red, blue, not 1"),
        (Colour | None, "green", "--x must be one of red, blue, not 'green'"),
        (tuple[Colour, ...], "red", "--x must be a tuple, not 'red'"),
        (tuple[Colour, ...], None, "--x must be a tuple, not None"),
        (tuple[Colour, ...], ("red", "green"), "each value of --x must be one of red, blue, not 'green'"),
    ],
)
def test_another_value_is_named_with_what_is_allowed(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        value_type(annotation).check("--x", value)
    assert str(caught.value) == message
