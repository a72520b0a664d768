"""The network at work: batches that do not fit the GPU are halved, cases that never fit are rejected."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from brats.cluster.attempts import start_counter
from brats.cluster.per_case import CaseRow, pack, unpack
from brats.cluster.placement import Placement
from brats.config import PredictConfig
from brats.data.rejects import Reject
from brats.model.inference import Segmenter
from brats.model.levels import segment
from brats.pipeline.predictor import Predictor
from tests.support.bundles import save_undecided_bundle
from tests.support.prepared import tiny_case

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray", "one_thread")]


class Memory(nn.Module):
    """Plays a GPU that holds no more than `most` slices at a time."""

    def __init__(self, network: nn.Module, most: int) -> None:
        super().__init__()
        self.network, self.most = network, most
        self.asked: list[int] = []

    def forward(self, slices: Tensor) -> Tensor:
        self.asked.append(len(slices))
        if len(slices) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        logits: Tensor = self.network(slices)
        return logits


def predictor(folder: Path, batch_size: int, most: int) -> tuple[Predictor, Memory]:
    save_undecided_bundle(folder)
    config = PredictConfig(model=str(folder), data="data", out="out", batch_size=batch_size, precision="fp32")
    placement = Placement(workers=1, use_gpu=False, cpus=1, threads=0)
    made = Predictor(config, segment, placement, start_counter())
    assert isinstance(made._segmenter, Segmenter)
    memory = Memory(made._segmenter.network, most)
    made._segmenter = dataclasses.replace(made._segmenter, network=memory)
    return made, memory


def row(case_id: str = "case") -> CaseRow:
    return pack(case_id, ("the item", tiny_case(case_id)))


def test_batch_that_does_not_fit_is_halved_until_it_does(tmp_path: Path) -> None:
    step, memory = predictor(tmp_path, batch_size=10, most=3)
    _, _, predicted = unpack(step(row()))
    assert memory.asked == [10, 5, 3, 3, 3, 1]  # of the 10 slices of the case
    unhindered, _ = predictor(tmp_path, batch_size=10, most=10)
    np.testing.assert_array_equal(predicted.labels, unpack(unhindered(row()))[2].labels)


def test_next_case_begins_with_the_batch_that_fitted(tmp_path: Path) -> None:
    step, memory = predictor(tmp_path, batch_size=10, most=3)
    step(row("first"))
    memory.asked.clear()
    step(row("second"))
    assert memory.asked == [3, 3, 3, 1]


def test_case_of_which_no_slice_fits_is_rejected_and_the_next_one_predicted(tmp_path: Path) -> None:
    step, memory = predictor(tmp_path, batch_size=4, most=0)
    rejected = step(row("large"))
    assert memory.asked == [4, 2, 1]
    assert rejected["value"] == b""
    assert unpack(rejected) == Reject(
        case_id="large",
        path="",
        stage="predict",
        reason="one slice of it does not fit into the memory of the GPU; use one with more",
        transient=True,
    )
    memory.most = 4
    assert unpack(step(row("small")))[2].labels.any()
    assert memory.asked[3] == 4


def test_item_passes_through_and_the_images_stay_behind(tmp_path: Path) -> None:
    step, _ = predictor(tmp_path, batch_size=4, most=4)
    item, case, predicted = unpack(step(row()))
    assert item == "the item"
    assert case.images == {}
    assert predicted.labels.shape == case.labels.shape


def test_case_that_killed_three_processes_is_rejected_with_the_remedy(tmp_path: Path) -> None:
    step, _ = predictor(tmp_path, batch_size=4, most=4)
    for _ in range(3):
        assert step(row())["reject"] == ""
    assert unpack(step(row())).reason == (
        "predicting it killed 3 processes, most likely out of memory; "
        "use machines with more memory, or a smaller --batch-size"
    )


def test_case_that_was_not_read_passes_by(tmp_path: Path) -> None:
    step, memory = predictor(tmp_path, batch_size=4, most=4)
    unread = {"case_id": "case", "value": b"", "reject": "{}", "failure": ""}
    assert step(unread) == unread
    assert memory.asked == []
