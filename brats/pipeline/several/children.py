"""Networks fitted in child processes, several at a time, each line of theirs with the name of its run in front.

A child is a driver of its own on the same cluster. Its standard input stays open while its parent wants it to work:
where that ends, because the parent stops it or has died, it stops as it would for Ctrl-C.
"""

import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from brats.config import TrainConfig
from brats.console import interrupt_main_thread, say
from brats.errors import BratsError, ConfigError, NoRoomError

POLL_S = 0.2
STOP_S = 30.0  # for children to end their workers and to give their folders free
ERRORS = {2: ConfigError, 3: NoRoomError, 1: BratsError}  # by the exit code of a child, the base of them last


class Child:
    """A child process that fits the network of a run; its lines are printed as they come, the last one is kept."""

    def __init__(self, name: str, config: TrainConfig, address: str, module: str = __name__) -> None:
        self.config, self._name, self._last = config, name, ""
        root = str(Path(__file__).parents[3])  # where the package lies, installed or not
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            env={**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which stops its children
        )
        self._reader = threading.Thread(target=self._show, daemon=True)
        self._reader.start()
        with suppress(BrokenPipeError):  # it has ended already, and says why
            self._input.write(pickle.dumps(config))
            self._input.flush()

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _show(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._last = line.decode(errors="replace").rstrip()
                say(self._name, self._last)

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def error(self) -> BratsError | None:
        """Why a child failed, once it has ended; None where it did not."""
        code = self._process.wait()
        self.stop()
        if code == 0:
            return None
        if code in ERRORS:
            return ERRORS[code](self._last)
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        return BratsError(f"its process ended with {ended}; its last line was: {self._last}")

    def stop(self) -> None:
        """Have it stop, which `end` waits for; what has ended is let go."""
        with suppress(OSError):
            self._input.close()
        if self.has_ended():
            self._reader.join(timeout=POLL_S)  # a process that it has left behind may hold its output

    def end(self, deadline: float) -> None:
        """Wait until this time of the monotonic clock for it to end, and then kill it."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))
        self._process.kill()
        self._process.wait()
        self.stop()


def run_children(
    configs: Sequence[TrainConfig], at_once: int, address: str, module: str = __name__
) -> dict[str, BratsError]:
    """Fit the networks of runs in child processes, so many at a time; return those that failed, by folder.

    address: of the cluster
    module:  what a child executes; another one in tests
    """
    waiting = list(zip(short_names([config.out for config in configs]), configs, strict=True))
    running: list[Child] = []
    failed = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(Child(*waiting.pop(0), address, module))
            time.sleep(POLL_S)
            for child in [child for child in running if child.has_ended()]:
                running.remove(child)
                if error := child.error():
                    failed[child.config.out] = error
    finally:
        for child in running:
            child.stop()
        for child in running:
            child.end(time.monotonic() + STOP_S)
    return failed


def short_names(folders: Sequence[str]) -> list[str]:
    """What tells folders apart: their paths below the folder that all of them lie in."""
    parts = [folder.split("/") for folder in folders]
    shortest = min(map(len, parts)) - 1
    n_common = max(n for n in range(shortest + 1) if len({tuple(each[:n]) for each in parts}) == 1)
    return ["/".join(each[n_common:]) for each in parts]


def main() -> None:
    """Fit the network of the run that standard input holds, as long as that stays open."""
    config: TrainConfig = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    try:
        _fit(config)
    except KeyboardInterrupt:
        sys.exit(1)
    except BratsError as error:
        if config.debug:
            traceback.print_exc()
        print(error, flush=True)
        sys.exit(next(code for code, kind in ERRORS.items() if isinstance(error, kind)))


def _fit(config: TrainConfig) -> None:
    from brats.cluster.connect import NETWORK_MODULES
    from brats.cluster.session import ready
    from brats.pipeline.train import fit_network

    with ready({"--data": config.data}, config.out, config.wait_minutes, NETWORK_MODULES):
        fit_network(config)


def _stop_at_end_of_input() -> None:
    while os.read(0, 1):  # past Python's buffer, whose lock would be held when the process ends
        pass
    interrupt_main_thread()


if __name__ == "__main__":
    main()
