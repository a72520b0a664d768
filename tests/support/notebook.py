"""An IPython kernel in the shape of Kaggle's: read-only data, little shared memory, and two T4s that Ray sees."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from tests.support import ROOT

PATIENCE_S = 400
SHARED_MEMORY = "64m"  # as Docker gives to a container
T4S = {"CPU": 4, "GPU": 2, "accelerator_type:T4": 1}
MOUNTS = (
    f"mount -t tmpfs -o size={SHARED_MEMORY} tmpfs /dev/shm"
    ' && mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"'
)


@dataclass(frozen=True)
class Cell:
    """What came of a cell.

    said:   on standard output and standard error
    error:  what a notebook shows of an exception, "" where there was none
    result: the last expression, as text
    shown:  what was displayed, by MIME type
    """

    said: str
    error: str
    result: str
    shown: Sequence[dict[str, Any]] = field(default_factory=list)


class Kernel:
    """A running kernel, and what is asked of it."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self._manager, self._client = manager, client

    def run(self, code: str, interrupt_at: str = "") -> Cell:
        """Run a cell to its end, or interrupt the kernel as soon as it has said this."""
        said: list[str] = []
        results: list[str] = []
        shown: list[dict[str, Any]] = []
        interrupted = False

        def take(message: dict[str, Any]) -> None:
            nonlocal interrupted
            content = message["content"]
            if message["msg_type"] == "stream":
                said.append(content["text"])
            elif message["msg_type"] == "execute_result":
                results.append(content["data"]["text/plain"])
                shown.append(content["data"])
            elif message["msg_type"] == "display_data":
                shown.append(content["data"])
            if interrupt_at and not interrupted and interrupt_at in "".join(said):
                interrupted = True
                self._manager.interrupt_kernel()

        reply = self._client.execute_interactive(code, output_hook=take, timeout=PATIENCE_S)["content"]
        error = "\n".join(reply.get("traceback", []))
        cell = Cell("".join(said), error, "".join(results), shown)
        print(f"\n{code}\n{cell.said}{cell.error}{cell.result}")
        return cell


def mounts_are_allowed(folder: Path) -> bool:
    """Whether this user can have file systems of its own, in containers too."""
    command = ["unshare", "--mount", "sh", "-c", MOUNTS, str(folder)]
    return (
        bool(shutil.which("unshare")) and not subprocess.run(command, capture_output=True, check=False).returncode
    )


@contextmanager
def kernel(folder: Path, data: Path, working: Path) -> Iterator[Kernel]:
    """A kernel that works in `working`; `data` and /dev/shm are as on Kaggle where `mounts_are_allowed`.

    folder: for the files of the kernel
    """
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    if mounts_are_allowed(data):
        command = ["unshare", "--mount", "sh", "-c", f'{MOUNTS} && exec "$@"', str(data), *command]
    spec = folder / "kernels" / "kaggle" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": command, "display_name": "Kaggle", "language": "python"}))
    manager = KernelManager(
        kernel_name="kaggle",
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(spec.parents[1])]),
        connection_file=str(folder / "connection.json"),
        transport="ipc",
    )
    own = {
        "IPYTHONDIR": str(folder / "ipython"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_OVERRIDE_RESOURCES": json.dumps(T4S),
    }
    manager.start_kernel(cwd=str(working), env={**os.environ, **own})
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE_S)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
