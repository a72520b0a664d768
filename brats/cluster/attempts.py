"""Attempts per case: a case that keeps killing its process is rejected, not retried for ever.

Ray restarts a task or an actor whenever its process dies. That is right where a machine was lost; for a case that
is too large for the memory it would never end.
"""

from collections import Counter
from typing import Any

from brats.errors import CaseError

MOST_ATTEMPTS = 3


class Attempts:
    """Counts the attempts at each case for all processes of a job, as a Ray actor."""

    def __init__(self) -> None:
        self._begun: Counter[tuple[str, str]] = Counter()

    def begin(self, case_id: str, doing: str) -> int:
        """Count one more attempt; return the number so far."""
        self._begun[case_id, doing] += 1
        return self._begun[case_id, doing]


def start_counter() -> Any:
    """A handle to a new `Attempts` on the driver's machine, which lives as long as the job."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Attempts).remote()


def begin(counter: Any, case_id: str, doing: str, remedy: str) -> None:
    """Count an attempt at a case, in the process that is about to make it.

    doing: the step, such as `reading`; each step is counted separately

    Raises CaseError once `MOST_ATTEMPTS` processes have died; a transient one, so that a rerun, on larger machines,
    tries the case again.
    """
    import ray

    if ray.get(counter.begin.remote(case_id, doing)) > MOST_ATTEMPTS:
        reason = f"{doing} it killed {MOST_ATTEMPTS} processes, most likely out of memory; {remedy}"
        raise CaseError("", reason, transient=True)
