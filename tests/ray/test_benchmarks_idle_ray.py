"""The idle Ray of the benchmarks: there inside, gone afterwards."""

import sys

import psutil
import pytest

from tests.support import ROOT

sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed

from benchmarks.idle_ray import idle_ray

pytestmark = pytest.mark.ray


def names_of_children() -> list[str]:
    return [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]


def test_actors_are_there_inside_and_nothing_is_left_afterwards() -> None:
    before = len(names_of_children())
    with idle_ray(2):
        assert sum(name.startswith("ray::_Idle") for name in names_of_children()) == 2
    assert len(names_of_children()) <= before + 1  # the resource tracker of multiprocessing stays
