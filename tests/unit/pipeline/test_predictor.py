"""The batch of a predictor: that of the command line, else that of its device."""

import pytest
import torch

from brats.cluster.placement import Placement
from brats.config import PredictConfig
from brats.data.case import Case
from brats.model.inference import Segmenter
from brats.pipeline.predictor import Predictor
from tests.support.prepared import segmenter_of, tiny_case, undecided_network


@pytest.mark.parametrize(
    ("use_gpu", "asked", "taken"), [(False, 0, 16), (True, 0, 64), (False, 5, 5), (True, 5, 5)]
)
def test_batches_are_larger_on_a_gpu_unless_a_size_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, use_gpu: bool, asked: int, taken: int
) -> None:
    sizes, devices = [], []

    def work(_: object, __: Case, batch_size: int) -> None:
        sizes.append(batch_size)

    def load(_: str, device: torch.device, __: str, *, flips: bool) -> None:
        assert flips
        devices.append(device.type)

    monkeypatch.setattr(Segmenter, "load", load)
    config = PredictConfig(model="model", data="data", out="out", batch_size=asked, flips=True)
    Predictor(config, work, Placement(workers=1, use_gpu=use_gpu, cpus=1, threads=0), None).segment(tiny_case())
    assert (sizes, devices) == ([taken], ["cuda" if use_gpu else "cpu"])


@pytest.mark.usefixtures("one_thread")
def test_a_batch_of_a_gpu_and_one_of_a_cpu_give_the_same_label_map() -> None:
    segmenter = segmenter_of(undecided_network().eval())
    whole, parts = (torch.from_numpy(segmenter.labels(tiny_case(), size)) for size in (64, 3))
    assert (whole != parts).float().mean() < 1e-3  # sums in another order may turn a voxel at the threshold
