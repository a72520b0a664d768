"""Scheduling on two machines with a T4 each, pretended: torch sees none, but Ray places as if they were there."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from brats.model.bundle import ModelCard, save_bundle
from tests.support import ROOT
from tests.support.fault_cluster import Job, machines
from tests.support.prepared import CONFIG, INPUTS, undecided_network
from tests.support.synthetic import write_case, write_cases
from tests.support.two_gpus import T4

pytestmark = pytest.mark.ray

BOTH = {"workers": 2, "use_gpu": True, "cpus": 1.0, "threads": 0, "accelerator": "T4", "missing": 0}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("two_gpus")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.two_gpus", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    findings: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return findings


def test_each_gpu_has_a_worker_of_its_kind(found: dict[str, Any]) -> None:
    assert found["both"] == BOTH
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
    assert found["rest"]["missing"] == 1
    assert found["rest"]["accelerator"] == "T4"
    assert found["worker_left"]["world_size"] == 1
    assert len(found["worker_left"]["gpus"]["GPU"]) == 1
    assert "room for 1 of 2 workers; gradients accumulate" in found["said_of_rest"]


def test_room_for_the_missing_worker_is_there_when_a_machine_joins(found: dict[str, Any]) -> None:
    assert not found["room_while_held"]
    assert found["room_after"]


BOOTSTRAP = """
max_workers: 2
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}, node_config: {}}
  gpu: {resources: {CPU: 4, GPU: 1}, max_workers: 2, node_config: {}}
"""


@pytest.fixture
def scaled_to_zero(tmp_path: Path) -> dict[str, str]:
    """The environment of a job on a head whose autoscaler may start two GPU machines."""
    (tmp_path / "ray_bootstrap_config.yaml").write_text(BOOTSTRAP)
    return {"HOME": str(tmp_path)}


def test_job_waits_aloud_for_machines_that_can_come_and_goes_on_with_them(
    tmp_path: Path, scaled_to_zero: dict[str, str]
) -> None:
    for number in range(3):
        write_case(str(tmp_path / "cases"), f"case_{number}", seed=number, shape=(32, 30, 14))
    options = ["--data", str(tmp_path / "cases"), "--out", str(tmp_path / "out"), "--wait-minutes"]
    with machines(0) as cluster:
        impatient = Job("prepare", [*options, "0.02"], cluster.address, scaled_to_zero)
        assert impatient.end() == 1
        assert "no room for a worker came up within 0.02 minutes (--wait-minutes)" in impatient.said
        patient = Job("prepare", [*options, "10"], cluster.address, scaled_to_zero)
        patient.wait_for_line("cluster  waiting for 1 CPU worker, room for none so far; 9:5")
        cluster.add(**T4)
        assert "prepared 3 cases" in patient.succeed()


N_CASES = 20


def test_predicting_goes_on_with_the_gpu_that_is_left(tmp_path: Path) -> None:
    card = ModelCard(
        encoder=CONFIG.encoder,
        decoder_channels=CONFIG.decoder_channels,
        inputs=INPUTS,
        epoch=1,
        val_dice=0.5,
        trained_on={},
    )
    save_bundle(str(tmp_path / "model"), undecided_network().state_dict(), card)
    case_ids = write_cases(tmp_path / "cases", N_CASES, shape=(96, 96, 48))
    paths = ["--model", str(tmp_path / "model"), "--data", str(tmp_path / "cases"), "--out", str(tmp_path / "out")]
    options = [*paths, "--precision", "fp32", "--wait-minutes", "0.3"]
    with machines(0) as cluster:
        for _ in range(2):
            cluster.add(**T4)
        job = Job("predict_on_t4s", options, cluster.address, folder=ROOT / "tests" / "support")
        predictors = "MapWorker(Map(PredictorOnCpu))"
        job.wait_for(lambda: len(cluster.workers(predictors)) == 2, "two predictors")
        job.wait_for(lambda: len(list(tmp_path.glob("out/parts/[!.]*.parquet"))) >= 2, "two cases")
        cluster.remove(cluster.nodes[-1])
        said = job.succeed()
    print(f"\n{job.seconds:.1f} s\n{said}")
    assert "predict  2 T4 workers" in said
    assert "lost the machine" in said
    scored = pd.read_parquet(tmp_path / "out" / "metrics" / "cases.parquet")
    assert sorted(scored.case_id) == sorted(case_ids * 3)
    assert len(pd.read_parquet(tmp_path / "out" / "rejects.parquet")) == 0
