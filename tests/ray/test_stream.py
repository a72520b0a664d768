"""The streams of batches that Ray Data makes of the epoch plan."""

import numpy as np
import pytest

from brats.config import PrepareConfig, TrainConfig
from brats.data.batches import TrainingSet, WorkerBatch
from brats.data.dataset import read_case_table, slices_path
from brats.data.slices import SliceFile
from brats.pipeline.prepare import prepare
from brats.pipeline.stream import rank_stream, read_step, worker_batches
from tests.support.synthetic import write_cases

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]

N_EPOCHS = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    root = tmp_path_factory.mktemp("stream")
    write_cases(root / "cases", 12, shape=(32, 30, 14))
    prepared = str(root / "prepared")
    prepare(PrepareConfig(data=str(root / "cases"), out=prepared, test_fraction=0, val_fraction=0.1))
    config = TrainConfig(modalities=("t1", "flair"), batch_size=8)
    return TrainingSet.of(config, prepared, read_case_table(prepared))


def batches_of(data: TrainingSet, rank: int, world_size: int, *, n_done: int = 0) -> list[WorkerBatch]:
    dataset = rank_stream(data, rank, world_size, epochs=range(n_done + 1, N_EPOCHS + 1))
    dataset.context.execution_options.preserve_order = True
    return list(worker_batches(dataset))


def test_streams_of_two_workers_together_are_the_plan_in_order(data: TrainingSet) -> None:
    streams = [batches_of(data, rank, 2) for rank in range(2)]
    planned = [batch for epoch in range(1, N_EPOCHS + 1) for batch in data.plan.epoch(epoch)]
    assert len(streams[0]) == len(streams[1]) == len(planned)
    files = {case.case_id: SliceFile(slices_path(data.prepared, case.case_id)) for case in data.plan.cases}
    for batch, *shards in zip(planned, *streams, strict=True):
        assert [(shard.epoch, shard.step) for shard in shards] == [(batch.epoch, batch.step)] * 2
        assert [shard.first for shard in shards] == [0, len(shards[0].labels)]
        assert {shard.n_global for shard in shards} == {len(batch.slices)}
        labels = np.concatenate([shard.labels for shard in shards])
        images = np.concatenate([shard.slices.images for shard in shards])
        assert len(labels) == len(batch.slices)
        for position, (case_id, row) in enumerate(batch.slices):
            (t1, flair), mask = files[case_id].read_slice(row, ("t1", "flair"))
            assert mask is not None
            height, width = mask.shape
            np.testing.assert_array_equal(labels[position, :height, :width], mask)
            np.testing.assert_array_equal(images[position, 0, :height, :width], t1)
            np.testing.assert_array_equal(images[position, 1, :height, :width], flair)
            assert not labels[position, height:].any()


def test_stream_after_a_finished_epoch_is_the_rest_of_the_whole(data: TrainingSet) -> None:
    whole = batches_of(data, 0, 1)
    rest = batches_of(data, 0, 1, n_done=1)
    expected = [batch for batch in whole if batch.epoch > 1]
    assert [(batch.epoch, batch.step) for batch in rest] == [(batch.epoch, batch.step) for batch in expected]
    for one, other in zip(rest, expected, strict=True):
        np.testing.assert_array_equal(one.slices.images, other.slices.images)


def test_stream_after_the_last_epoch_is_empty(data: TrainingSet) -> None:
    assert batches_of(data, 0, 1, n_done=N_EPOCHS) == []


def test_arrays_of_a_batch_may_be_written_to(data: TrainingSet) -> None:
    batch = batches_of(data, 0, 1)[0]
    assert batch.slices.images.flags.writeable
    assert batch.labels.flags.writeable
    assert batch.slices.images.dtype == np.int16


def test_a_step_is_the_row_of_the_shard_that_the_plan_gives_the_rank(data: TrainingSet) -> None:
    planned = data.plan.epoch(2)[3]
    assert read_step({"epoch": 2, "step": 3}, data, 1, 2) == data.read_shard(planned, 1, 2).to_row()
