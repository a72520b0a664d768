"""The streams of batches that Ray Data makes of the epoch plan."""

from typing import Any

import numpy as np
import pytest

from brats.config import PrepareConfig, TrainConfig
from brats.data.dataset import read_case_table, slices_path
from brats.data.slices import SliceFile
from brats.pipeline.prepare import prepare
from brats.pipeline.stream import EpochPlan, plan_of, rank_stream, read_step, worker_batches
from tests.support.synthetic import write_cases

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]

N_EPOCHS = 3


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> EpochPlan:
    root = tmp_path_factory.mktemp("stream")
    write_cases(root / "cases", 12, shape=(32, 30, 14))
    prepared = str(root / "prepared")
    prepare(PrepareConfig(data=str(root / "cases"), out=prepared, test_fraction=0, val_fraction=0.1))
    rows = read_case_table(prepared)
    return plan_of(TrainConfig(out="run", modalities=("t1", "flair"), batch_size=8), prepared, rows)


def batches_of(plan: EpochPlan, rank: int, world_size: int, *, n_done: int = 0) -> list[Any]:
    config = TrainConfig(out="run", epochs=N_EPOCHS)
    dataset = rank_stream(plan, config, rank, world_size, steps=len(plan.epoch(1)), n_done=n_done)
    dataset.context.execution_options.preserve_order = True
    return list(worker_batches(dataset, len(plan.modalities), plan.size))


def test_streams_of_two_workers_together_are_the_plan_in_order(plan: EpochPlan) -> None:
    streams = [batches_of(plan, rank, 2) for rank in range(2)]
    planned = [batch for epoch in range(1, N_EPOCHS + 1) for batch in plan.epoch(epoch)]
    assert len(streams[0]) == len(streams[1]) == len(planned)
    files = {case.case_id: SliceFile(slices_path(plan.prepared, case.case_id)) for case in plan.cases}
    for batch, *shares in zip(planned, *streams, strict=True):
        assert [(share.epoch, share.step) for share in shares] == [(batch.epoch, batch.step)] * 2
        assert [share.first for share in shares] == [0, len(shares[0].slices.labels)]
        assert {share.n_global for share in shares} == {len(batch.slices)}
        labels = np.concatenate([share.slices.labels for share in shares])
        images = np.concatenate([share.slices.images for share in shares])
        assert len(labels) == len(batch.slices)
        for position, (case_id, row) in enumerate(batch.slices):
            (t1, flair), mask = files[case_id].read_slice(row, ("t1", "flair"))
            assert mask is not None
            height, width = mask.shape
            np.testing.assert_array_equal(labels[position, :height, :width], mask)
            np.testing.assert_array_equal(images[position, 0, :height, :width], t1)
            np.testing.assert_array_equal(images[position, 1, :height, :width], flair)
            assert not labels[position, height:].any()


def test_stream_after_a_finished_epoch_is_the_rest_of_the_whole(plan: EpochPlan) -> None:
    whole = batches_of(plan, 0, 1)
    rest = batches_of(plan, 0, 1, n_done=1)
    expected = [batch for batch in whole if batch.epoch > 1]
    assert [(batch.epoch, batch.step) for batch in rest] == [(batch.epoch, batch.step) for batch in expected]
    for one, other in zip(rest, expected, strict=True):
        np.testing.assert_array_equal(one.slices.images, other.slices.images)


def test_stream_after_the_last_epoch_is_empty(plan: EpochPlan) -> None:
    assert batches_of(plan, 0, 1, n_done=N_EPOCHS) == []


def test_arrays_of_a_batch_may_be_written_to(plan: EpochPlan) -> None:
    batch = batches_of(plan, 0, 1)[0]
    assert batch.slices.images.flags.writeable
    assert batch.slices.images.dtype == np.int16


def test_step_carries_its_arrays_as_plain_bytes(plan: EpochPlan) -> None:
    steps = len(plan.epoch(1))
    row = read_step({"id": steps}, plan, steps, 0, 1)
    assert (row["epoch"], row["step"]) == (2, 0)
    assert {type(value) for value in row.values()} == {int, str, bytes}
