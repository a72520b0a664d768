"""The device a worker computes on; a GPU that cannot be used is an error, not a reason to compute on the CPU."""

import subprocess

import torch

from brats.errors import ConfigError


def choose_device(use_gpu: bool) -> torch.device:
    """The GPU that Ray has given this process, or the CPU.

    Raises ConfigError naming the driver when torch cannot use the GPU.
    """
    if not use_gpu:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            f"Ray sees a GPU that torch cannot use: torch {torch.__version__} is built for CUDA "
            f"{torch.version.cuda}, the NVIDIA driver is {driver_version()}; update it, or use --device cpu"
        )
    return torch.device("cuda", torch.cuda.current_device())


def driver_version() -> str:
    """The version of the NVIDIA driver of this machine, or that there is none."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return "not installed"
    return said.splitlines()[0].strip() if said.strip() else "not installed"
