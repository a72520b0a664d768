"""Ray session of a job: checks before the work, a quiet console and a connection for its duration."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from brats import storage
from brats.cluster.connect import connected
from brats.cluster.owned import check_free
from brats.cluster.preflight import check_cluster
from brats.cluster.quiet import native_log_hidden
from brats.errors import ConfigError


@contextmanager
def ready(
    inputs: Mapping[str, str | None], out: str, wait_minutes: float, imports: Sequence[str] = ()
) -> Iterator[None]:
    """Run the block connected to a cluster that can do the job. All paths are absolute.

    inputs:  what every machine reads, by the option that names it; None where the job makes its own
    out:     what every machine writes to; checked first, before Ray starts
    imports: large modules that the job needs later, imported while Ray starts

    Raises a BratsError, one line that names the setting, the path or the machine, where something is amiss.
    """
    if not os.environ.get("RAY_ADDRESS"):  # machines of a cluster may see what this one does not: they are asked
        _check_there(inputs)
    storage.check_roundtrip(out)
    check_free(out)
    with native_log_hidden(), connected(imports, wait_minutes=wait_minutes):
        check_cluster(inputs, out, wait_minutes=wait_minutes)
        yield


def _check_there(inputs: Mapping[str, str | None]) -> None:
    """Raise ConfigError for an input that is not on this machine."""
    for option, path in inputs.items():
        if path and not storage.is_remote(path) and not storage.exists(path):
            raise ConfigError(f"{option}: {path} does not exist")
