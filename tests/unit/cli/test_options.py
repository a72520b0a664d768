"""Options: how the field that one sets is written, and what it takes."""

from dataclasses import dataclass
from typing import Literal, get_args

import pytest

from brats.cli.options import Option, read_options
from brats.config import CodingName, PrepareConfig, TrainConfig
from brats.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FruitConfig:
    """A job with choices."""

    fruit: Literal["auto", "apple", "pear", "fig"] = "auto"
    """Which: {choices}; auto is any."""
    tool: Literal["knife"] = "knife"
    """With a {choices}."""


def option(name: str, config_class: type = TrainConfig) -> Option:
    return next(each for each in read_options(config_class) if each.name == name)


def test_option_with_many_choices_names_them_in_its_text() -> None:
    coding = option("coding", PrepareConfig)
    assert coding.placeholder == "NAME"
    assert all(name in coding.text for name in get_args(CodingName))


def test_choices_in_a_text_are_listed_without_auto() -> None:
    texts = [each.text for each in read_options(FruitConfig)]
    assert texts == ["Which: apple, pear or fig; auto is any.", "With a knife."]


@pytest.mark.parametrize(
    ("name", "flag", "placeholder"),
    [
        ("learning_rate", "--learning-rate", "X"),
        ("epochs", "--epochs", "N"),
        ("encoder", "--encoder", "NAME"),
        ("data", "--data", "PATH"),
        ("device", "--device", "{auto,cpu,cuda}"),
        ("predict", "--no-predict", "NAME"),
    ],
)
def test_option_is_written_by_the_type_of_its_field(name: str, flag: str, placeholder: str) -> None:
    assert option(name).flag == flag
    assert name == "predict" or option(name).placeholder == placeholder


def test_texts_become_values_of_the_type_of_the_field() -> None:
    assert option("epochs").value("7") == 7
    assert option("modalities").value(["t1", "t2"]) == ("t1", "t2")
    assert option("fold").value("None") is None
    with pytest.raises(ConfigError, match="--epochs must be a whole number, not 'many'"):
        option("epochs").value("many")
