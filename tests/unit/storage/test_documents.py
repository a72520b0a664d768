"""Documents in JSON: values that are of the declared types, and those that are not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest

from brats.storage.documents import check_types, is_text


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    ratio: float
    shape: tuple[int, int]
    names: tuple[str, ...]
    rows: Sequence[Mapping[str, Any]]
    counts: dict[str, int] | None
    kind: Literal["a", "b"]
    inner: Inner
    anything: Any


GOOD = Outer(
    name="x",
    ratio=1,
    shape=(1, 2),
    names=("a",),
    rows=[{"a": [1]}],
    counts=None,
    kind="a",
    inner=Inner(size=1),
    anything=object(),
)


def test_values_of_the_declared_types_pass() -> None:
    check_types(GOOD)
    check_types(replace(GOOD, ratio=0.5, names=(), rows=(), counts={"a": 1}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 1),
        ("name", "\ud800"),
        ("ratio", "1"),
        ("ratio", True),
        ("ratio", 10**30),
        ("shape", (1, 2, 3)),
        ("shape", (1, 2.0)),
        ("shape", (1, True)),
        ("shape", [1, 2]),
        ("names", ("a", None)),
        ("rows", [1]),
        ("rows", "text"),
        ("counts", {"a": 2**63}),
        ("counts", {1: 1}),
        ("counts", 0),
        ("kind", "c"),
        ("inner", {"size": 1}),
        ("inner", Inner(size=None)),  # type: ignore[arg-type]
    ],
)
def test_a_value_of_another_type_is_named_with_its_field(field: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{field} is "):
        check_types(replace(GOOD, **{field: value}))


def test_half_a_character_is_no_text() -> None:
    assert is_text("größe \U0001f600")
    assert not is_text("a\udfff")
