"""The streams of batches that Ray Data makes of the epoch plan."""

import numpy as np
import pytest

from brats.data.batches import TrainingSet, WorkerBatch
from brats.data.dataset import slices_path
from brats.data.epoch import EpochPlan, TrainingCase
from brats.data.slices import SliceFile
from brats.pipeline.workers.stream import rank_stream, read_step, volume_stream, worker_batches, worker_volumes
from tests.support.prepared import INPUTS, MODALITIES, SIZE, tiny_case, write_prepared

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]

N_EPOCHS = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    """Twelve cases, 8 slices a step."""
    prepared = str(tmp_path_factory.mktemp("prepared"))
    cases = [tiny_case(f"case{seed}", seed=seed) for seed in range(12)]
    write_prepared(prepared, cases)
    training = []
    for case in cases:
        assert case.labels is not None
        tumour_per_slice = (case.labels > 0).sum((1, 2)).tolist()
        training.append(TrainingCase(case.case_id, tuple(tumour_per_slice)))
    plan = EpochPlan(cases=tuple(training), seed=0, batch_size=8, tumour_free_ratio=0.25)
    shapes = ((10, 40, 36),) * len(cases)
    return TrainingSet(prepared=prepared, plan=plan, inputs=INPUTS, size=SIZE, shapes=shapes)


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
            channels, mask = files[case_id].read_slice(row, MODALITIES)
            assert mask is not None
            height, width = mask.shape
            np.testing.assert_array_equal(labels[position, :height, :width], mask)
            assert not labels[position, height:].any()
            for stored, streamed in zip(channels, images[position], strict=True):
                np.testing.assert_array_equal(streamed[:height, :width], stored)


def test_volumes_are_the_prepared_cases_each_of_them_once(data: TrainingSet) -> None:
    volumes = {volume.case_id: volume for volume in worker_volumes(volume_stream(data))}
    assert sorted(volumes) == sorted(case.case_id for case in data.plan.cases)
    for case_id, volume in volumes.items():
        case = SliceFile(slices_path(data.prepared, case_id)).read_case()
        assert volume.images.dtype == np.int16
        for image, name in zip(volume.images, MODALITIES, strict=True):
            np.testing.assert_array_equal(image, case.images[name])
        assert case.labels is not None
        np.testing.assert_array_equal(volume.labels, case.labels)
        assert volume.numbers[2].tolist() == [case.intensities[name].background for name in MODALITIES]


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
    assert batch.slices.images.dtype == np.int16


def test_step_is_that_of_the_plan_and_carries_its_arrays_as_plain_bytes(data: TrainingSet) -> None:
    row = read_step({"epoch": 2, "step": 1}, data, 0, 1)
    assert (row["epoch"], row["step"], row["n_global"]) == (2, 1, len(data.plan.epoch(2)[1].slices))
    assert {type(value) for value in row.values()} == {int, str, bytes, list}
