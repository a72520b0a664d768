"""Placement on a live Ray: room that is reserved, and the CPUs of the tasks that feed training workers."""

import pytest
import ray

from brats.cluster.capacity import cluster_capacity
from brats.cluster.placement import FEEDING_CPUS, is_reserved, place_workers, release, reserve
from brats.data.batches import InputSpec, TrainingSet
from brats.data.epoch import EpochPlan, TrainingCase
from brats.errors import ConfigError
from brats.pipeline.workers.stream import rank_stream, volume_stream

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]


def test_task_that_feeds_a_worker_takes_no_more_cpus_than_placement_leaves() -> None:
    """Where it takes more, it finds no room beside the workers, and training hangs."""
    data = TrainingSet(
        prepared="prepared",
        plan=EpochPlan(cases=(TrainingCase("a", (1, 1)),), seed=0, batch_size=2, tumour_free_ratio=0),
        inputs=InputSpec(modalities=("t1",)),
        size=(32, 32),
        shapes=((2, 32, 32),),
    )
    for stream in (rank_stream(data, 0, 1, epochs=range(1, 2)), volume_stream(data)):
        assert stream._logical_plan.dag.ray_remote_args["num_cpus"] == FEEDING_CPUS


def test_workers_and_the_tasks_that_feed_them_have_room_on_this_machine() -> None:
    cpus = sum(machine.cpus for machine in cluster_capacity().machines)
    placement = place_workers("cpu", 100, cpu_workers=2, wait_minutes=0)
    assert placement.workers * placement.cpus <= cpus - FEEDING_CPUS


def test_reserved_room_is_there_until_it_is_released() -> None:
    (node,) = ray.nodes()
    group = reserve([{"CPU": node["Resources"]["CPU"]}])
    ray.get(group.ready())
    assert is_reserved(group)
    assert sum(machine.cpus for machine in cluster_capacity().free) == 0
    release(group)
    assert not is_reserved(group)
    release(None)


def test_gpu_that_ray_does_not_see_is_refused() -> None:
    with pytest.raises(ConfigError, match="--device: cuda, but Ray sees no GPU"):
        place_workers("cuda", 0, cpu_workers=2, wait_minutes=0)
