"""Precision of the network on a device: fp32, bf16 or fp16."""

from contextlib import AbstractContextManager

import torch

from brats.config import Precision
from brats.errors import ConfigError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BF16_CAPABILITY = (8, 0)  # CUDA compute capability from which bf16 runs at full speed; a T4 has 7.5


def choose_precision(precision: Precision, device: torch.device) -> Precision:
    """The arithmetic that "auto" stands for on this device; anything else is checked and returned.

    bf16 where the device multiplies matrices in it, else fp16 on a GPU, else fp32. Raises ConfigError for fp16 on
    a CPU, which has no fast fp16 arithmetic.
    """
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("--precision: fp16 needs a GPU; use bf16 or fp32 on a CPU")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= BF16_CAPABILITY else "fp16"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """Run what is inside in this arithmetic where that is safe, as torch.autocast does."""
    # Without its cache: every weight is cast once in a pass anyway, and a recorded pass may not refer to casts that
    # another one made.
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32", cache_enabled=False)
