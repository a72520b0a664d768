"""How often a case was begun: one that takes its process with it, again and again, is not tried for ever.

Ray starts a task or an actor again as often as its process dies. That is right where its machine was lost. For a
case that is too large for the memory it would never end.
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
        """Count one more attempt; return how many that makes."""
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

    doing: what is done with the case, as `reading`; each is counted by itself

    Raises CaseError when `MOST_ATTEMPTS` processes have died of it: a transient one, so that a rerun, on larger
    machines, tries the case again.
    """
    import ray

    if ray.get(counter.begin.remote(case_id, doing)) > MOST_ATTEMPTS:
        reason = f"{doing} it killed {MOST_ATTEMPTS} processes, most likely out of memory; {remedy}"
        raise CaseError("", reason, transient=True)
