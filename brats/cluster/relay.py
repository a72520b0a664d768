"""A queue from any process of the cluster to the driver's console."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def relayed(show: Callable[[Any], None]) -> Iterator[Any]:
    """A queue for any process of the cluster: its items, none of them None, are shown here as they arrive."""
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # On this machine: if another were lost, the workers that use its queue would fail too.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})

    def drain() -> None:
        with suppress(ray.exceptions.RayError):  # the queue was killed: nothing more will arrive
            while (item := queue.get()) is not None:
                show(item)

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        with suppress(ray.exceptions.RayError):
            queue.put(None)  # ends the loop of `drain`
        thread.join(timeout=10)
        queue.shutdown(force=True)
