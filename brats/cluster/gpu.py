"""Check that torch can use the GPU that Ray sees: if not, that is an error, not a reason to use the CPU."""

import subprocess

import torch

from brats.errors import ConfigError


def require_cuda() -> None:
    """Raise ConfigError, with the versions of torch's CUDA and of the driver, unless torch can use a GPU."""
    if not torch.cuda.is_available():
        raise ConfigError(
            f"Ray sees a GPU that torch cannot use: torch {torch.__version__} is built for CUDA "
            f"{torch.version.cuda}, the NVIDIA driver is {driver_version()}; update it, or use --device cpu"
        )


def driver_version() -> str:
    """The version of the NVIDIA driver of this machine, or "not installed"."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return "not installed"
    return output.strip().partition("\n")[0] or "not installed"
