"""What happens on a head and two machines of one (pretended) T4 each, as JSON: run by test_two_gpus."""

import contextlib
import dataclasses
import io
import json
import os
import sys
from typing import Any

from tests.support.fault_cluster import Machines, machines, wait_for

T4 = {"num_cpus": 4, "num_gpus": 1, "resources": {"accelerator_type:T4": 1}}


def probe(spec: dict[str, Any]) -> dict[str, Any]:
    """A training loop that says where it runs."""
    import ray
    import ray.train

    gpus = ray.get_runtime_context().get_accelerator_ids()
    return {
        "gpus": gpus,
        "world_size": ray.train.get_context().get_world_size(),
        "asked": spec["placement"].workers,
    }


def findings(cluster: Machines, out: str) -> dict[str, Any]:
    import ray

    from brats.cluster.placement import is_reserved, place_workers, release, reserve
    from brats.cluster.preflight import ask_machines, check_gpus, wait_for_lost_nodes
    from brats.config import TrainConfig
    from brats.data.batches import InputSpec, TrainingSet
    from brats.data.epoch import EpochPlan, TrainingCase
    from brats.errors import ConfigError
    from brats.pipeline.workers.fit import make_trainer
    from brats.pipeline.workers.worker import TrainingTask

    wait_for(lambda: _free_gpus() == 2, "two GPUs")
    both = place_workers("auto", 0, cpu_workers=2, wait_minutes=1)
    found: dict[str, Any] = {"both": dataclasses.asdict(both), "said_of_both": str(both)}
    try:
        check_gpus(both)
    except ConfigError as error:
        found["unusable"] = str(error)
    with open(f"{out}/.check", "w") as file:
        file.write(file.name)
    found["reports"] = [dataclasses.asdict(report) for report in ask_machines(f"{out}/.check", {"--data": out})]

    data = TrainingSet(
        prepared=out,
        plan=EpochPlan(cases=(TrainingCase("a", (1, 1)),), seed=0, batch_size=2, tumour_free_ratio=0),
        inputs=InputSpec(modalities=("t1",)),
        size=(32, 32),
        shapes=((2, 32, 32),),
    )
    task = TrainingTask(config=TrainConfig(out=out, epochs=1), data=data, val_paths=())
    found["worker"] = make_trainer(task, both, [], probe, {}, backend="gloo").fit().return_value

    group = reserve([both.bundle] * 2)
    nodes = wait_for(lambda: is_reserved(group) and _nodes_of(group), "a place for two workers")
    found["nodes_of_two"] = nodes
    release(group)
    wait_for(lambda: _free_gpus() == 2, "the GPUs to be given back")

    cluster.remove(cluster.nodes[-1])
    wait_for_lost_nodes()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        rest = place_workers("auto", 2, cpu_workers=2, wait_minutes=30, lost=both)
    found["rest"], found["said_of_rest"] = dataclasses.asdict(rest), said.getvalue()
    found["worker_left"] = make_trainer(task, rest, [], probe, {}, backend="gloo").fit().return_value
    wait_for(lambda: _free_gpus() == 1, "the GPU to be given back")
    blocker = ray.remote(num_gpus=1, num_cpus=0)(_Holder).remote()
    ray.get(blocker.ready.remote())
    more = reserve([both.bundle])
    found["room_while_held"] = is_reserved(more)
    cluster.add(**T4)
    found["room_after"] = wait_for(lambda: is_reserved(more), "room on the machine that joined")
    return found


def _free_gpus() -> int:
    from brats.cluster.capacity import cluster_capacity

    return sum(machine.gpus for machine in cluster_capacity().free)


class _Holder:
    def ready(self) -> bool:
        return True


def _nodes_of(group: Any) -> list[str]:
    from ray.util.placement_group import placement_group_table

    return sorted(set(placement_group_table(group)["bundles_to_node_id"].values()))


def main(out: str) -> None:
    with machines(0) as cluster:
        os.environ["RAY_ADDRESS"] = cluster.address
        cluster.add(**T4)
        cluster.add(**T4)
        from brats.cluster.connect import connected

        with connected():
            found = findings(cluster, out)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
