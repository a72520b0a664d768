"""The cost of the recipe on BraTS 2020, against values computed by hand."""

import sys
from dataclasses import replace

import pytest

from tests.support import ROOT

sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed

from benchmarks import sizing
from benchmarks.sizing import SHAPE, minutes, size, text, verdict


@pytest.fixture(autouse=True)
def _rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates as of a model that need not be computed."""
    monkeypatch.setattr(sizing, "slices_per_s", lambda *_: (500.0, 1000.0))


def test_minutes_are_those_of_reading_once_and_of_training_with_its_validation() -> None:
    # 332 cases of 7.3 MB at 100 MB/s: 24.2 s. 100,000 slices at 500/s, and 4 % for validation: 208 s.
    assert minutes(100_000, 500) == pytest.approx((24.236 + 208) / 60)


def test_default_recipe_takes_30_epochs_of_26000_slices() -> None:
    found = size(32)
    assert (found.epochs, found.n_steps, found.n_slices) == (30, 30 * 813, 780_000)


def test_ends_of_the_range_are_those_of_the_fast_and_the_slow_card() -> None:
    found = size(32)
    assert found.minutes == (minutes(780_000, 1000), minutes(780_000, 500))
    assert found.usd == pytest.approx([value / 60 * SHAPE.usd_h for value in found.minutes])


def test_slow_card_decides_whether_the_aim_is_kept() -> None:
    assert replace(size(32), minutes=(10, 60)).in_time
    assert not replace(size(32), minutes=(10, 61)).in_time


def test_run_that_takes_too_long_is_given_with_a_bound_alone() -> None:
    late, kept = (list(verdict(replace(size(32), minutes=(11, high)))) for high in (110, 55))
    assert "NOT kept" in late[0]
    assert [line for line in late if "train.py" in line] == [
        "  python jobs/train.py --data prepared --out runs/brats2020 --minutes 55"
    ]
    assert "1.0 to 5.0 times" in kept[0]
    assert sum("train.py" in line for line in kept) == 2


def test_text_has_both_batches_and_every_assumption() -> None:
    lines = list(text())
    assert sum(" steps of " in line for line in lines) == 2
    assert sum(line.startswith("assumption") for line in lines) == 6
    assert any("was not run" in line for line in lines)
