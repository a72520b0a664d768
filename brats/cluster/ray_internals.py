"""Everything used of Ray 2.60 that is not its public interface: what to read first when Ray is raised.

Ray is pinned to one version, because any other may rename these. A test refuses such names in other modules.
"""

import json
import os
import time
from collections.abc import Callable
from typing import Any

import yaml

BOOTSTRAP_CONFIG = "~/ray_bootstrap_config.yaml"  # named in the start commands of every `ray up` configuration
SCHEDULING_PAUSE_S = 0.02


def replace_printer(show: Callable[[str], None]) -> None:
    """Hand the messages that Ray pushes to the driver to a function instead of printing them.

    Reason: Ray prints them, a screen each, even where it is told to keep the workers' logs off the driver.
    """
    import ray._private.worker

    def show_lines(data: dict[str, Any], ignore_prefix: bool = False) -> None:  # noqa: ARG001  # as Ray calls it
        for message in data["lines"]:
            show(message)

    ray._private.worker.print_to_stdstream = show_lines


def free_resources() -> dict[str, dict[str, float]]:
    """What is free of each machine, by the id of its node.

    Reason: the public `ray.available_resources` returns the sum over the machines.
    """
    import ray

    free: dict[str, dict[str, float]] = ray._private.state.available_resources_per_node()
    return free


def submitted_env_vars() -> set[str]:
    """The environment variables that this job was submitted with for its workers; none outside a submitted job.

    Reason: `ray.init` refuses to set them again, and no call lists them before it.
    """
    submitted = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env") or {}
    return set(submitted.get("env_vars") or {})


def bootstrap_config() -> dict[str, Any] | None:
    """The configuration of the cluster that `ray up` leaves on its head; None where there is none.

    Reason: Ray has no call for what an autoscaler may add. Submitted jobs run on the head.
    """
    try:
        with open(os.path.expanduser(BOOTSTRAP_CONFIG)) as file:
            config = yaml.safe_load(file)
    except (OSError, yaml.YAMLError):
        return None
    return config if isinstance(config, dict) else None


def throttle(dataset: Any) -> None:
    """Have the scheduling loop of a dataset pause at each turn.

    Reason: the loop runs in the training process. While batches wait to be taken, which is most of the time, it
    turns without a pause: on two cores that took half of the training speed (profiled with py-spy).
    """
    dataset.context.custom_execution_callback_classes = [Throttle]


class Throttle:
    """The methods of Ray Data's `ExecutionCallback`, which is not public; Ray makes the instance."""

    def before_execution_starts(self, executor: Any) -> None: ...

    def on_execution_step(self, executor: Any) -> None:  # noqa: ARG002
        time.sleep(SCHEDULING_PAUSE_S)

    def after_execution_succeeds(self, executor: Any) -> None: ...

    def after_execution_fails(self, executor: Any, error: Exception) -> None: ...


def worker_error(failure: BaseException) -> BaseException:
    """The error of a training worker, or that of the call that asked whether it lives.

    Reason: Ray Train wraps the latter in an exception that is not public.
    """
    error: BaseException = getattr(failure, "health_check_failure", failure)
    return error
