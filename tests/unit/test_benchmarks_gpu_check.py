"""The checks of a GPU, run on a CPU with stand-ins for graphs, a full memory and fp16; and that they can fail."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support import ROOT

sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed

from benchmarks import gpu_check
from benchmarks.generated import Generated, generate
from benchmarks.gpu_check import CHECKS, Finding, Site, attempt, check_all
from benchmarks.gpu_trainer import Redone, Trainer
from brats.config import TrainConfig
from brats.errors import BratsError
from brats.model.engine import Recorder
from brats.model.graph import Recording, Work

CPU = torch.device("cpu")
CONFIG = TrainConfig(
    out="run", encoder="resnet18", decoder_channels=(8, 8, 8, 8, 8), epochs=50, batch_size=4, warmup_steps=1
)
SHAPE = (32, 32, 10)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    return generate(tmp_path_factory.mktemp("generated"), 3, SHAPE)


@pytest.fixture
def site(generated: Generated) -> Iterator[Site]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Site(generated=generated, config=CONFIG, device=CPU, precision="fp32", n_steps=12)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", CHECKS)
def test_check_is_well_where_the_engine_is(site: Site, name: str) -> None:
    found = CHECKS[name](site)
    assert found.ok, found.figures


class Stuck:
    """A recording that replays the inputs it was made with."""

    def __init__(self, work: Work, tensors: Mapping[str, Tensor]) -> None:
        self._work, self._tensors = work, dict(tensors)

    def replay(self, _tensors: Mapping[str, Tensor]) -> None:
        self._work(self._tensors)


class Doubled(Stuck):
    """A recording that takes every step twice."""

    def replay(self, tensors: Mapping[str, Tensor]) -> None:
        self._work(tensors)
        self._work(tensors)
