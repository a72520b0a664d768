"""Failures of training workers: which another start may not meet again, and why they came, in one line."""

import re
from collections.abc import Mapping

from brats import errors
from brats.cluster.datasets import first_cause, root_cause
from brats.cluster.ray_internals import worker_error
from brats.errors import BratsError, ClusterError, ConfigError, UnreachableError, WorkersLostError

# Errors of Python, torch and NCCL that pass: another worker did not answer, or a GPU or a machine failed. Any other
# comes from the program or its input, and would come again.
PASSING = re.compile(
    r"Dist\w*Error|AcceleratorError|ConnectionError|Connection\w+Error|BrokenPipeError|\w*TimeoutError"
    r"|InterruptedError|MemoryError|OSError"
)
PASSING_TEXT = re.compile(r"connection (reset|closed|refused)|timed? ?out|\b(gloo|nccl|cudnn)|CUDA error", re.I)
OUT_OF_GPU_MEMORY = "OutOfMemoryError"


def judge(error: BaseException) -> BratsError:
    """The error to raise for workers that failed: a WorkersLostError where another start may get further.

    error: what Ray Train raised
    """
    import ray

    failures = worker_failures(error)
    lasting = {rank: failure for rank, failure in failures.items() if lasts(failure)}
    for failure in lasting.values():
        if isinstance(failure, BratsError):
            return failure
    if not lasting or any(isinstance(failure, ray.exceptions.RayActorError) for failure in failures.values()):
        return WorkersLostError(worker_failure(error))  # what the others raise may follow from a worker's death
    rank, failure = next(iter(lasting.items()))
    name, message = first_cause(failure)
    if own := getattr(errors, name, None):
        return ConfigError(message) if issubclass(own, ConfigError) else BratsError(message)
    remedy = "lower --micro-batch-size" if name == OUT_OF_GPU_MEMORY else "another start would meet it again"
    return BratsError(f"training worker {rank} failed: {root_cause(failure)}; {remedy} (--debug shows where)")


def worker_failures(error: BaseException) -> dict[int, BaseException]:
    """The errors of the workers by rank, lowest first; none where they were not even started."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    return {rank: worker_error(failure) for rank, failure in sorted(failures.items())}


def lasts(failure: BaseException) -> bool:
    """Whether another start would meet the error of a worker again."""
    import ray

    of_task = isinstance(failure, ray.exceptions.RayTaskError)
    if isinstance(failure, ray.exceptions.RayError) and not of_task:
        return False  # a process or a machine died, or could not be reached
    name, message = first_cause(failure)
    if own := getattr(errors, name, None):
        return not issubclass(own, UnreachableError | WorkersLostError | ClusterError)
    if of_task and hasattr(ray.exceptions, name) and name != "UserCodeException":
        return False  # of a task that lost what it was given
    return not PASSING.fullmatch(name) and not PASSING_TEXT.search(message)


def worker_failure(error: BaseException) -> str:
    """Why the workers failed, in one line: by the one that died, else by the first that raised an error.

    When one dies, those that wait for it fail too; what they say is not the reason.
    """
    import ray

    failures = worker_failures(error)
    for rank, failure in failures.items():
        if isinstance(failure, ray.exceptions.RayActorError):
            return f"training worker {rank} died, and its process or its machine with it"
    for rank, failure in failures.items():
        if re.search(r"connection (reset|closed|refused)", str(failure), re.IGNORECASE):
            return f"training worker {rank} lost the connection to another, most likely with its machine"
        return f"training worker {rank} failed: {root_cause(failure)}"
    return f"the workers could not be started or kept: {root_cause(error)}"
