"""A child of `brats.pipeline.several.children` that does what the name of its run says instead of training."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from brats.config import TrainConfig
from brats.errors import BratsError, ConfigError, NoRoomError
from brats.pipeline.several import children

MODULE = "tests.support.stand_in_child"
PATIENCE_S = 60.0


def act(config: TrainConfig) -> None:
    """Stands for the training of a run."""
    out = Path(config.out)
    print(f"at {os.environ['RAY_ADDRESS']} with {config.workers} workers", flush=True)
    if out.name == "fails":
        raise BratsError("the loss is no longer finite")
    if out.name == "crowded":
        raise NoRoomError("no room")
    if out.name == "wrong":
        raise ConfigError("--encoder: unknown")
    if out.name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if out.name.startswith("meets"):
        _meet(out)
    if out.name == "waits":
        (out.parent / "waiting").touch()
        _until(lambda: False)
    with open(out.parent / "ended", "a") as log:
        log.write(f"{out.name}\n")


def _meet(out: Path) -> None:
    """Go on when another of its kind is at work too."""
    (out.parent / f"{out.name} is here").touch()
    _until(lambda: len(list(out.parent.glob("meets* is here"))) > 1)


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > deadline:
            raise BratsError("waited in vain")
        time.sleep(0.02)


if __name__ == "__main__":
    children._fit = act
    children.main()
