"""Which arithmetic a device gets, and what autocast makes of it."""

import pytest
import torch

from brats.config import Precision
from brats.errors import ConfigError
from brats.model.precision import autocast, choose_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, "fp32"),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
    ],
)
def test_auto_on_a_cpu_is_bf16_only_where_it_multiplies_in_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: Precision
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision("auto", CPU) == expected


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 0), "fp16"), ((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_auto_on_a_gpu_is_fp16_before_ampere_and_bf16_since(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: Precision
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert choose_precision("auto", GPU) == expected


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_precision_asked_for_is_kept(precision: Precision, device: torch.device) -> None:
    assert choose_precision(precision, device) == precision


def test_fp16_is_for_gpus_only() -> None:
    assert choose_precision("fp16", GPU) == "fp16"
    with pytest.raises(ConfigError, match=r"^--precision: fp16 needs a GPU; use bf16 or fp32"):
        choose_precision("fp16", CPU)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_multiplies_in_the_precision_and_only_inside(precision: Precision, dtype: torch.dtype) -> None:
    matrix = torch.ones(2, 2)
    with autocast(precision, CPU):
        assert (matrix @ matrix).dtype == dtype
    assert (matrix @ matrix).dtype == torch.float32
