"""A GPU that torch cannot use."""

import os
from pathlib import Path

import pytest
import torch

from brats.cluster.gpu import driver_version, require_cuda
from brats.errors import ConfigError


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use the GPU of this machine")
def test_gpu_that_torch_cannot_use_is_an_error_that_names_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 450.80.02\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ConfigError, match=r"built for CUDA [\d.]+, the NVIDIA driver is 450\.80\.02; update it"):
        require_cuda()


def test_missing_driver_is_said_to_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver_version() == "not installed"
