"""Options of a command line, from the fields of the configuration that they set."""

import ast
import dataclasses
import inspect
import itertools
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args, get_origin

from brats.errors import ConfigError
from brats.fields import option_name

LONGEST_CHOICES = 48  # shown in braces; the text of an option with more of them names them
NO_BREAK_SPACE = "\xa0"  # keeps "(default: 10)" together where lines are wrapped; printed as a plain one

KINDS = {str: ("NAME", "a value"), int: ("N", "a whole number"), float: ("X", "a number")}
"""How the help and the errors name a value of a type."""


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
    def several(self) -> bool:
        """Whether it takes any number of values."""
        return get_origin(self.field.type) is tuple

    @property
    def kind(self) -> Any:
        """The type of one value: str, int, float, a Literal of the choices, or bool for an option without value."""
        return get_args(self.field.type)[0] if self.several or self.optional else self.field.type

    @property
    def optional(self) -> bool:
        return NoneType in get_args(self.field.type)

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
        choices = "" if self.kind in KINDS else f"{{{','.join(get_args(self.kind))}}}"
        return choices if 0 < len(choices) <= LONGEST_CHOICES else KINDS.get(self.kind, KINDS[str])[0]

    @property
    def allowed(self) -> str:
        """The values it takes, in words."""
        return KINDS[self.kind][1] if self.kind in KINDS else f"one of {', '.join(get_args(self.kind))}"

    def words(self, value: Any) -> str:
        """A default as the help shows it; "" for none, and for that of an option without value."""
        if value is None or value is dataclasses.MISSING or self.kind is bool:
            return ""
        values = value if self.several else (value,)
        return NO_BREAK_SPACE.join(f"{each:g}" if isinstance(each, float) else str(each) for each in values)

    def value(self, given: Any) -> Any:
        """The value of the field for what the parser found: a text, several, or the value that a flag stands for.

        None leaves the default as it is.
        """
        if self.kind is bool:
            return given
        if self.optional and self.field.default is None and given == "None":
            return None
        return tuple(self._convert(text) for text in given) if self.several else self._convert(given)

    def _convert(self, text: str) -> Any:
        try:
            if self.kind in KINDS:
                return self.kind(text)
            return get_args(self.kind)[get_args(self.kind).index(text)]
        except ValueError:
            subject = f"each value of {self.flag}" if self.several else self.flag
            raise ConfigError(f"{subject} must be {self.allowed}, not {text!r}") from None


def read_options(config_class: type) -> list[Option]:
    """The options of a job, in the order of the fields, each with the text that stands below its field.

    Fields that are not given when a configuration is made have none.
    """
    body: list[Any] = ast.parse(inspect.getsource(config_class)).body[0].body  # type: ignore[attr-defined]
    texts = {
        ast.unparse(field.target): " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
    }
    return [Option(field, texts[field.name]) for field in dataclasses.fields(config_class) if field.init]
