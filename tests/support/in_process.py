"""Steps per case run one after the other in this process, where a test is not of Ray."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import pytest

from brats.cluster import attempts
from brats.cluster.per_case import CaseRow, pack, unpack


class Rows:
    """Stands for a Ray dataset of cases."""

    def __init__(self, rows: list[CaseRow]) -> None:
        self.rows = rows

    def map(self, step: Callable[[CaseRow], CaseRow], *, num_cpus: float, memory: int) -> "Rows":
        assert num_cpus
        assert memory
        return Rows([step(row) for row in self.rows])


def run_in_process(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Let a module of the pipeline run its cases without Ray."""

    def from_cases(values: Mapping[str, Any]) -> Rows:
        return Rows([pack(case_id, value) for case_id, value in values.items()])

    def run_cases(dataset: Rows, _stage: str, n_cases: int, take: Callable[[str, Any], None]) -> None:
        assert len(dataset.rows) == n_cases
        for row in dataset.rows:
            take(row["case_id"], unpack(row))

    monkeypatch.setattr(attempts, "start_counter", lambda: None)
    monkeypatch.setattr(attempts, "begin", lambda *_: None)
    monkeypatch.setattr(module, "from_cases", from_cases)
    monkeypatch.setattr(module, "run_cases", run_cases)
