"""Options of a command line, from the fields of the configuration that they set."""

import ast
import dataclasses
import inspect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from brats.console import listed
from brats.fields import ValueType, option_name, value_type

LONGEST_CHOICES = 48  # shown in braces; the text of an option with more of them names them
NO_BREAK_SPACE = "\xa0"  # keeps "(default: 10)" together where lines are wrapped; printed as a plain one

PLACEHOLDERS = {int: "N", float: "X"}
"""What stands for a value of a type in the help."""


@dataclass(frozen=True)
class Option:
    """An option of the command line, which sets a field of the configuration."""

    field: dataclasses.Field[Any]
    text: str

    @property
    def name(self) -> str:
        return self.field.name

    @property
    def flag(self) -> str:
        return option_name(f"no_{self.name}" if self.field.default is True else self.name)

    @property
    def type(self) -> ValueType:
        return value_type(self.field.type)

    @property
    def is_flag(self) -> bool:
        """Whether it takes no value."""
        return self.type.kind is bool

    @property
    def is_path(self) -> bool:
        return bool(self.field.metadata.get("path"))

    @property
    def shown_default(self) -> Any:
        """The default as the help shows it."""
        return self.field.default if self.field.default is not None else self.field.metadata.get("stands_for")

    @property
    def required(self) -> bool:
        return self.field.default is dataclasses.MISSING

    @property
    def placeholder(self) -> str:
        """What stands for a value in the help."""
        if self.is_path:
            return "PATH"
        choices = f"{{{','.join(self.type.choices)}}}"
        fits = self.type.choices and len(choices) <= LONGEST_CHOICES
        return choices if fits else PLACEHOLDERS.get(self.type.kind, "NAME")

    @property
    def allowed(self) -> str:
        """The values it takes, in words."""
        return self.type.allowed if self.type.choices or self.type.kind is not str else "a value"

    def words(self, value: Any) -> str:
        """A default as the help shows it; "" for none, and for that of an option without value."""
        if value is None or value is dataclasses.MISSING or self.is_flag:
            return ""
        values = value if self.type.several else (value,)
        return NO_BREAK_SPACE.join(f"{each:g}" if isinstance(each, float) else str(each) for each in values)

    def value(self, given: Any) -> Any:
        """The value of the field for what the parser found: a text, several, or the value that a flag stands for.

        None leaves the default as it is.
        """
        if self.is_flag:
            return given
        if self.type.optional and self.field.default is None and given == "None":
            return None
        return tuple(self._convert(text) for text in given) if self.type.several else self._convert(given)

    def _convert(self, text: str) -> Any:
        try:
            value = self.type.kind(text)
        except ValueError:
            value = text  # refused below
        self.type.check_one(self.flag, value)
        return value


def read_options(config_class: type) -> list[Option]:
    """The options of a job, in the order of the fields, each with the text that stands below its field.

    `{choices}` in a text stands for those that the type of the field has, but auto.
    Fields that are not given when a configuration is made have none.
    """
    body: list[Any] = ast.parse(inspect.getsource(config_class)).body[0].body  # type: ignore[attr-defined]
    texts = {
        ast.unparse(field.target): " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
    }
    return [
        Option(field, texts[field.name].replace("{choices}", _listed(value_type(field.type).choices)))
        for field in dataclasses.fields(config_class)
        if field.init
    ]


def _listed(choices: Sequence[str]) -> str:
    """Choices in words, but auto, which the text itself explains; "" without any."""
    named = [choice for choice in choices if choice != "auto"]
    return listed(named, "or") if named else ""
