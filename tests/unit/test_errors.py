"""Exceptions: one tree in one module, and what errors of cases say between processes."""

import ast
import builtins
import inspect
import pickle

import pytest

from brats import errors
from brats.errors import BratsError, CaseError, ConfigError
from tests.support import ROOT

CLASSES = {
    name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, BaseException)
}


def raised_classes() -> set[tuple[str, str]]:
    """Module and name of every class of the package that derives, directly or not, from an exception."""
    classes = [
        (path.relative_to(ROOT).as_posix(), node)
        for path in (ROOT / "brats").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    known = {
        name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BaseException)
    }
    found: set[tuple[str, str]] = set()
    while new := {
        (module, node.name)
        for module, node in classes
        if (module, node.name) not in found and known & {ast.unparse(base).split(".")[-1] for base in node.bases}
    }:
        found |= new
        known |= {name for _, name in new}
    return found


def tree() -> dict[str, str]:
    """The tree in the docstring of the module: each name with that of its parent, "" for the root."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        name = line.split()[0] if line.strip() else ""
        if name.endswith("Error"):
            depth = (len(line) - len(line.lstrip())) // 4
            above[depth:] = [name]
            parents[name] = above[depth - 1] if depth else ""
    return parents


def test_every_exception_of_the_package_is_in_the_module_of_errors() -> None:
    assert raised_classes() == {("brats/errors.py", name) for name in CLASSES}


@pytest.mark.parametrize("name", CLASSES)
def test_every_exception_is_a_brats_error_and_stands_in_the_tree_below_its_base(name: str) -> None:
    kind = CLASSES[name]
    assert issubclass(kind, BratsError)
    assert tree()[name] == ("" if kind is BratsError else kind.__bases__[0].__name__)


def test_the_tree_names_nothing_else() -> None:
    assert tree().keys() == CLASSES.keys()


def test_a_case_error_names_the_file_and_the_reason() -> None:
    error = CaseError("/data/x.nii.gz", "truncated: 3 of 9 bytes are missing")
    assert str(error) == "/data/x.nii.gz: truncated: 3 of 9 bytes are missing"
    assert not error.transient


def test_a_case_error_about_the_whole_case_is_the_reason_alone() -> None:
    assert str(CaseError("", "no flair")) == "no flair"


def test_a_case_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(CaseError("x", "read error", transient=True)))
    assert (error.path, error.reason, error.transient) == ("x", "read error", True)
    assert str(error) == "x: read error"


def test_a_notebook_shows_an_error_in_one_line() -> None:
    assert CaseError("x.nii", "truncated")._render_traceback_() == ["CaseError: x.nii: truncated"]


def test_a_notebook_shows_where_an_error_was_raised_if_asked_to() -> None:
    with pytest.raises(ConfigError) as caught:
        raise ConfigError("wrong")
    caught.value.in_full = True
    first, *between, last = caught.value._render_traceback_()
    assert first == "Traceback (most recent call last):"
    assert '    raise ConfigError("wrong")' in between
    assert last == "brats.errors.ConfigError: wrong"
