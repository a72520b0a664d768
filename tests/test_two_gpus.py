"""Scheduling on two machines with a T4 each, pretended: torch sees none, but Ray places as if they were there."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("two_gpus")
    script = Path(__file__).parent / "two_gpus.py"
    done = subprocess.run(
        [sys.executable, str(script), str(out)], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    findings: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return findings


def test_each_gpu_has_a_worker_of_its_kind(found: dict[str, Any]) -> None:
    assert found["both"] == {"workers": 2, "use_gpu": True, "cpus": 1.0, "threads": 0, "accelerator": "T4"}
    assert found["said_of_both"] == "2 T4 workers"
    assert len(found["nodes_of_two"]) == 2


def test_ray_train_gives_a_worker_its_gpu(found: dict[str, Any]) -> None:
    assert len(found["worker"]["gpus"]["GPU"]) == 1
    assert found["worker"]["world_size"] == found["worker"]["asked"] == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use the GPU of this machine")
def test_gpu_that_torch_cannot_use_is_named_with_its_machine_and_driver(found: dict[str, Any]) -> None:
    assert found["unusable"].startswith("machine ")
    assert "the NVIDIA driver is" in found["unusable"]


def test_every_machine_that_computes_is_asked(found: dict[str, Any]) -> None:
    assert [sight["complaint"] for sight in found["sights"]] == ["", ""]


def test_with_one_machine_lost_the_other_goes_on_and_says_so(found: dict[str, Any]) -> None:
    assert found["rest"]["workers"] == 1
    assert found["rest"]["accelerator"] == "T4"
    assert "2 workers asked for, room for 1; gradients accumulate" in found["said_of_rest"]


def test_room_for_the_missing_worker_is_there_when_a_machine_joins(found: dict[str, Any]) -> None:
    assert not found["room_while_held"]
    assert found["room_after"]
