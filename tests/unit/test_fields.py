"""Fields: limits in words, and places that are named with what sets them."""

from pathlib import Path
from typing import Any, Literal

import pytest

from brats.config import PrepareConfig, TrainConfig
from brats.errors import ConfigError
from brats.fields import Limits, ValueType, option_name, value_type
from brats.presets import train_defaults


@pytest.mark.parametrize(
    ("limits", "value", "problem"),
    [
        (Limits(at_least=1), 1, ""),
        (Limits(at_least=1), 0, "must be at least 1, not 0"),
        (Limits(at_least=0, at_most=1), 2.0, "must be between 0 and 1, not 2.0"),
        (Limits(above=0), float("nan"), "must be above 0, not nan"),
        (Limits(n_values=2), (1,), "needs 2 values, not 1"),
        (Limits(distinct=True), ("t1", "t2", "t1"), "names t1 twice"),
        (Limits(), (), "needs at least one value"),
    ],
)
def test_problem_of_a_value_follows_the_name_of_its_option(limits: Limits, value: Any, problem: str) -> None:
    assert limits.problem(value) == problem


def test_option_of_a_field_has_hyphens() -> None:
    assert option_name("learning_rate") == "--learning-rate"


def test_place_given_beside_the_same_variable_is_named_with_its_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRATS_DATA", "s3:/b/x")
    with pytest.raises(ConfigError, match=r"^--data: s3:/b/x"):
        PrepareConfig(data="s3:/b/x", out="/out")


@pytest.mark.parametrize(("variable", "place"), [("BRATS_DATA", "s3:/b/x"), ("BRATS_STORAGE", "gs://b")])
def test_a_mistyped_place_of_the_environment_is_named_with_its_variable(
    variable: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, place)
    with pytest.raises(ConfigError, match=f"^{variable}: {place}"):
        TrainConfig(**{name: value for name, value in train_defaults("t1", {}).items() if value})


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
@pytest.mark.parametrize(
    "address", ["https://me:the-secret@store.example:9000/x", "http://the-secret@store", "me:the-secret@nonsense"]
)
def test_an_address_of_the_store_with_credentials_is_refused_without_showing_them(
    variable: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, address)
    with pytest.raises(ConfigError) as caught:
        PrepareConfig(data="s3://bucket/x", out="/out")
    assert str(caught.value) == (
        f"--data: {variable} contains a user name or a password, which S3 does not use and logs would show; take "
        "it out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )
    PrepareConfig(data="/data", out="/out")  # nothing in S3: it matters to no one


def test_path_and_list_of_a_notebook_become_a_text_and_a_tuple(tmp_path: Path) -> None:
    config = PrepareConfig(data=tmp_path, out=str(tmp_path / "out"), modalities=["t1", "t2"])  # type: ignore[arg-type]
    assert (config.data, config.modalities) == (str(tmp_path), ("t1", "t2"))


# Types

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
        (tuple[Colour, ...], "red", "--x must be a tuple or a list, not 'red'"),
        (tuple[Colour, ...], None, "--x must be a tuple or a list, not None"),
        (tuple[Colour, ...], ("red", "green"), "each value of --x must be one of red, blue, not 'green'"),
    ],
)
def test_another_value_is_named_with_what_is_allowed(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        value_type(annotation).check("--x", value)
    assert str(caught.value) == message
