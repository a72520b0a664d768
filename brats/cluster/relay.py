"""A queue from any process of the cluster to the driver's console."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def relayed(show: Callable[[Any], None]) -> Iterator[Any]:
    """A queue whose items, none of them None, put by any process of the cluster, are shown here as they come."""
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # On this machine: any other may be lost, and the workers that use the queue with it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})

    def drain() -> None:
        with suppress(ray.exceptions.RayError):  # the queue is lost with its machine, which is this one
            while (item := queue.get()) is not None:
                show(item)

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        with suppress(ray.exceptions.RayError):
            queue.put(None)  # the end
        thread.join(timeout=10)
        queue.shutdown(force=True)
