"""A job as a program: an exit code, and one line for an error."""

import importlib.util
import os
import select
import sys
import traceback
from collections.abc import Callable
from typing import Protocol, TypeVar

from brats.cli.parser import DONE, parse, program
from brats.errors import BratsError, ConfigError

FAILED, WRONG_COMMAND = 1, 2
NOBODY_READS = 141  # 128 + SIGPIPE, as shells report a program whose output is no longer read: `... | head`

DEPENDENCIES = (
    *("deflate", "fsspec", "h5py", "isal", "matplotlib", "nibabel", "nilearn", "numpy", "pandas", "pyarrow", "ray"),
    *(
        "s3fs",
        "safetensors",
        "scipy",
        "segmentation_models_pytorch",
        "tensorboardX",
        "timm",
        "torch",
        "torchvision",
        "xxhash",
        "yaml",
    ),
)
"""The modules of the dependencies that pyproject.toml names."""
REMEDY = "run `make install`, then `source .venv/bin/activate`"


class JobConfig(Protocol):
    """What the configurations of all jobs have."""

    @property
    def debug(self) -> bool: ...


Config = TypeVar("Config", bound=JobConfig)


def run_job(main: Callable[[Config], None], config_class: type[Config]) -> None:
    """Run a job from the command line and exit.

    0 done, 1 the job failed, 2 the command line is wrong, 141 nobody reads the output any more
    """
    try:
        code = _run(main, config_class)
        sys.stdout.flush()  # here, where the error of a closed pipe can still be met
    except BrokenPipeError:
        if not (unread := _unread()):
            raise
        for descriptor in unread:  # what is still buffered is written as Python exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        code = NOBODY_READS
    sys.exit(code)


def _unread() -> list[int]:
    """Which of standard output and standard error are pipes that nobody reads any more."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)  # that there is no reader is reported unasked
    return [descriptor for descriptor, event in poll.poll(0) if event & select.POLLERR]


def _run(main: Callable[[Config], None], config_class: type[Config]) -> int:
    """Run a job and return its exit code; an error is reported in one line."""
    config: Config | None = None
    try:
        check_installed()
        config = parse(config_class, sys.argv[1:])
        keep_home_clean()
        main(config)
    except KeyboardInterrupt:
        code = NOBODY_READS if _unread() else FAILED  # found by another thread, which stops this one
        return _complain("stopped; the same command keeps what is finished and does the rest", code)
    except (BratsError, ImportError) as error:
        message = _import_problem(error) if isinstance(error, ImportError) else str(error)
        if not message:
            raise
        if config and config.debug:
            traceback.print_exc()
        return _complain(message, WRONG_COMMAND if isinstance(error, ConfigError) else FAILED)
    return DONE


def check_installed() -> None:
    """Raise BratsError unless every dependency can be found; none is imported."""
    missing = [name for name in DEPENDENCIES if importlib.util.find_spec(name) is None]
    if missing:
        raise BratsError(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; {REMEDY}")


def keep_home_clean() -> None:
    """Have matplotlib keep its list of fonts in a temporary folder of this user, not in the home folder."""
    from brats.storage.user_folder import user_folder  # only now: --help needs none of what it loads

    if folder := user_folder():
        os.environ.setdefault("MPLCONFIGDIR", os.path.join(folder, "matplotlib"))


def _import_problem(error: ImportError) -> str:
    """An error of importing a dependency in one line; "" for a bug of this project."""
    module = (error.name or "").partition(".")[0]
    if module == "brats":
        return ""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is missing; {REMEDY}"
    reason = " ".join(str(error).split())
    return f"{module or 'a dependency'} is installed, but cannot be imported ({reason}); {REMEDY}"


def _complain(message: str, code: int) -> int:
    print(f"{program()}: {message}", file=sys.stderr, flush=True)
    return code
