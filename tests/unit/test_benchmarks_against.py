"""Comparing two runs: what counts as a difference, what is not judged, and files that are no results."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT

sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed

from benchmarks import __main__ as every
from benchmarks.against import BETTER, OTHER_HARDWARE, SAME, TOO_FEW, WORSE, Comparison, Run, differ, noise
from benchmarks.harness import Outcome, Row, Spread, compare
from benchmarks.results import write_results

HARDWARE = {"cpu": "any", "cores": 2, "memory_gib": 24, "gpu": None}


def run(*rows: Row, name: str = "run", **changes: Any) -> Run:
    values: dict[str, Any] = {"name": name, "hardware": HARDWARE, "versions": {"torch": "2.15.0"}, "rows": rows}
    return Run(**{**values, **changes})


def timed(*values: float, stage: str = "read", peer: str = "MONAI") -> Row:
    return compare(stage, Spread(values), peer, 1.0, "s")


def rate(*values: float) -> Row:
    return compare("train", Spread(values), "MONAI", 1.0, "slices/s", more_is_better=True)


def verdict(before: Row, now: Row) -> str:
    (found,) = Comparison.of(run(before), run(now)).verdicts.values()
    return found


def test_noise_is_how_far_the_largest_round_exceeds_the_smallest() -> None:
    assert noise([10, 11, 12]) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ((10, 10.1, 10.2), (11, 11.1, 11.2), True),  # 10 % apart, 2 % of noise
        ((11, 11.1, 11.2), (10, 10.1, 10.2), True),  # the other way round
        ((10, 10.1, 10.2), (10.2, 11.1, 11.2), False),  # one round of each is the same
        ((10, 10.5, 11), (11.1, 11.2, 11.3), False),  # apart, by 6.7 % where one side's rounds differ by 10 %
        ((11.1, 11.2, 11.3), (10, 10.5, 11), False),
        ((10, 10, 10), (10.1, 10.1, 10.1), False),  # quiet, but only 1 %
        ((10, 10, 10), (10.3, 10.3, 10.3), True),
        ((0, 0, 0), (0, 0, 0), False),
        ((0, 0, 0), (0.1, 0.1, 0.1), True),
    ],
)
def test_runs_differ_where_ranges_are_apart_by_more_than_the_noise_of_both(
    before: tuple[float, ...], now: tuple[float, ...], expected: bool
) -> None:
    assert differ(before, now) is expected


def test_more_seconds_are_worse_and_a_higher_rate_is_better() -> None:
    assert verdict(timed(1, 1, 1), timed(2, 2, 2)) == WORSE
    assert verdict(timed(2, 2, 2), timed(1, 1, 1)) == BETTER
    assert verdict(rate(1, 1, 1), rate(2, 2, 2)) == BETTER
    assert verdict(rate(2, 2, 2), rate(1, 1, 1)) == WORSE


def test_difference_within_the_noise_is_not_called() -> None:
    assert verdict(timed(1, 2, 3), timed(2, 3, 4)) == SAME


def test_figures_of_fewer_than_three_rounds_are_not_judged() -> None:
    assert verdict(timed(1, 1), timed(2, 2, 2)) == TOO_FEW
    assert verdict(timed(1, 1, 1), compare("read", 2.0, "MONAI", 1.0, "s")) == TOO_FEW


def test_nothing_is_judged_on_other_hardware_which_is_named() -> None:
    other = {**HARDWARE, "gpu": "Tesla T4"}
    found = Comparison.of(run(timed(1, 1, 1)), run(timed(2, 2, 2), hardware=other))
    assert found.verdicts == {"read": OTHER_HARDWARE}
    assert found.worse == []
    assert "other hardware: gpu None before, Tesla T4 now" in str(found).splitlines()


def test_other_versions_are_named_and_judged() -> None:
    found = Comparison.of(run(timed(1, 1, 1)), run(timed(2, 2, 2), versions={"torch": "2.16.0", "ray": "2.60.0"}))
    assert found.worse == ["read"]
    assert "other versions: torch 2.15.0 before, 2.16.0 now; ray none before, 2.60.0 now" in str(found).splitlines()


def test_stages_that_only_one_run_has_are_named_once() -> None:
    shared = timed(1, 1, 1, stage="both")
    before = run(shared, timed(1, stage="old"), timed(1, stage="old", peer="TorchIO"), name="a.json")
    lines = str(Comparison.of(before, run(shared, timed(1, stage="new"), name="b.json"))).splitlines()
    assert lines[-2:] == ["only in a.json: old", "only in b.json: new"]


def test_stage_with_several_peers_is_judged_once() -> None:
    rows = (timed(1, 1, 1), timed(1, 1, 1, peer="TorchIO"))
    assert Comparison.of(run(*rows), run(*rows)).verdicts == {"read": SAME}


def test_line_of_a_stage_has_both_figures_their_ratio_and_noise() -> None:
    lines = str(Comparison.of(run(timed(2, 2, 2)), run(timed(4, 4, 5)))).splitlines()
    assert [cell.strip() for cell in lines[-1].strip("|").split("|")] == [
        "read", "2", "4", "s", "0.500", "0.0%", "25.0%", WORSE,
    ]  # fmt: skip


def test_runs_without_a_common_stage_say_so() -> None:
    found = Comparison.of(run(timed(1, stage="old")), run(timed(1, stage="new")))
    assert "the two runs have no stage in common" in str(found)


def results(folder: Path, *rows: Row) -> str:
    return str(write_results(rows, {}, folder=folder))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], capture_output=True, text=True, cwd=ROOT
    )


def test_two_files_are_compared_without_measuring(tmp_path: Path) -> None:
    slow, fast = results(tmp_path / "slow", timed(2, 2, 2)), results(tmp_path / "fast", timed(1, 1, 1))
    for before, now, status in ((slow, fast, 0), (fast, slow, 1)):
        done = command("--against", before, "--with", now)
        assert (done.returncode, done.stderr) == (status, "")
        assert done.stdout.strip().startswith(f"{now} against {before}")


def test_run_that_is_worse_than_the_earlier_one_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results(tmp_path / "before", timed(1, 1, 1))
    monkeypatch.setattr(every, "run", lambda *_: Outcome(rows=[timed(2, 2, 2)]))
    monkeypatch.setattr(every, "write_results", lambda *_, **__: tmp_path / "now.json")
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "startup", "--against", before])
    with pytest.raises(SystemExit) as ended:
        every.main()
    assert ended.value.code == 1
    assert f"this run against {before}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        ("{", "not JSON"),
        ("[]", "not results of the benchmarks"),
        ('{"version": 2}', "not results of the benchmarks"),
        ('{"version": 2, "hardware": {}, "versions": {}, "rows": [{"stage": "a"}]}', "not results of the benchm"),
        (json.dumps({"hardware": {}, "rows": []}), "results of version 1, this program compares those of 2"),
        ('{"version": 3}', "results of version 3"),
    ],
)
def test_file_that_holds_no_results_is_refused_in_one_line_before_anything_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    reason: str,
) -> None:
    path = tmp_path / "before.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(every, "run", lambda *_: pytest.fail("a benchmark was run"))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--against", str(path)])
    with pytest.raises(SystemExit) as ended:
        every.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert str(path) in line
    assert reason in line


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(("--with", "a.json"), "--with needs --against"), (("--quick", "--against", "a.json"), "other sizes")],
)
def test_options_that_contradict_each_other_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], reason: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit):
        every.main()
    assert reason in capsys.readouterr().err
