"""Fields of a configuration: what each shapes, and the limits of its values."""

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any

from brats.errors import ConfigError
from brats.value_types import value_type


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

    Its paths become absolute, and its lists tuples. Raises ConfigError, one line, for the first wrong value.
    """
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if isinstance(value, list):
            value = _set(config, item.name, tuple(value))
        value_type(item.type).check(option_name(item.name), value)
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
