"""Documents in JSON: whether the values that became a dataclass are of the types that it declares."""

import dataclasses
import functools
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

INTEGERS = range(-(2**63), 2**63)
"""What an integer of 64 bits holds: JSON and Python know larger ones, arrays and tables do not."""


def check_types(instance: Any) -> None:
    """Raise TypeError for a field of a dataclass whose value, as from a damaged document, is not of its type."""
    for name in _wrong_fields(instance):
        raise TypeError(f"{name} is {str(getattr(instance, name))[:80]!r}")


def is_text(value: str) -> bool:
    """Whether a string can be written: JSON can hold halves of characters, files and tables cannot."""
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def _wrong_fields(instance: Any) -> list[str]:
    kind: Any = type(instance)
    return [name for name, hint in _hints(kind).items() if not _matches(getattr(instance, name), hint)]


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _matches(value: Any, hint: Any) -> bool:
    """Whether a value is of a type as dataclasses of documents declare it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_matches(value, argument) for argument in arguments)
    if origin is Literal:
        return any(value == argument and type(value) is type(argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and _items_match(value, arguments)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _matches(key, arguments[0]) and _matches(item, arguments[1]) for key, item in value.items()
        )
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return isinstance(value, list | tuple) and all(_matches(item, arguments[0]) for item in value)
    return hint is Any or _is_a(value, origin or hint)


def _items_match(values: tuple[Any, ...], hints: Sequence[Any]) -> bool:
    hints = [hints[0]] * len(values) if hints[-1:] == (...,) else hints
    return len(values) == len(hints) and all(map(_matches, values, hints))


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of a class; an integer is a float too, and a boolean is neither."""
    if kind in (int, float):
        number = isinstance(value, int) and not isinstance(value, bool) and value in INTEGERS
        return number or (kind is float and isinstance(value, float))
    if kind is str:
        return isinstance(value, str) and is_text(value)
    return isinstance(value, kind) and (not dataclasses.is_dataclass(kind) or not _wrong_fields(value))
