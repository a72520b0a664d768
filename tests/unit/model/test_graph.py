"""Recorded work, with a graph in place of a CUDA graph that repeats what it was shown."""

import pytest
import torch

from brats.model.graph import CapturedWork, recordable
from tests.support.prepared import CPU


class Graph:
    """Doubles what lies in the input, wherever that is, as a recorded kernel would."""

    def __init__(self, source: torch.Tensor, target: torch.Tensor) -> None:
        self.source, self.target = source, target

    def replay(self) -> None:
        torch.mul(self.source, 2, out=self.target)


def test_replayed_work_sees_the_new_input_in_the_old_place() -> None:
    source, target = torch.zeros(3), torch.zeros(3)
    captured = CapturedWork(graph=Graph(source, target), inputs={"numbers": source})
    captured.replay({"numbers": torch.tensor([1.0, 2.0, 3.0])})
    assert target.tolist() == [2, 4, 6]
    captured.replay({"numbers": torch.tensor([5.0, 5.0, 5.0])})
    assert target.tolist() == [10, 10, 10]


def test_input_of_another_shape_is_refused() -> None:
    source = torch.zeros(3)
    with pytest.raises(RuntimeError):
        CapturedWork(graph=Graph(source, source), inputs={"numbers": source}).replay({"numbers": torch.zeros(4)})


def test_on_a_cpu_nothing_is_set_up() -> None:
    with recordable(CPU):
        assert not torch.cuda.is_initialized()
