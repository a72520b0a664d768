"""cluster.yaml and cluster-local.yaml: valid for Ray, safe by our own rules, and their set-up commands work."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT

AWS, LOCAL = "cluster.yaml", "cluster-local.yaml"
PLACEHOLDERS = (
    "ami-00000000000000000",
    "my-key",
    "~/.ssh/my-key.pem",
    "sg-00000000000000000",
    "subnet-00000000000000000",
    "my-group",
)
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


def load(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return config


def node_configs(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: kind["node_config"] for name, kind in config["available_node_types"].items()}


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as `ray up` completes and checks it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    complete: dict[str, Any] = prepare_config(config)
    validate_config(complete)
    return complete


@pytest.mark.parametrize("name", [AWS, LOCAL])
def test_ray_accepts_the_file(name: str) -> None:
    assert prepared(load(name))["cluster_name"]


@pytest.mark.parametrize("name", [AWS, LOCAL])
def test_ray_adds_no_command_of_its_own(name: str) -> None:
    """Ray's defaults install a nightly wheel and open the dashboard to every address."""
    ours = load(name)
    assert set(COMMANDS) <= set(ours)
    complete = prepared(ours)
    for key in ("initialization_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        assert complete[key] == ours[key]
    for role in ("head", "worker"):  # which Ray makes of the common commands and those of the role
        key = f"{role}_setup_commands"
        assert complete[key] == [*ours["setup_commands"], *ours[key]]


def test_every_value_to_edit_is_written_once() -> None:
    text = (ROOT / AWS).read_text()
    block = text[text.index("# EDIT HERE") : text.index("cluster_name:")]
    for value in (*PLACEHOLDERS, "eu-central-1", "s3://my-bucket"):
        assert len(re.findall(rf"{re.escape(value)}(?![\w.])", text)) == 1, value
        assert value in block


@pytest.mark.parametrize("name", [AWS, LOCAL])
def test_dashboard_is_bound_to_loopback(name: str) -> None:
    (start,) = [command for command in load(name)["head_start_ray_commands"] if "--head" in command]
    assert "--dashboard-host=127.0.0.1" in start
    assert "0.0.0.0" not in (ROOT / name).read_text()


@pytest.mark.parametrize("name", [AWS, LOCAL])
def test_every_ray_command_runs_with_a_token(name: str) -> None:
    config = load(name)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    (mode,) = [command for command in config["setup_commands"] if "RAY_AUTH_MODE" in command]
    assert "RAY_AUTH_MODE=token" in mode
    assert mode.endswith(">> ~/.brats-settings")
    assert any(
        "source ~/.brats-settings" in command and ">> ~/.bashrc" in command for command in config["setup_commands"]
    )


@pytest.mark.parametrize("name", [AWS, LOCAL])
def test_no_key_of_a_store_is_asked_for_where_ray_would_show_it(name: str) -> None:
    text = (ROOT / name).read_text().upper()
    assert "SECRET" not in text
    assert "ACCESS_KEY" not in text
    assert "SESSION_TOKEN" not in text


@pytest.mark.parametrize("name", [AWS, LOCAL])
def test_keys_of_a_store_travel_as_a_file_when_their_line_is_no_comment_any_more(name: str) -> None:
    commented = "  # ~/.aws/credentials: "
    text = (ROOT / name).read_text()
    assert text.count(commented) == 1
    config = yaml.safe_load(text.replace(commented, commented.replace("# ", "")))
    assert config["file_mounts"] == {**load(name)["file_mounts"], "~/.aws/credentials": "~/.aws/brats-store"}
    assert prepared(config)["cluster_name"]


def test_both_kinds_of_machine_have_an_image_a_profile_a_group_and_imds_v2() -> None:
    for name, node in node_configs(load(AWS)).items():
        assert node["ImageId"].startswith("ami-"), name
        assert node["SecurityGroupIds"] == ["sg-00000000000000000"], name
        assert node["MetadataOptions"]["HttpTokens"] == "required", name
        for disk in node["BlockDeviceMappings"]:
            assert disk["Ebs"]["Encrypted"], name
            assert disk["Ebs"]["DeleteOnTermination"], name
    profiles = {name: node["IamInstanceProfile"] for name, node in node_configs(load(AWS)).items()}
    assert profiles == {"head": {"Name": "brats-head"}, "gpu": {"Name": "brats-worker"}}


def test_workers_are_spot_scale_from_zero_and_leave_nothing_to_pay_for() -> None:
    config = load(AWS)
    gpu = config["available_node_types"]["gpu"]
    assert (gpu["min_workers"], gpu["max_workers"], config["max_workers"]) == (0, 2, 2)
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert gpu["node_config"]["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] >= 150
    assert config["provider"]["cache_stopped_nodes"] is False
    assert config["idle_timeout_minutes"] <= 15


def test_workers_alone_stand_in_the_placement_group() -> None:
    """The head exchanges no gradients, and its machine would have to be found beside theirs."""
    placements = {name: node.get("Placement") for name, node in node_configs(load(AWS)).items()}
    assert placements == {"head": None, "gpu": {"GroupName": "my-group"}}


def test_head_runs_no_tasks() -> None:
    config = load(AWS)
    assert config["available_node_types"][config["head_node_type"]]["resources"] == {"CPU": 0}
    assert any("--num-cpus=0" in command for command in config["head_start_ray_commands"])


def shell(commands: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    """Run setup commands as Ray does, each in a login shell of its own; programs in `home/bin` come first."""
    bashrc = home / ".bashrc"
    if not bashrc.exists():
        bashrc.write_text(f"PATH={home}/bin:$PATH\n")
    for command in commands:
        line = f"true && source ~/.bashrc; export OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore && ({command})"
        done = subprocess.run(
            ["bash", "--login", "-c", line],
            env={"HOME": str(home), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
            cwd=home,
        )
        if done.returncode:
            break
    return done


def fake(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The home folder of a new machine on which AWS answers for the region."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    fake(tmp_path / "bin", "curl", '[[ "$*" == *placement/region* ]] && echo -n eu-west-3 || echo -n session')
    return tmp_path


def without_installing(config: dict[str, Any]) -> list[str]:
    return [command for command in config["setup_commands"] if "pip" not in command and "modinfo" not in command]


def settings_of(home: Path) -> dict[str, str]:
    done = shell(["env -0"], home)
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if "=" in line)


def test_settings_reach_every_shell_that_starts_ray(machine: Path) -> None:
    """Twice, as a second `ray up` does."""
    commands = without_installing(load(AWS))
    (machine / ".brats-settings").touch(0o644)  # of an older set-up
    done = shell([*commands, *commands], machine)
    assert done.returncode == 0, done.stderr
    found = settings_of(machine)
    assert found["BRATS_DATA"] == "s3://my-bucket/BraTS2021"
    assert found["BRATS_STORAGE"] == "s3://my-bucket/runs"
    assert found["AWS_REGION"] == found["AWS_DEFAULT_REGION"] == "eu-west-3"
    assert found["RAY_AUTH_MODE"] == "token"
    assert found["PATH"].startswith(f"{machine}/venv/bin:")
    assert (machine / ".bashrc").read_text().count("brats-settings") == 1
    for secret in (".ray/auth_token", ".brats-settings"):
        assert (machine / secret).stat().st_mode & 0o777 == 0o600, secret


@pytest.mark.parametrize("name", [AWS, LOCAL])
def test_settings_are_never_readable_by_others_not_even_while_they_are_written(name: str, machine: Path) -> None:
    done = shell([load(name)["metadata"]["settings"]], machine)
    assert done.returncode == 0, done.stderr
    assert (machine / ".brats-settings").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", [AWS, LOCAL])
def test_keys_of_a_store_are_for_their_owner_alone(name: str, machine: Path) -> None:
    (machine / ".aws").mkdir()
    (machine / ".aws" / "credentials").touch(0o644)
    assert shell(without_installing(load(name)), machine).returncode == 0
    assert (machine / ".aws" / "credentials").stat().st_mode & 0o777 == 0o600


def test_region_of_the_settings_goes_before_the_machine_s_own(machine: Path) -> None:
    config = load(AWS)
    commented = "# export AWS_ENDPOINT_URL_S3=... AWS_REGION=..."
    commands = [
        command.replace(commented, "export AWS_ENDPOINT_URL_S3=http://store AWS_REGION=elsewhere")
        for command in without_installing(config)
    ]
    assert commands != without_installing(config)
    assert shell(commands, machine).returncode == 0
    found = settings_of(machine)
    assert found["AWS_REGION"] == found["AWS_DEFAULT_REGION"] == "elsewhere"
    assert found["AWS_ENDPOINT_URL_S3"] == "http://store"


def test_local_settings_reach_every_shell_that_starts_ray(machine: Path) -> None:
    done = shell(without_installing(load(LOCAL)), machine)
    assert done.returncode == 0, done.stderr
    assert settings_of(machine)["BRATS_STORAGE"] == "/shared/runs"
    assert settings_of(machine)["RAY_AUTH_MODE"] == "token"


@pytest.mark.parametrize(("driver", "good"), [("595.91.07", True), ("580.65.06", True), ("570.172.08", False)])
def test_image_with_a_driver_too_old_for_torch_stops_the_first_machine(
    machine: Path, driver: str, good: bool
) -> None:
    (check,) = [command for command in load(AWS)["setup_commands"] if "modinfo" in command]
    fake(machine / "bin", "modinfo", f"echo {driver}")
    done = shell([check], machine)
    assert (done.returncode == 0) == good
    assert good or f"driver {driver}, torch needs 580 or later: set ami in cluster.yaml" in done.stdout


def test_image_without_a_driver_stops_the_first_machine(machine: Path) -> None:
    (check,) = [command for command in load(AWS)["setup_commands"] if "modinfo" in command]
    fake(machine / "bin", "modinfo", "exit 1")
    assert shell([check], machine).returncode == 1


def test_driver_that_is_asked_for_suits_the_pinned_torch() -> None:
    """CUDA 13.x needs driver 580; when torch is raised to another CUDA the check in cluster.yaml must follow."""
    import torch

    if torch.version.cuda is None:
        pytest.skip("this torch is built without CUDA")
    assert torch.version.cuda.split(".")[0] == "13"
    assert "-ge 580" in (ROOT / AWS).read_text()


@pytest.mark.parametrize("name", [AWS, LOCAL])
def test_what_is_copied_to_the_machines_is_enough_to_install_the_project(name: str, tmp_path: Path) -> None:
    for remote, local in load(name)["file_mounts"].items():
        if "auth_token" in remote:
            continue
        target = tmp_path / remote.removeprefix("~/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / local).is_dir():
            shutil.copytree(ROOT / local, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / local, target)
    source = tmp_path / "brats-ray"
    assert (source / "constraints.txt").exists()
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--target", str(tmp_path / "site"), str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "brats" / "pipeline" / "train.py").exists()
