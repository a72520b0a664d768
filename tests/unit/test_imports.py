"""The rooms of the project: imports point down, heavy packages stay in their rooms, every module has its tests."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support import ROOT

MODULES = sorted(path for path in (ROOT / "brats").rglob("*.py") if path.name != "__init__.py")
JOBS = sorted((ROOT / "jobs").glob("*.py"))

# What each room may import from; a room may always import from itself. "base" are the modules directly in brats/,
# and those in brats/config/.
MAY_IMPORT = {
    "base": {"storage"},
    "storage": {"errors"},
    "data": {"base", "storage"},
    "score": {"base", "storage", "data"},
    "model": {"base", "storage", "data"},
    "report": {"base", "storage", "data", "score", "model"},
    "cluster": {"base", "storage", "data"},
    "pipeline": {"base", "storage", "data", "score", "model", "report", "cluster"},
    "cli": {"base", "storage"},
    "jobs": {"base", "storage", "cli", "cluster", "pipeline"},
}
# Packages that only these rooms import.
ONLY_IN = {
    "ray": {"cluster", "pipeline"},
    "torch": {"model", "cluster", "pipeline"},
    "segmentation_models_pytorch": {"model"},
    "matplotlib": {"report"},
}
# Not public in Ray, or not documented: these may be named in one module only.
RAY_INTERNALS = ROOT / "brats" / "cluster" / "ray_internals.py"
PRIVATE_TO_RAY = re.compile(
    r"\b(_private|_internal|print_to_stdstream|custom_execution_callback_classes|health_check_failure"
    r"|RAY_JOB_CONFIG_JSON_ENV_VAR|ray_bootstrap_config)\b"
)
HEAVY = ("torch", "ray", "matplotlib", "scipy", "nibabel", "pandas")


def room_of(path: Path) -> str:
    first, second, *_ = path.relative_to(ROOT).parts
    if first == "jobs":
        return first
    return "base" if second.endswith(".py") or second == "config" else second


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path, *, nested: bool = True) -> Iterator[str]:
    """Full names of what a file imports; with `nested`, inside functions too."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if nested else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def loaded_by(code: str, packages: tuple[str, ...]) -> set[str]:
    """Which of these packages a fresh Python has loaded after running this code."""
    report = f"\nimport sys\nprint('LOADED', *sorted({{*{packages!r}}} & {{*sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("path", [*MODULES, *JOBS], ids=name)
def test_imports_point_down_only(path: Path) -> None:
    room = room_of(path)
    allowed = {room, *MAY_IMPORT[room]}
    for imported in imports(path):
        package, *rest = imported.split(".")
        if package == "brats":
            other = rest[0] if rest[0] in MAY_IMPORT else "base"
            assert other in allowed or rest[0] in allowed, f"{name(path)} imports {imported}"


def dotted(path: Path) -> str:
    """The name by which a module, or a package with its `__init__.py`, is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Inside functions neither: there a circle only shows when one of them is called."""
    modules = {dotted(path): path for path in (ROOT / "brats").rglob("*.py")}
    graph = {
        module: {
            imported if imported in modules else imported.rpartition(".")[0]
            for imported in imports(path, nested=module != "brats")  # it offers the jobs, and loads them when asked
            if imported.partition(".")[0] == "brats"
        }
        for module, path in modules.items()
    }
    assert set().union(*graph.values()) <= set(modules)
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules)  # raises CycleError, which names them


@pytest.mark.parametrize("path", [*MODULES, *JOBS], ids=name)
def test_heavy_packages_are_imported_only_in_their_rooms(path: Path) -> None:
    packages = {imported.split(".")[0] for imported in imports(path)}
    assert {package for package in packages & ONLY_IN.keys() if room_of(path) not in ONLY_IN[package]} == set()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_jobs_know_of_the_command_line(path: Path) -> None:
    known = room_of(path) == "cli"
    assert known or not any(imported.startswith("brats.cli") for imported in imports(path))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_ray_is_not_imported_before_it_is_needed(path: Path) -> None:
    assert not any(imported.split(".")[0] == "ray" for imported in imports(path, nested=False))


@pytest.mark.parametrize("path", [*MODULES, *JOBS], ids=name)
def test_private_names_of_ray_are_in_one_module(path: Path) -> None:
    """In imports, attributes, strings and comments alike: the next upgrade of Ray is one file to read."""
    found = PRIVATE_TO_RAY.findall(path.read_text())
    assert set(found) == set() if path != RAY_INTERNALS else "_private" in found


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import brats", HEAVY) == set()


@pytest.mark.parametrize("path", JOBS, ids=name)
def test_help_loads_nothing_heavy(path: Path) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{str(path)!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_path({str(path)!r}, run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0\n"
    )
    assert loaded_by(code, (*HEAVY, "numpy", "pyarrow", "fsspec", "argparse")) == {"argparse"}


@pytest.mark.parametrize("module", ["brats.score.metrics", "brats.data.slices", "brats.data.cases"])
def test_metrics_and_data_need_neither_torch_nor_ray(module: str) -> None:
    assert loaded_by(f"import {module}", ("torch", "ray", "numpy")) == {"numpy"}


def test_models_need_no_ray() -> None:
    code = "import warnings; warnings.simplefilter('ignore')\nimport brats.model.training, brats.model.inference"
    assert loaded_by(code, ("ray", "torch")) == {"torch"}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_every_module_opens_with_one_line_and_has_its_test_module(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
    assert docstring.split("\n")[0].endswith((".", ":"))
    rooms = path.relative_to(ROOT / "brats").parts[:-1]
    places = [ROOT.joinpath("tests", "unit", *rooms), ROOT / "tests" / "ray"]
    assert any((place / f"test_{path.stem}.py").is_file() for place in places)
