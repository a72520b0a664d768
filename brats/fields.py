"""Fields of a configuration: what each shapes, and the types and limits of its values."""

import dataclasses
import os
from dataclasses import dataclass, field
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
            raise ConfigError(f"{option} must be a tuple or a list, not {value!r}")
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
    several, optional = get_origin(annotation) is tuple, NoneType in get_args(annotation)
    inner = annotation
    if several or optional:
        inner = next(each for each in get_args(annotation) if each is not NoneType)
    choices = () if inner in _WORDS else get_args(inner)
    return ValueType(kind=str if choices else inner, choices=choices, several=several, optional=optional)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the value of an option, or of each value where an option takes several.

    n_values: how many values there must be; at least one unless stated
    distinct: no value may be named twice
    may_be_none: no value at all is allowed, where an option takes several
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    n_values: int | None = None
    distinct: bool = False
    may_be_none: bool = False

    def problem(self, value: Any) -> str:
        """What is wrong with a value, worded to follow the name of its option; "" when nothing is."""
        if isinstance(value, tuple):
            problems = (self._count_problem(value), *(self._value_problem(each) for each in value))
            return next(filter(None, problems), "")
        return self._value_problem(value)

    def _value_problem(self, value: Any) -> str:
        low, high = self.at_least, self.at_most  # compared so that NaN fails
        if self.above is not None and not value > self.above:
            return f"must be above {self.above}, not {value}"
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            return f"must be {f'at least {low}' if high is None else f'between {low} and {high}'}, not {value}"
        return ""

    def _count_problem(self, values: tuple[Any, ...]) -> str:
        if self.n_values is not None and len(values) != self.n_values:
            return f"needs {self.n_values} values, not {len(values)}"
        if not values and not self.may_be_none:
            return "needs at least one value"
        repeated = [value for value in values if values.count(value) > 1]
        return f"names {repeated[0]} twice" if self.distinct and repeated else ""


def result(default: Any, limits: Limits = Limits(), *, earlier: Any = None) -> Any:
    """A field that shapes what a job produces.

    earlier: what jobs did before there was this field, so that their outputs go on; None for a field of always
    """
    added_later = {} if earlier is None else {"earlier": earlier}
    return field(default=default, metadata={"limits": limits, **added_later})


def constant(value: Any, *, earlier: Any) -> Any:
    """A field that shapes what a job produces and that no option sets: it changes with the program alone."""
    return field(default=value, init=False, metadata={"limits": Limits(at_least=value), "earlier": earlier})


def execution(default: Any, limits: Limits = Limits(), *, stands_for: Any = None) -> Any:
    """A field that changes how a job runs but not what it produces.

    stands_for: the value that the help shows where the default is None
    """
    return field(default=default, metadata={"execution": True, "limits": limits, "stands_for": stands_for})


def case_result(default: Any) -> Any:
    """A field that shapes cases one by one: a rerun with another value makes those again that it changes."""
    return execution(default)


def path(default: Any = dataclasses.MISSING) -> Any:
    """A folder or s3:// prefix, which shapes no result; `check_options` makes it absolute."""
    return field(default=default, metadata={"execution": True, "path": True})


def option_name(name: str) -> str:
    """The option that sets a field."""
    return "--" + name.replace("_", "-")


def check_options(config: Any) -> None:
    """Check each field of a configuration against its type and the limits that it states.

    Its paths become absolute texts, and its lists tuples. Raises ConfigError, one line, for the first wrong value.
    """
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        expected = value_type(item.type)
        if isinstance(value, list) and expected.several:
            value = _set(config, item.name, tuple(value))
        elif isinstance(value, os.PathLike):
            value = _set(config, item.name, os.fspath(value))
        # The option of a bool takes no value: only Python can give it a wrong one, by the name of the field.
        expected.check(item.name if expected.kind is bool else option_name(item.name), value)
        if item.metadata.get("path") and value is not None:
            _set(config, item.name, _checked_path(config, item.name, value))
        limits = item.metadata.get("limits")
        if limits and value is not None and (problem := limits.problem(value)):
            raise ConfigError(f"{option_name(item.name)} {problem}")


def _set(config: Any, name: str, value: Any) -> Any:
    """Set a field while a frozen object is made, and return its value."""
    object.__setattr__(config, name, value)
    return value


def _checked_path(config: Any, name: str, value: str) -> str:
    """An absolute path or an s3:// URL. Raises ConfigError that names what sets it: an option or a variable."""
    from brats.storage import absolute, check_endpoint, is_remote  # only now: --help needs none of what it loads

    if not value.strip():
        raise ConfigError(f"{option_name(name)} must not be empty")
    try:
        place = absolute(value)
        if is_remote(place):
            check_endpoint()
    except ConfigError as error:
        raise ConfigError(f"{_setter(config, name, value)}: {error}") from None
    return place


def _setter(config: Any, name: str, value: str) -> str:
    """The environment variable that a path was taken from, as a training with its presets does, else its option."""
    variable = {"data": "BRATS_DATA", "out": "BRATS_STORAGE"}.get(name, "")
    taken = os.environ.get(variable) if hasattr(config, "preset") else None
    return variable if taken and value.startswith(taken) else option_name(name)
