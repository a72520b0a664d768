"""Two runs of the benchmarks compared: a difference is called only where it exceeds the noise of both."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.harness import SMALLEST, BenchmarkError, Row
from benchmarks.results import VERSION, aligned
from brats.storage.documents import check_types

LEAST_ROUNDS = 3  # two rounds lie apart from two others by chance in one comparison of three
LEAST_CHANGE = 0.02  # a smaller difference is not called, however quiet both runs are: nobody would act on it
BETTER, WORSE, SAME = "better", "WORSE", "within the noise"
TOO_FEW, OTHER_HARDWARE = "not judged: too few rounds", "not judged: other hardware"
HEADINGS = ("stage", "before", "now", "unit", "ratio", "noise before", "noise now", "verdict")


@dataclass(frozen=True, kw_only=True)
class Run:
    """The results of one run, as its file has them."""

    name: str
    hardware: Mapping[str, Any]
    versions: Mapping[str, str]
    rows: Sequence[Row]

    @classmethod
    def of(cls, name: str, content: Mapping[str, Any]) -> Self:
        """Of the content of a file of results. Raises BenchmarkError for one of another version or form."""
        version = content.get("version", 1) if isinstance(content, Mapping) else None
        if isinstance(version, int) and version != VERSION:
            raise BenchmarkError(
                f"{name}: results of version {version}, this program compares those of {VERSION}; measure again"
            )
        try:
            rows = [Row.from_json(row) for row in content["rows"]]
            run = cls(name=name, hardware=content["hardware"], versions=content["versions"], rows=rows)
            for part in (run, *rows):
                check_types(part)
            return run
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BenchmarkError(f"{name}: not results of the benchmarks ({error!r})") from error

    def figures(self) -> dict[str, Row]:
        """By stage its first row: the others hold the same figure against further peers."""
        return {row.stage: row for row in reversed(self.rows)}


def read_results(path: Path) -> Run:
    """The run that wrote this file. Raises BenchmarkError, in one line, for any other file and for none."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise BenchmarkError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise BenchmarkError(f"{path}: not JSON ({error})") from error
    return Run.of(str(path), content)


def noise(values: Sequence[float]) -> float:
    """How far the rounds of one run lie apart: the largest over the smallest, less 1."""
    return max(*values, SMALLEST) / max(min(values), SMALLEST) - 1


def differ(before: Sequence[float], now: Sequence[float]) -> bool:
    """Whether two runs differ by more than the noise of both.

    They do where the ranges of their rounds do not overlap and the ratio of their medians exceeds the ratio of the
    largest to the smallest round of each, and 1.02.
    """
    low, high = sorted((before, now), key=statistics.median)
    change = max(statistics.median(high), SMALLEST) / max(statistics.median(low), SMALLEST) - 1
    return max(low) < min(high) and change > max(noise(before), noise(now), LEAST_CHANGE)


def change(before: Row, now: Row) -> float:
    """How many times as good the figure is now: more is better, 1 is equal."""
    better, worse = (now, before) if now.more_is_better else (before, now)
    return max(better.ours, SMALLEST) / max(worse.ours, SMALLEST)


def judge(before: Row, now: Row) -> str:
    """The verdict on one figure of two runs on the same hardware."""
    if min(len(before.ours_values), len(now.ours_values)) < LEAST_ROUNDS:
        return TOO_FEW
    if not differ(before.ours_values, now.ours_values):
        return SAME
    return BETTER if change(before, now) > 1 else WORSE


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What two runs show: a verdict by stage, in the order of the later run, and what they do not share."""

    before: Run
    now: Run
    verdicts: Mapping[str, str]

    @classmethod
    def of(cls, before: Run, now: Run) -> Self:
        earlier, same_hardware = before.figures(), before.hardware == now.hardware
        shared = {row.stage: row for row in now.rows if row.stage in earlier}
        verdicts = {
            stage: judge(earlier[stage], now.figures()[stage]) if same_hardware else OTHER_HARDWARE
            for stage in shared
        }
        return cls(before=before, now=now, verdicts=verdicts)

    @property
    def worse(self) -> list[str]:
        """Stages that are worse by more than the noise."""
        return [stage for stage, verdict in self.verdicts.items() if verdict == WORSE]

    def __str__(self) -> str:
        earlier, later = self.before.figures(), self.now.figures()
        cells = [_cells(earlier[stage], later[stage], verdict) for stage, verdict in self.verdicts.items()]
        lines = [f"{self.now.name} against {self.before.name}"]
        lines += _differences("hardware", self.before.hardware, self.now.hardware)
        lines += _differences("versions", self.before.versions, self.now.versions)
        lines += [aligned(HEADINGS, cells)] if cells else ["the two runs have no stage in common"]
        lines += _missing(self.before, later) + _missing(self.now, earlier)
        return "\n".join(lines)


def _cells(before: Row, now: Row, verdict: str) -> tuple[str, ...]:
    spread = [f"{noise(row.ours_values):.1%}" if row.ours_values else "unknown" for row in (before, now)]
    ratio = f"{change(before, now):.3f}"
    return (now.stage, f"{before.ours:.4g}", f"{now.ours:.4g}", now.unit, ratio, *spread, verdict)


def _differences(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    changes = [f"{name} {before.get(name, 'none')} before, {now.get(name, 'none')} now" for name in names]
    return [f"other {what}: {'; '.join(changes)}"] if changes else []


def _missing(run: Run, other: Mapping[str, Row]) -> list[str]:
    stages = [stage for stage in dict.fromkeys(row.stage for row in run.rows) if stage not in other]
    return [f"only in {run.name}: {'; '.join(stages)}"] if stages else []
