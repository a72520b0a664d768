"""An embedded Ray that does nothing, beside which something else is measured."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event

N_ACTORS = 8  # of a training with one worker: its controller, and those of Ray Data and Ray Train
START_TIMEOUT_S = 120


@contextmanager
def idle_ray(n_actors: int = N_ACTORS) -> Iterator[None]:
    """A Ray as the jobs embed it, in a process of its own, with so many actors of which nothing is asked."""
    context = multiprocessing.get_context("spawn")
    ready, over = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(n_actors, ready, over))
    process.start()
    try:
        if not ready.wait(START_TIMEOUT_S):
            raise TimeoutError(f"no Ray was up within {START_TIMEOUT_S} s")
        yield
    finally:
        over.set()
        process.join()


def _hold(n_actors: int, ready: Event, over: Event) -> None:
    import ray

    from brats.cluster.connect import connected

    with connected():
        actors = [ray.remote(num_cpus=0)(_Idle).remote() for _ in range(n_actors)]
        ray.get([actor.is_up.remote() for actor in actors])
        ready.set()
        over.wait()


class _Idle:
    def is_up(self) -> bool:
        return True
