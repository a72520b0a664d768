"""Types of the values of a configuration: what the annotation of a field allows, in words."""

import functools
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args, get_origin

from brats.errors import ConfigError

_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "True or False"}
_CLASSES: dict[type, tuple[type, ...]] = {str: (str,), int: (int,), float: (float, int), bool: (bool,)}


@dataclass(frozen=True, kw_only=True)
class ValueType:
    """The type of the value of a field, or of each value where the field takes several.

    kind:     str, int, float or bool; str where there are choices
    choices:  the only texts that are allowed; none for any
    several:  any number of values, in a tuple
    optional: None is allowed too
    """

    kind: type
    choices: tuple[str, ...]
    several: bool
    optional: bool

    @property
    def allowed(self) -> str:
        """What a value may be."""
        return f"one of {', '.join(self.choices)}" if self.choices else _WORDS[self.kind]

    def check(self, option: str, value: Any) -> None:
        """Raise ConfigError, one line that names the option, for what is no value of this type.

        A bool is no number; a whole number will do for any other.
        """
        if value is None and self.optional:
            return
        if self.several and not isinstance(value, tuple):
            raise ConfigError(f"{option} must be a tuple, not {value!r}")
        for each in value if self.several else (value,):
            self.check_one(option, each)

    def check_one(self, option: str, value: Any) -> None:
        """As `check`, for one value of several or the only one."""
        fits = isinstance(value, _CLASSES[self.kind]) and (self.kind is bool or not isinstance(value, bool))
        if not fits or (self.choices and value not in self.choices):
            subject = f"each value of {option}" if self.several else option
            raise ConfigError(f"{subject} must be {self.allowed}, not {value!r}")


def value_type(annotation: Any) -> ValueType:
    """The type that an annotation means: a kind, a Literal of texts, `tuple[kind, ...]` or `kind | None`."""
    return _parsed(annotation)


@functools.cache  # configurations are made often, and have the same few annotations
def _parsed(annotation: Any) -> ValueType:
    several, optional = get_origin(annotation) is tuple, NoneType in get_args(annotation)
    inner = get_args(annotation)[0] if several or optional else annotation
    choices = () if inner in _WORDS else get_args(inner)
    return ValueType(kind=str if choices else inner, choices=choices, several=several, optional=optional)
